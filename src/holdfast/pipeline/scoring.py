"""The end of a run: save the model whole or not at all, open the test rows once, score them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.core.files import disk_errors, replace_folder
from holdfast.data.table import HeldOut
from holdfast.pipeline.folder import MODEL
from holdfast.pipeline.outcome import now
from holdfast.pipeline.ready import Finish, Fitted, OuterAnswers, Scored
from holdfast.pipeline.unscored import unscored
from holdfast.tasks.side import FOLDER
from holdfast.training.journal import Journal

OPENED = "test rows opened"


def save_model(run: Path, fitted: Fitted) -> dict[str, Any]:
    """Write the model folder whole or not at all; returns what the kind says of it."""
    beside = run / ".model.partial"
    shutil.rmtree(beside, ignore_errors=True)
    with disk_errors(run / MODEL):
        saved = fitted.ready.kind.save(beside, fitted)
    replace_folder(beside, run / MODEL)
    return saved


def save_side(run: Path, fitted: Fitted) -> None:
    """Write the layer over the side columns whole or not at all, where there is one."""
    if fitted.side is None or fitted.side.layer is None:
        return
    beside = run / f".{FOLDER}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    fitted.side.layer.save(beside)
    replace_folder(beside, run / FOLDER)


def opened_before(journal: Journal) -> str | None:
    """When an earlier, unfinished scoring of this run opened the test rows, if one did."""
    notes = [line for line in journal.lines() if line.get("what") == OPENED]
    return str(notes[-1]["at"]) if notes else None


def score_once(
    run: Path,
    fitted: Fitted,
    test: HeldOut,
    saved: dict[str, Any],
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


def _noted(fitted: Fitted, scored: Scored) -> Scored:
    journal = fitted.job.journal
    for made in scored.decisions:
        journal.note(fitted.trained.last_step, made.what, made.because, chosen=made.chosen)
    return scored
