"""``holdfast demo``: the main job on the data that ships with Holdfast, and beside it the same job
done carelessly."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.options import Out, Output
from holdfast.core.machine import refuse_low_memory

WIDTH = 29


def command(
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted demo.")] = False,
) -> None:
    """Train on descriptions of Debian packages, then do the same carelessly and compare.

    Which section does a package belong to? The careless run takes single rows at random for its
    test, trains on at five times the rate and keeps its last state. Both are scored on packages of
    sources that neither has seen.
    """
    refuse_low_memory("torch")
    from holdfast.cli.summary import summary
    from holdfast.contract.request import TrainingRequest
    from holdfast.recipe import read_recipe
    from holdfast.terminal.watch import train_with_progress

    output = Output()
    recipe = read_recipe(Path(__file__).parents[1] / "demo" / "recipe.yaml")
    result, run = train_with_progress(TrainingRequest("demo", out=out, resume=resume), recipe)
    output.show(result, lambda columns: "\n".join(summary(result, run, columns)))
    careless = _baseline_run(run)
    output.show(careless, lambda columns: "\n".join(comparison_lines(careless, run, columns)))


def _baseline_run(run: Path) -> dict[str, Any]:
    """The careless run, shown as it goes on."""
    from holdfast.pipeline.baseline import add_baseline_run
    from holdfast.terminal.messages import MessagePrinter
    from holdfast.terminal.progress import RunDisplay

    show = RunDisplay(quiet=False)
    MessagePrinter(quiet=False).title(
        "\nNow the same model on the same rows, carelessly: its test rows single ones at\n"
        "random, five times the learning rate, nobody to stop it, the last state kept"
    )
    try:
        return add_baseline_run(run, (show,))
    finally:
        show.close()


def comparison_lines(result: dict[str, Any], run: Path, columns: int) -> list[str]:
    """The two runs side by side: what each promises, what that is worth, what its curves show."""
    block, honest = result["careless"], result["test"]["metrics"]["accuracy"]
    because = block["because"]
    return [
        "",
        _row("", "carelessly", "with Holdfast"),
        _row("It promises", _rate(block["random_split"]), _rate(honest)),
        _row("On sources it never saw", _rate(block["honest"]), _rate(honest)),
        _row("Its curves, on new sources", _label(block["verdict"]), _label(result["verdict"])),
        "",
        *textwrap.wrap(f"Carelessly: {because[:1].lower()}{because[1:]}", columns),
        "",
        *textwrap.wrap(
            f"Its verdict: {block['verdict']['label']}. {block['verdict']['because']}", columns
        ),
        "",
        f"  Its log     {run / block['log']}",
        "              read it as a stranger's: holdfast diagnose LOG",
        f"  Report      {run / 'report.html'}",
    ]


def _row(name: str, careless: str, guarded: str) -> str:
    return f"  {name:<{WIDTH}}{careless:<25}{guarded}".rstrip()


def _rate(estimate: dict[str, Any]) -> str:
    """``84.3 %  (81 to 87)``."""
    if estimate.get("value") is None:
        return "not measured"
    low, high = estimate.get("low"), estimate.get("high")
    span = "" if low is None or high is None else f"  ({100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * estimate['value']:.1f} %{span}"


def _label(verdict: dict[str, object]) -> str:
    return str(verdict["label"]).replace("_", " ")
