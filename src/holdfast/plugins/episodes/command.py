"""``holdfast meta``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.options import Label, Model, Seed, Source, Task, Test, Text, Verbose, check_how
from holdfast.core.machine import refuse_too_little
from holdfast.core.printable import printable
from holdfast.terminal.streams import json_text


def command(
    source: Source,
    task_column: Annotated[
        str | None,
        typer.Option(help="The column that tells the tasks apart; else classes are divided."),
    ] = None,
    model: Model = None,
    task: Task = None,
    text: Text = None,
    label: Label = None,
    test: Test = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of a recipe, e.g. meta.shots=1."),
    ] = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The result alone: nothing of the way to it.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Learn a start from many small tasks that adapts to a new one in a few steps, and score it on
    tasks that it never met."""
    refuse_too_little("torch")
    check_how(quiet, verbose, task)
    from holdfast.contract.request import Request
    from holdfast.plugins.episodes.api import meta_watched
    from holdfast.terminal.say import width

    more = [] if task_column is None else [f"meta.task_column={task_column}"]
    request = Request(
        source,
        model=model,
        task=task,
        text=text,
        label=label,
        test=test,
        seed=seed,
        settings=[*more, *(set_ or [])],
        out=out,
        resume=resume,
    )
    result, run = meta_watched(request, quiet=quiet, verbose=verbose)
    typer.echo(json_text(result) if as_json else printable("\n".join(shown(result, run, width()))))


def shown(result: Mapping[str, Any], run: Path, columns: int) -> list[str]:
    """The answer, what stands beside it, and what to type next."""
    import textwrap

    from holdfast.report.answer.answer import answer
    from holdfast.terminal.say import entry

    found, told = answer(result), result["meta"]
    lines = ["", *textwrap.wrap(found.headline, columns), *textwrap.wrap(found.advice, columns), ""]
    for name, one in told["baselines"].items():
        value = one["accuracy"]["value"]
        text = f"{100 * value:.1f} % ({name} embedding, {one['readout']} head)"
        lines += entry("Baseline", text, columns)
    for one in told["tried"]:
        if one["difference"] is not None:
            words = f"{one['method']}: {_points(one['difference'])} on validation episodes"
            lines += entry("Tried", words, columns)
    lines += entry("Kept", f"{told['kept']}: {told['because']}", columns)
    lines += entry("Start", f"{run / 'model'}", columns)
    lines += entry("Report", f"{run / 'report.html'}", columns)
    lines += entry("Next", f"holdfast train ROWS --model {run / 'model'}", columns)
    return list(lines)


def _points(gap: Mapping[str, Any]) -> str:
    """``+0.4 points (−1.2 to +2.0)``; without limits where nothing says how others differ."""
    words, low, high = f"{100 * gap['value']:+.1f} points", gap.get("low"), gap.get("high")
    if low is None or high is None:
        return words
    return f"{words} ({100 * low:+.1f} to {100 * high:+.1f})"
