"""What is asked of every fitted run beside its score, and when: candidates are found on training
and validation rows **before** the test rows open, and confirmed on them once.

A question is one module with a constant ``QUESTION`` and one line in ``ANALYSES``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from holdfast.contract.predictions import (
    Predictions,
    Side,
    ask_side,
    rows_of,
    told_of,
    write_answers,
)
from holdfast.contract.result import class_columns
from holdfast.core.decisions import notify, stage
from holdfast.core.errors import InputError, Interrupted
from holdfast.core.input_errors import defect_line, lacking, raises_defects
from holdfast.core.records import Decision, to_json
from holdfast.runs.finished_run import SourceColumns

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.contract.fit import FittedModel, Scored
    from holdfast.data.table import Table
    from holdfast.runs.predictor import Predictor


C = TypeVar("C")

PACKAGE = "holdfast.analyses"
# Every analysis, in the order of their blocks.
ANALYSES = (
    "confirmation",
    "distillation",
    "errors.analysis",
    "fairness.analysis",
    "forgetting",
    "memory.analysis",
    "explain.analysis",
    "slices.analysis",
    "threshold.analysis",
)


@dataclass(frozen=True)
class Before:
    """What a question may look at before the test rows are opened: the fit with its kept state, and
    what that says of all validation rows and of training rows (500 at most, a fixed sample)."""

    run: Path
    fitted: FittedModel
    train: Predictions
    valid: Predictions
    sources: SourceColumns

    @cached_property
    def predictor(self) -> Predictor:
        """Answers for any rows, by the kept state."""
        from holdfast.runs.predictor import Predictor

        return Predictor.of(self.fitted)

    def beside(self, table: Table) -> dict[str, list[str | None]]:
        """The source's other columns for these rows, by name, as it writes them."""
        return self.sources(table)


@dataclass(frozen=True)
class After(Before):
    """The same, and what the scored model said of the test rows; ``scored`` is the score itself."""

    test: Predictions
    scored: Scored


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why a question has no answer for this run: ``{"why": …}`` in the place of its block."""

    why: str


@dataclass(frozen=True, slots=True)
class Analysis(Generic[C]):
    """``find`` fixes what may be said, from training and validation rows alone; ``confirm`` says it
    of the test rows. ``where`` is the block's place in ``result.json``; ``None`` from ``find``
    leaves it out altogether."""

    name: str
    where: tuple[str, ...]
    find: Callable[[Before], C | NoAnswer | None]
    confirm: Callable[[C, After], Mapping[str, Any]]


def all_questions() -> dict[str, Analysis[Any]]:
    """``QUESTION`` of every module in ``ANALYSES``, by name, in their order."""
    found = [import_module(f"{PACKAGE}.{name}").QUESTION for name in ANALYSES]
    return {question.name: question for question in found}


@dataclass(frozen=True, slots=True)
class Candidates:
    """What every question found before the test rows were opened, by name."""

    before: Before
    candidates: Mapping[str, Any]
    seconds: Mapping[str, float]


def find_all(run: Path, fitted: FittedModel, saved: Mapping[str, object]) -> Candidates:
    """Ask the kept state about training and validation rows, write ``answers.parquet``, and let
    every question find its candidates."""
    start = time.perf_counter()
    sides: tuple[Side, Side] = ("train", "valid")
    with stage("asking the model about training and validation rows"):
        asked = {side: ask_side(fitted, saved, side) for side in sides}
    write_answers(run, {side: columns for side, (_, columns) in asked.items()})
    names = fitted.ready.task.classes
    train, valid = (told_of(side, *asked[side], names) for side in sides)
    before = Before(run, fitted, train, valid, SourceColumns(fitted.recipe.data))
    seconds = {"answers": time.perf_counter() - start}
    found: dict[str, Any] = {}
    for name, question in all_questions().items():
        with stage(f"analysing training and validation rows: {name}"):
            found[name] = _timed(name, seconds, partial(question.find, before))
    return Candidates(before, found, seconds)


def confirm_all(found: Candidates, scored: Scored) -> Scored:
    """``scored`` with the blocks of all questions, each at its place."""
    seconds, before = dict(found.seconds), found.before
    after = None if scored.table is None else _after(before, scored, scored.table)
    blocks: dict[str, Any] = {}
    for name, question in all_questions().items():
        what = found.candidates[name]
        if what is None:
            continue
        if not isinstance(what, NoAnswer):
            with stage(f"confirming on test rows: {name}"):
                what = (
                    NoAnswer("no test rows were set aside, on which it could be confirmed")
                    if after is None
                    else _timed(name, seconds, partial(question.confirm, what, after))
                )
        block = {"why": what.why} if isinstance(what, NoAnswer) else to_json(what)
        place = blocks
        for key in question.where[:-1]:
            place = place.setdefault(key, {})
        place[question.where[-1]] = block
    return replace(scored, answers=blocks, know_s=sum(seconds.values()))


def _after(before: Before, scored: Scored, table: Table) -> After:
    import pyarrow as pa

    names = before.fitted.ready.task.classes
    columns: pa.Table = pa.table(
        scored.predictions if scored.outputs is None else class_columns(scored.outputs, names)
    )
    rows = rows_of(table, columns["row"].to_numpy())
    test = told_of("test", rows, columns, names)
    held = {one.name: getattr(before, one.name) for one in fields(before)}
    return After(**held, test=test, scored=scored)


def _timed(name: str, seconds: dict[str, float], ask: Callable[[], object]) -> Any:
    """The answer, and how long it took. A question that the input keeps from being answered costs
    no run, nor does a defect in one: the model is trained, and the line says what to report.
    ``HOLDFAST_DEFECTS=raise`` lets a defect end the run, as every test has it."""
    start = time.perf_counter()
    try:
        return ask()
    except Interrupted:
        # Of a fit of the question's own: what was interrupted is the run, which says how to go on.
        raise KeyboardInterrupt from None
    except InputError as error:
        notify(Decision(name, "not answered", str(error)))
        return NoAnswer(str(error))
    except Exception as error:
        if raises_defects() or lacking(error):
            raise
        because = defect_line(error)
        notify(Decision(name, "not answered", because, prominent=True))
        return NoAnswer(because)
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
