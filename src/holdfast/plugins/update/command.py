"""``holdfast update``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import Helps, RunOutput, Seed, set_option
from holdfast.core.errors import RecipeError
from holdfast.core.printable import printable
from holdfast.core.run_shapes import RESULT_SHAPE
from holdfast.core.wording import GATE_OUTCOMES
from holdfast.terminal.layout import entries, run_lines, width, wrap
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from holdfast.plugins.update.options import UpdateOptions
    from holdfast.plugins.update.rounds import RoundSchedule

ACCEPTED = "taken"
NEXT_STEPS = {
    ACCEPTED: "Nothing was promoted. To serve it: holdfast promote {run} --store {store}",
    "kept_aside": "The served run stays in service; this one is kept for inspection.",
    "undecided": "The served run stays in service; update again when there is more feedback, or "
    "compare the two live: holdfast serve {served} --challenger {run} --store {store}",
}
# The gate did not accept the update; its files are complete.
NOT_ACCEPTED = 3


DOCUMENT = RESULT_SHAPE


@dataclass(frozen=True, slots=True)
class FeedbackOptions:
    """The run to update, the feedback, and the schedule."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run in service.")]
    feedback: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="Labelled rows, or the store of the service."),
    ] = None
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Repeat on a schedule (6h, 1d); needs --out.")
    ] = None
    out: Annotated[Path | None, typer.Option(help="Folder of the new run.")] = None


@dataclass(frozen=True, slots=True)
class LearningOptions:
    """How the update is trained, and what the gate allows."""

    margin: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Largest drop allowed on old rows; default 2 to 5, by their number.",
        ),
    ] = None
    start: Annotated[
        str,
        typer.Option(
            metavar="anew|warm", help="anew: from the base model; warm: from the served model."
        ),
    ] = "anew"
    hold: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of the feedback held out for the gate."),
    ] = None
    own: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Largest share of training rows labelled by a model."),
    ] = 0.2
    least: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="With --every: the fewest new rows for a round. Default: 50."
        ),
    ] = None
    set_: Annotated[list[str] | None, set_option("Set a key of the run's recipe.")] = None
    seed: Seed = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted update.")] = (
        False
    )


OUTPUT = Helps(as_json="Print result.json; with --every one line per round.")


def command(
    given: FeedbackOptions, learning: LearningOptions, output: Annotated[RunOutput, OUTPUT]
) -> None:
    """Train an update of RUN on feedback, and test whether the new model may replace it. The exit
    code is 0 if the gate accepts it, 3 if it is rejected or inconclusive; the run is complete in
    both cases. With --every the schedule goes on whatever the gate decides."""
    from holdfast.plugins.update.options import UpdateOptions
    from holdfast.plugins.update.rounds import MIN_NEW_ROWS, round_schedule

    options = UpdateOptions(
        given.run,
        given.feedback,
        learning.margin,
        learning.start,
        learning.hold,
        learning.own,
        learning.seed,
        learning.set_ or [],
    )
    if given.every is not None:
        schedule = round_schedule(options, given.every, given.out, learning.least or MIN_NEW_ROWS)
        _run_rounds(options, schedule, output)
        return
    if learning.least is not None:
        remedy = "Give --every too, or remove it."
        raise RecipeError("--least", "is for updates on a schedule", learning.least, remedy)
    from holdfast.plugins.update.options import run_update

    result, folder = run_update(
        options, given.out, resume=learning.resume, quiet=output.quiet, verbose=output.verbose
    )
    store = _store_name(given.feedback)
    output.show(result, lambda columns: "\n".join(summary_lines(result, folder, columns, store)))
    decision = result["update"]["gate"]["decision"]
    if decision != ACCEPTED:
        notice = f"the update is {GATE_OUTCOMES[decision]}, so the exit code is {NOT_ACCEPTED}"
        typer.echo(f"holdfast: {notice}", err=True)
        raise typer.Exit(NOT_ACCEPTED)


def _store_name(feedback: str | None) -> str:
    """The store that the feedback comes from, without a password."""
    from holdfast.data.database_url import mask_password
    from holdfast.plugins.update.feedback import is_store

    return mask_password(feedback) if feedback is not None and is_store(feedback) else "URL"


def _run_rounds(options: UpdateOptions, schedule: RoundSchedule, output: RunOutput) -> None:
    """Update on a schedule until the process is stopped."""
    from holdfast.plugins.update.options import run_update
    from holdfast.plugins.update.rounds import Rounds

    def update_once(options: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        return run_update(options, folder, resume=resume, quiet=True)[0]

    def log(line: str) -> None:
        if not output.quiet:
            sys.stderr.write(printable(f"holdfast update: {line}") + "\n")
            sys.stderr.flush()

    def print_round(line: Mapping[str, Any], result: Mapping[str, Any] | None) -> None:
        if output.as_json:
            # One line per round, so that a reader of a pipe knows where a document ends.
            typer.echo(json_text({"schema": 1, **(result or {}), "round": line}, indent=None))
        elif result is not None:
            folder = schedule.folder / line["run"]
            lines = summary_lines(result, folder, width(), _store_name(options.feedback))
            typer.echo(printable("\n".join(lines)))

    Rounds(options, schedule, update_once, log, print_round).run()


def summary_lines(
    result: Mapping[str, Any], run: Path, columns: int, store: str = "URL"
) -> list[str]:
    """The gate's decision first, then the details, wrapped to the terminal's width."""
    from holdfast.report.view.update import gate_sentence

    block = result["update"]
    gate = block["gate"]
    answer, entry_lines = wrap(gate_sentence(gate), columns), entries(_entries(block), columns)
    next_step = NEXT_STEPS[gate["decision"]].format(run=run, store=store, served=block["from"])
    return ["", *answer, "", *entry_lines, *run_lines(run), "", *wrap(next_step, columns)]


def _entries(block: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from holdfast.report.view.update import STARTS, excluded_feedback_text, score_change_text

    feedback, start = block["feedback"], block["start"]
    replayed = feedback["replayed"]
    yield (
        "Feedback",
        f"{feedback['n']:,} rows: {feedback['used']:,} trained on with {replayed['n']:,} old rows, "
        f"{feedback['held']:,} held out for the gate",
    )
    if left := excluded_feedback_text(feedback):
        yield "Left out", left
    yield "Trained", f"{STARTS[start['start']]}: {start['because']}"
    yield "Test rows", score_change_text(block["test"])
