"""``holdfast train``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from holdfast.core.errors import RecipeError
from holdfast.core.records import is_asked

if TYPE_CHECKING:
    from holdfast.recipe import Recipe

RECIPES = (".yaml", ".yml")
TEXT_SCORES = {
    "perplexity": "Perplexity", "rouge_l": "ROUGE-L", "f1_micro": "F1 micro",
    "f1_macro": "F1 macro", "exact_match": "Exact", "mae": "MAE", "r2": "R²",
    "spearman": "Rank corr.",
}  # fmt: skip


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="A recipe (.yaml), a data file, a folder of pictures by class, or a hub data set."
        ),
    ],
    model: Annotated[str | None, typer.Option(help="A Hugging Face name or folder.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Worked out from the rows and the model where left out.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="The text column; twice for pairs.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The label column.")] = None,
    group: Annotated[str | None, typer.Option(help="Rows of one group stay together.")] = None,
    test: Annotated[str | None, typer.Option(help="Test rows, used as they are.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any recipe key.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, write nothing.")
    ] = False,
    fail_on: Annotated[
        list[str] | None, typer.Option(metavar="VERDICT", help="Exit 3 on this verdict.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no reasons.")] = False,
) -> None:
    """Fine-tune on SOURCE: audit, divide, train under watch, score once, report."""
    verdicts = _check_verdicts(fail_on or [])
    recipe = build_recipe(
        source, model=model, task=task, text=text, label=label, group=group, test=test, seed=seed,
        settings=set_ or [],
    )  # fmt: skip
    if dry_run:
        _dry_run(recipe, as_json, quiet)
        return
    from holdfast.pipeline.folder import is_main_process

    result, run = execute(recipe, source, out, resume, quiet)
    if is_main_process():
        _print(result, run, as_json)
    if is_asked(result["verdict"]["label"], verdicts):
        raise typer.Exit(3)


def build_recipe(
    source: str, *, model: str | None, task: str | None, text: list[str] | None,
    label: str | None, group: str | None, test: str | None, seed: int | None, settings: list[str],
) -> Recipe:  # fmt: skip
    """The recipe that SOURCE and the options say; an option wins over the recipe file, and
    ``--set`` over both."""
    from holdfast.recipe import Recipe, override, read_recipe

    is_recipe = Path(source).suffix.lower() in RECIPES
    recipe = read_recipe(Path(source)) if is_recipe else Recipe().changed(data={"path": source})
    data = {"label": label, "group": group, "test": test, "text": tuple(text) if text else None}
    recipe = recipe.changed(
        data={key: value for key, value in data.items() if value is not None},
        model={"name": model} if model else {},
    )
    extra = [f"seed={seed}"] if seed is not None else []
    extra += [f"task={task}"] if task else []
    return override(recipe, [*extra, *settings])


def execute(
    recipe: Recipe, source: str, out: Path | None, resume: bool, quiet: bool,
    held: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Path]:  # fmt: skip
    """Run the job with a person watching; returns the result and the run's folder. ``held`` are
    rows in memory, see ``pipeline.held``."""
    from holdfast.cli.progress import Show
    from holdfast.cli.say import Teller
    from holdfast.pipeline.folder import agreed_folder, is_main_process
    from holdfast.pipeline.main import train

    quiet = quiet or not is_main_process()
    tell, show = Teller(quiet), Show(quiet)
    # After the slow import, so that two runs started together do not choose the same number.
    folder = out or agreed_folder(source, resume)
    tell.title(f"holdfast train → {folder}")
    try:
        result = train(recipe, folder, resume=resume, listeners=(show,), tell=tell, held=held or {})
        return result, folder
    finally:
        show.close()


def summary(result: dict[str, Any], run: Path) -> str:
    """What a person needs to know at the end, in a dozen lines of 80 columns."""
    import textwrap

    from holdfast.cli.say import width

    baseline = result["baseline"]
    verdict = textwrap.fill(
        f"Verdict: {result['verdict']['label']}. {result['verdict']['because']}", width()
    )
    lines = [
        "", verdict, "",
        *_scores(result["test"]["metrics"], baseline["all"]),
        textwrap.fill(f"  {baseline['comparison']['because']}", width(), subsequent_indent="  "),
        f"  Test rows  {result['test']['n']}, scored once, never used to choose anything",
        f"  Best state step {result['best_step']} of {result['last_step']}; "
        f"{result['timing']['train_s']:.0f} s of training",
        "", f"  Model      {run / 'model'}", f"  Report     {run / 'report.html'}",
    ]  # fmt: skip
    return "\n".join(lines)


def _scores(metrics: dict[str, Any], beside: list[dict[str, Any]]) -> list[str]:
    """The first numbers of the kind of task, and the baselines' beside them."""
    from holdfast.cli.say import interval, percent, plain_interval

    if "accuracy" in metrics:
        others = [f"{b['what']} {percent(b['test']['metrics']['accuracy']['value'])}"
                  for b in beside]  # fmt: skip
        return [
            f"  Accuracy   {interval(metrics['accuracy'])}",
            f"  F1 macro   {interval(metrics['f1_macro'])}",
            f"  Beside it  {'; '.join(others)}",
        ]
    lines = []
    for name, title in TEXT_SCORES.items():
        if name in metrics:
            lines.append(f"  {title:11}{plain_interval(metrics[name])}")
            others = [f"{b['what']} {plain_interval(b['test']['metrics'][name], short=True)}"
                      for b in beside if name in b["test"]["metrics"]]  # fmt: skip
            lines += [f"{'':13}{'; '.join(others)}"] if others else []
    return lines


def _print(result: dict[str, Any], run: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        typer.echo(summary(result, run))


def _dry_run(recipe: Recipe, as_json: bool, quiet: bool) -> None:
    from holdfast.cli.plan import show_plan
    from holdfast.cli.say import Teller
    from holdfast.pipeline.preview import preview

    plan = preview(recipe, Teller(quiet))
    typer.echo(json.dumps(plan, indent=2, ensure_ascii=False) if as_json else show_plan(plan))


def _check_verdicts(labels: list[str]) -> set[str]:
    from holdfast.core.discovery import nearest
    from holdfast.core.records import Label

    known = list(get_args(Label))
    for label in labels:
        if label not in known:
            raise RecipeError("--fail-on", "is not a verdict", label, nearest(label, known))
    return set(labels)
