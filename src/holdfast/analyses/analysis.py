"""The analyses of a model beyond its score. Candidates are found on training and validation rows
**before** the test rows are scored, and confirmed once on the test rows.

An analysis is one module with a constant ``ANALYSIS`` and one line in the table of
``core/analyses.py``. Its folder's ``section.py`` declares the part of the report
(``report/section.py``) and imports nothing that computes. An analysis reads a ``Session``: a run in
progress, which stores the blocks, or a finished run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from holdfast.contract.predictions import (
    Predictions,
    SplitName,
    make_predictions,
    predict_split,
    rows_of,
    write_answers,
)
from holdfast.contract.result import class_columns
from holdfast.core.analyses import ANALYSES
from holdfast.core.decisions import notify, stage
from holdfast.core.errors import InputError, Interrupted
from holdfast.core.input_errors import defect_line, raises_defects, resource_error
from holdfast.core.records import Decision, to_json
from holdfast.runs.finished_run import FinishedRun, SourceColumns
from holdfast.training.listeners.examples import ExampleHistory

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.contract.fit import FittedModel, ScoringResult
    from holdfast.data.table import Table
    from holdfast.recipe import Recipe
    from holdfast.runs.predictor import Predictor


PACKAGE = "holdfast.analyses"


class Session(Protocol):
    """What an analysis may use before the test rows are scored: a model, and its predictions for
    training and validation rows. A ``FittedSession`` during the run, a ``FinishedRun``
    afterwards."""

    @property
    def run(self) -> Path: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def fitted(self) -> FittedModel | None:
        """The fit itself, during its run."""

    @property
    def predictor(self) -> Predictor:
        """Predicts for any rows, with the best checkpoint."""

    @property
    def train(self) -> Predictions:
        """Predictions for training rows (at most 500, a fixed sample)."""

    @property
    def valid(self) -> Predictions:
        """Predictions for all validation rows, or out-of-fold predictions for training rows."""

    @property
    def out_of_fold(self) -> bool: ...

    @property
    def train_rows(self) -> Table:
        """All training rows."""

    @property
    def data_map_regions(self) -> Mapping[int, str]:
        """The region of the data map that each training row is in, by row; empty without a data
        map."""

    def has(self, split: SplitName) -> bool:
        """Whether predictions for these rows are known."""

    def other_columns(self, table: Table) -> dict[str, list[str | None]]:
        """The other columns of the source for these rows, by name, with the values of the
        source."""


@dataclass(frozen=True)
class FittedSession:
    """The session of a run in progress: the fit with its best checkpoint."""

    run: Path
    fitted: FittedModel
    train: Predictions
    valid: Predictions
    sources: SourceColumns

    @property
    def recipe(self) -> Recipe:
        return self.fitted.recipe

    @cached_property
    def predictor(self) -> Predictor:
        from holdfast.runs.predictor import Predictor

        return Predictor.of(self.fitted)

    @property
    def out_of_fold(self) -> bool:
        return self.fitted.job.out_of_fold is not None or self.fitted.out_of_fold is not None

    @property
    def train_rows(self) -> Table:
        return self.fitted.training_plan.splits.train_rows.table

    @property
    def data_map_regions(self) -> Mapping[int, str]:
        regions: dict[int, str] = {}
        for listener in self.fitted.job.listeners:
            data_map = listener.data_map() if isinstance(listener, ExampleHistory) else None
            if data_map is not None:
                regions |= dict(zip(data_map.rows.tolist(), data_map.kind, strict=True))
        return regions

    def has(self, split: SplitName) -> bool:
        return split != "test"

    def other_columns(self, table: Table) -> dict[str, list[str | None]]:
        return self.sources(table)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why an analysis has no result for this run: ``{"why": …}`` in place of its block."""

    why: str


C = TypeVar("C")
S = TypeVar("S", bound=Session)


@dataclass(frozen=True, slots=True)
class Analysis(Generic[S, C]):
    """``find`` fixes the candidates from training and validation rows only; ``confirm`` tests them
    on the test rows. ``where`` is the path of the block in ``result.json``; ``None`` from ``find``
    leaves the block out. An analysis that needs the fit itself takes a ``FittedSession``."""

    name: str
    where: tuple[str, ...]
    find: Callable[[S], C | NoAnswer | None]
    confirm: Callable[[C, S, Predictions], Mapping[str, Any]]


