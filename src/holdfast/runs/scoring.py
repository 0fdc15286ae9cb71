"""The end of a run: save the model whole or not at all, open the test rows once, score them.

A run without test rows: what can be said of its model all the same, for every task.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from holdfast.contract.fit import Finish, FittedModel, OuterAnswers, Scored
from holdfast.contract.result import now
from holdfast.contract.run_folder import MODEL
from holdfast.contract.side_layer import FOLDER
from holdfast.core.files import disk_errors, replace_folder
from holdfast.data.table import HeldOut
from holdfast.report.view.honest import headline_metric
from holdfast.runs.predictor import Predictor
from holdfast.training.journal import Journal

OPENED = "test rows opened"


def save_model(run: Path, fitted: FittedModel) -> dict[str, Any]:
    """Write the model folder whole or not at all; returns what the kind says of it."""
    with whole_folder(run / MODEL) as beside, disk_errors(run / MODEL):
        return fitted.ready.kind.save(beside, fitted)


def save_side(run: Path, fitted: FittedModel) -> None:
    """Write the layer over the side columns whole or not at all, where there is one."""
    if fitted.side is None or fitted.side.layer is None:
        return
    with whole_folder(run / FOLDER) as beside:
        fitted.side.layer.save(beside)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside it to write into, which takes its place at the end: whole or not at all."""
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    yield beside
    replace_folder(beside, folder)


def opened_before(journal: Journal) -> str | None:
    """When an earlier, unfinished scoring of this run opened the test rows, if one did."""
    notes = [line for line in journal.lines() if line.get("what") == OPENED]
    return str(notes[-1]["at"]) if notes else None


def score_once(
    run: Path,
    fitted: FittedModel,
    test: HeldOut,
    saved: dict[str, object],
    before: str | None,
    outer: OuterAnswers | None = None,
) -> Scored:
    """Open the test rows, say so in the journal, and let the kind score them; ``before`` is when a
    killed run had opened them. Where there are none, the rows of the ``outer`` folds are scored."""
    opened_at, job = now(), fitted.job
    if outer is not None:
        rows = fitted.ready.prepared.rows
        scored = fitted.ready.kind.score(Finish(run, fitted, saved, rows, None, outer))
        return _noted(fitted, scored)
    if not len(test):
        return unscored(fitted, saved)
    again = f"; a killed run had opened them at {before}" if before else ""
    because = f"the run is complete and is scored{again}"
    job.journal.note(job.plan.steps, OPENED, because, at=opened_at)
    table = test.open()
    scored = fitted.ready.kind.score(Finish(run, fitted, saved, table, opened_at))
    return _noted(fitted, replace(scored, table=table))


def _noted(fitted: FittedModel, scored: Scored) -> Scored:
    journal = fitted.job.journal
    for made in scored.decisions:
        journal.note(fitted.trained.last_step, made.what, made.because, chosen=made.chosen)
    return scored


WHY = "no test rows were set aside, and none were given"
PROBLEMS = {"several": "multi_label_classification", "number": "regression"}


def unscored(fitted: FittedModel, saved: Mapping[str, object]) -> Scored:
    """``test`` with ``n`` 0 and why, no baseline, and the train probe by the kept state.
    ``predictions.parquet`` has no line."""
    start = time.perf_counter()
    ready, predictor = fitted.ready, Predictor.of(fitted)
    kind = ready.prepared.rows.columns.label_kind
    table = ready.sides.train_rows.table
    learned = predictor.judge(table.take(table.places(ready.train.rows[ready.probe])))().to_json()
    nothing = {"value": None, "low": None, "high": None, "why": WHY}
    metrics = {headline_metric(learned["metrics"]): nothing}
    empty = {"n": 0, "metrics": metrics, "why": WHY}
    blocks: dict[str, Any] = {
        **({"problem": PROBLEMS[kind]} if kind in PROBLEMS else {}),
        "classes": list(predictor.names) or None,
        "test": empty,
        "valid": empty,
        "train_probe": learned,
        "baseline": {"what": None, "test": empty, "all": [], "why": WHY},
        "model_facts": ready.kind.facts(fitted, saved),
        "careless": None,
    }
    seconds = {"score_s": time.perf_counter() - start, "baseline_s": 0.0}
    return Scored(blocks, (), seconds, predictions=_no_lines(fitted))


def _no_lines(fitted: FittedModel) -> dict[str, Any]:
    """The columns of ``predictions.parquet``, as the answers of other rows have them."""
    if fitted.answered is None:
        types = {"row": pa.int64(), "label": pa.string(), "prediction": pa.string()}
        return {name: pa.array([], kind) for name, kind in {**types, "loss": pa.float64()}.items()}
    none = fitted.answered.columns.slice(0, 0)
    return {name: none[name] for name in none.column_names}
