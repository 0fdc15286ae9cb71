"""``holdfast demo``: a whole run on data that ships with Holdfast, compared with a baseline run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.options import Out, Output
from holdfast.core.labels import verdict_title
from holdfast.terminal.layout import wrap

WIDTH = 29


def command(
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted demo.")] = False,
) -> None:
    """Train on descriptions of Debian packages, then compare with a baseline run.

    The task is to predict the section of a package. The baseline run splits single rows at random,
    takes as many steps at five times the learning rate without early stopping, and keeps its last
    checkpoint. Both runs are scored on packages from sources that neither was trained on.
    """
    from holdfast.contract.request import TrainingRequest
    from holdfast.recipe import read_recipe
    from holdfast.terminal.summary import summary
    from holdfast.terminal.watch import train_with_progress

    output = Output()
    recipe = read_recipe(Path(__file__).parents[1] / "demo" / "recipe.yaml")
    result, run = train_with_progress(TrainingRequest("demo", out=out, resume=resume), recipe)
    output.show(result, partial(summary, result, run))
    baseline = _baseline_run(run)
    output.show(baseline, lambda columns: "\n".join(comparison_lines(baseline, run, columns)))


def _baseline_run(run: Path) -> dict[str, Any]:
    """Train the baseline run, with its progress."""
    from holdfast.pipeline.baseline import add_baseline_run
    from holdfast.terminal.messages import MessagePrinter
    from holdfast.terminal.progress import RunDisplay

    show = RunDisplay(quiet=False)
    MessagePrinter(quiet=False).title(
        "\nBaseline run: the same model on the same rows, with a random split, five times\n"
        "the learning rate, no early stopping, and the last checkpoint"
    )
    try:
        return add_baseline_run(run, (show,))
    finally:
        show.close()


def comparison_lines(result: dict[str, Any], run: Path, columns: int) -> list[str]:
    """The two runs side by side: their reported scores, their scores on new sources, and their
    verdicts."""
    block, score = result["careless"], result["test"]["metrics"]["accuracy"]
    verdict = block["verdict"]
    return [
        "",
        _row("", "Baseline run", "Holdfast"),
        _row("Accuracy, own test rows", _rate(block["random_split"]), _rate(score)),
        _row("Accuracy, new sources", _rate(block["honest"]), _rate(score)),
        _row(
            "Verdict, new sources",
            verdict_title(verdict["label"]),
            verdict_title(result["verdict"]["label"]),
        ),
        "",
        *wrap(block["because"], columns),
        "",
        *wrap(f"Baseline run: {verdict_title(verdict['label'])}: {verdict['because']}", columns),
        "",
        f"  Log         {run / block['log']}",
        "              (of the baseline run; try: holdfast diagnose LOG)",
        f"  Report      {run / 'report.html'}",
    ]


def _row(name: str, baseline: str, guarded: str) -> str:
    return f"  {name:<{WIDTH}}{baseline:<25}{guarded}".rstrip()


def _rate(estimate: dict[str, Any]) -> str:
    """``84.3 % (CI 81–87)``."""
    if estimate.get("value") is None:
        return "not measured"
    low, high = estimate.get("low"), estimate.get("high")
    span = "" if low is None or high is None else f" (CI {100 * low:.0f}–{100 * high:.0f})"
    return f"{100 * estimate['value']:.1f} %{span}"