def all_analyses() -> dict[str, Analysis[Any, Any]]:
    """``ANALYSIS`` of every module in ``ANALYSES``, by name, in their order."""
    analyses = [import_module(f"{PACKAGE}.{name}").ANALYSIS for name in ANALYSES]
    return {analysis.name: analysis for analysis in analyses}


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of all analyses, by name, found before the test rows were scored."""

    session: FittedSession
    by_analysis: Mapping[str, Any]
    seconds: Mapping[str, float]


def find_all(run: Path, fitted: FittedModel, saved: Mapping[str, object]) -> Candidates:
    """Predict training and validation rows with the best checkpoint, write ``answers.parquet``, and
    find the candidates of every analysis."""
    start = time.perf_counter()
    splits: tuple[SplitName, SplitName] = ("train", "valid")
    with stage("predicting training and validation rows"):
        answers = {split: predict_split(fitted, saved, split) for split in splits}
    write_answers(run, {split: columns for split, (_, columns) in answers.items()})
    names = fitted.training_plan.task.classes
    train, valid = (make_predictions(split, *answers[split], names) for split in splits)
    session = FittedSession(run, fitted, train, valid, SourceColumns(fitted.recipe.data))
    seconds = {"answers": time.perf_counter() - start}
    found: dict[str, Any] = {}
    for name, analysis in all_analyses().items():
        if fitted.recipe.probes.skips(analysis.where[-1]):
            found[name] = NoAnswer("left out by probes.skip")
            continue
        with stage(f"analysing without test rows: {name}"):
            found[name] = _timed(name, seconds, partial(analysis.find, session))
    return Candidates(session, found, seconds)


def confirm_all(candidates: Candidates, scored: ScoringResult) -> ScoringResult:
    """``scored`` with the blocks of all analyses, each at its place."""
    seconds, session = dict(candidates.seconds), candidates.session
    test = None
    if scored.table is not None:
        class_names = session.fitted.training_plan.task.classes
        columns = _columns(scored, class_names)
        rows = rows_of(scored.table, columns["row"].to_numpy())
        test = make_predictions("test", rows, columns, class_names)
    blocks: dict[str, Any] = {}
    for name, analysis in all_analyses().items():
        outcome = candidates.by_analysis[name]
        if outcome is None:
            continue
        if not isinstance(outcome, NoAnswer):
            with stage(f"confirming on test rows: {name}"):
                outcome = (
                    NoAnswer("it is confirmed on test rows, and none were set aside")
                    if test is None
                    else _timed(name, seconds, partial(analysis.confirm, outcome, session, test))
                )
        parent = blocks
        for key in analysis.where[:-1]:
            parent = parent.setdefault(key, {})
        parent[analysis.where[-1]] = _block(outcome)
    return replace(scored, analysis_blocks=blocks, analyses_s=sum(seconds.values()))


def recompute_block(analysis: Analysis[Session, C], run: FinishedRun) -> dict[str, Any]:
    """The block of a finished run that stored none, computed from its stored predictions."""
    candidate = analysis.find(run)
    if candidate is None or isinstance(candidate, NoAnswer):
        return _block(candidate)
    return _block(analysis.confirm(candidate, run, run.test))


def _block(outcome: object) -> dict[str, Any]:
    block: dict[str, Any] = to_json(
        {"why": outcome.why} if isinstance(outcome, NoAnswer) else outcome
    )
    return block


def _columns(scored: ScoringResult, names: tuple[str, ...]) -> pa.Table:
    import pyarrow as pa

    outputs = scored.outputs
    return pa.table(scored.predictions if outputs is None else class_columns(outputs, names))


def _timed(name: str, seconds: dict[str, float], compute: Callable[[], object]) -> Any:
    """The result of ``compute``; its time is added to ``seconds``. Neither an input error nor a
    defect in an analysis ends the run: the model is trained, and the message says what to report.
    With ``HOLDFAST_DEFECTS=raise``, which every test sets, a defect ends the run."""
    start = time.perf_counter()
    try:
        return compute()
    except Interrupted:
        # Raised by a fit inside the analysis. The run was interrupted, and says how to resume.
        raise KeyboardInterrupt from None
    except InputError as error:
        notify(Decision(name, "skipped", str(error)))
        return NoAnswer(str(error))
    except Exception as error:
        if raises_defects() or resource_error(error):
            raise
        because = defect_line(error)
        notify(Decision(name, "skipped", because, prominent=True))
        return NoAnswer(because)
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
