"""``holdfast tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import (
    Group,
    Label,
    Model,
    Seed,
    Source,
    Task,
    Test,
    Text,
    Verbose,
    check_how,
    check_known,
)
from holdfast.cli.words import VERDICTS, complete_verdicts
from holdfast.core.machine import refuse_too_little
from holdfast.core.printable import printable
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast.recipe import Recipe
    from holdfast.runs.procedure import Procedure


def command(
    source: Source,
    model: Model = None,
    task: Task = None,
    text: Text = None,
    label: Label = None,
    group: Group = None,
    test: Test = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of a recipe; a range searches it, e.g. "
            "'train.learning_rate={range: [1e-5, 5e-4], log: true}'.",
        ),
    ] = None,
    seed: Seed = None,
    trials: Annotated[int | None, typer.Option(min=1, help="At most so many trials.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="At most so many minutes of trials.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="Where the trials lie: an Optuna journal, or a database such as postgresql://…",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where the trials are carried out.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be tried, train and write nothing.")
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERDICT",
            autocompletion=complete_verdicts,
            help="Exit 3 where the model that is kept has this verdict.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The result alone: no plan, no progress.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Search settings for SOURCE, keep the model that won, score it once, report."""
    refuse_too_little("torch")
    check_how(quiet, verbose, task)
    feared = check_known(fail_on or [], "--fail-on", "verdict", VERDICTS)
    from holdfast.contract.request import Request
    from holdfast.core.records import is_asked
    from holdfast.search.request import tune_request
    from holdfast.terminal.watch import train_watched

    request, recipe, procedure = tune_request(
        Request(
            source,
            model=model,
            task=task,
            text=text,
            label=label,
            group=group,
            test=test,
            seed=seed,
            settings=set_ or [],
            out=out,
            resume=resume,
        ),
        trials=trials,
        minutes=minutes,
        study=study,
        engine=engine,
        address=address,
    )
    if dry_run:
        _foresee(procedure, recipe, as_json, quiet, verbose)
        return
    result, run = train_watched(request, recipe, quiet=quiet, verbose=verbose, procedure=procedure)
    _print(result, run, as_json)
    found = result["verdict"]["label"]
    if is_asked(found, feared):
        if not quiet:
            told = f"the verdict is {found} (--fail-on), so the exit code is 3"
            typer.echo(f"holdfast: {told}", err=True)
        raise typer.Exit(3)


def _foresee(
    procedure: Procedure, recipe: Recipe, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """The plan of ``--dry-run``."""
    from holdfast.search.outlook import foreseen
    from holdfast.terminal.say import Teller, width

    plan = foreseen(procedure, recipe, Teller(quiet, verbose))
    typer.echo(json_text(plan) if as_json else printable("\n".join(_plan(plan, width()))))


def _plan(plan: Mapping[str, Any], columns: int) -> Iterator[str]:
    from holdfast.core.wording import counted
    from holdfast.report.view.study import searched
    from holdfast.terminal.say import entry

    sides, judged = plan["division"], plan["judged_by"]
    yield "The plan (nothing was written):"
    rows = f"train {sides['train']:,}, validation {sides['valid']:,}, test {sides['test']:,}"
    yield from entry("Rows", rows, columns)
    how = f", out of {judged['folds']} folds" if judged["folds"] > 1 else ""
    yield from entry("Judged by", f"{counted(judged['rows'], 'row')}{how}", columns)
    if "sizes" in plan:
        yield from entry("Sizes", "; ".join(plan["sizes"]), columns)
        return
    bounds = [] if plan["trials"] is None else [f"{counted(plan['trials'], 'trial')}"]
    bounds += [] if plan["minutes"] is None else [f"{plan['minutes']:g} minutes"]
    most = f"at most {' or '.join(bounds)}; the first is what `train` takes"
    yield from entry("Trials", most, columns)
    for name in ("sampler", "pruner"):
        one = plan[name]
        yield from entry(name.capitalize(), f"{one['chosen']}: {one['because']}", columns)
    yield "  Space"
    for key, values, _ in searched(plan):
        yield from entry("", f"{key}: {values}", columns)


def _print(result: Mapping[str, object], run: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json_text(result))
        return
    from holdfast.cli.text.result import summary
    from holdfast.cli.text.trials import size_lines, study_lines
    from holdfast.terminal.say import width

    told = [*study_lines(result, width()), *size_lines(result, width())]
    lines = [*told, *summary(result, run, width())]
    typer.echo(printable("\n".join(lines)))
