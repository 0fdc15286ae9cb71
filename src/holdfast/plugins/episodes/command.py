"""``holdfast meta``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.options import (
    Helps,
    LabelledRowOptions,
    Model,
    ResultOutput,
    Resume,
    RunOptions,
    Source,
    Test,
)
from holdfast.core.run_shapes import RESULT_SHAPE
from holdfast.core.wording import signed
from holdfast.terminal.layout import entries, wrap

DOCUMENT = RESULT_SHAPE


@dataclass(frozen=True, slots=True)
class EpisodeRowOptions(LabelledRowOptions):
    """Options for the rows of the tasks."""

    test: Test = None


RUN = Helps(set_="Any key of a recipe, e.g. meta.shots=1.")
OUTPUT = Helps(as_json="Print result.json.")


def command(
    source: Source,
    task_column: Annotated[
        str | None,
        typer.Option(
            help="The column that separates the tasks; without it, the classes are split."
        ),
    ] = None,
    model: Model = None,
    *,
    rows: EpisodeRowOptions,
    run: Annotated[RunOptions, RUN],
    resume: Resume = False,
    output: Annotated[ResultOutput, OUTPUT],
) -> None:
    """Learn a base model from many small tasks that adapts to a new one in a few steps. Score it on
    tasks that it was not trained on.
    """
    from holdfast.plugins.episodes.api import run_meta

    task_settings = [] if task_column is None else [f"meta.task_column={task_column}"]
    settings = [*task_settings, *(run.set_ or [])]
    request = rows.request(
        source, model=model, seed=run.seed, settings=settings, out=run.out, resume=resume
    )
    result, folder = run_meta(request, quiet=output.quiet, verbose=output.verbose)
    output.show(result, lambda columns: "\n".join(summary_lines(result, folder, columns)))


def summary_lines(result: Mapping[str, Any], run: Path, columns: int) -> list[str]:
    """The headline, the comparisons, and the next command."""
    from holdfast.report.answer.answer import answer

    answer_block, block = answer(result), result["meta"]
    entry_lines = []
    for name, one in block["baselines"].items():
        value = one["accuracy"]["value"]
        text = f"{100 * value:.1f} % ({name} embedding, {one['readout']} head)"
        entry_lines.append(("Baseline", text))
    for one in block["tried"]:
        if one["difference"] is not None:
            words = (
                f"{one['method']}: {_points_with_interval(one['difference'])} on "
                "validation episodes"
            )
            entry_lines.append(("Tried", words))
    entry_lines += [
        ("Selected", f"{block['kept']}: {block['because']}"),
        ("Model", f"{run / 'model'}"),
        ("Report", f"{run / 'report.html'}"),
        ("Next", f"holdfast train ROWS --model {run / 'model'}"),
    ]
    headline, advice = (wrap(one, columns) for one in (answer_block.headline, answer_block.advice))
    return ["", *headline, *advice, "", *entries(entry_lines, columns)]


def _points_with_interval(gap: Mapping[str, Any]) -> str:
    """``+0.4 points (−1.2 to +2.0)``; without limits where no interval can be computed."""
    words, low, high = f"{signed(100 * gap['value'])} points", gap.get("low"), gap.get("high")
    if low is None or high is None:
        return words
    return f"{words} ({signed(100 * low)} to {signed(100 * high)})"
