"""The end of a run: save the model whole or not at all, open the test rows once, score them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from holdfast.core.files import disk_errors, replace_folder
from holdfast.data.table import Splits
from holdfast.pipeline.folder import MODEL
from holdfast.pipeline.outcome import now
from holdfast.pipeline.ready import Finish, Ready, Scored
from holdfast.training.journal import Journal
from holdfast.training.loop import Fitted
from holdfast.training.run import Job

OPENED = "test rows opened"


def save_model(run: Path, ready: Ready, fitted: Fitted) -> dict[str, Any]:
    """Write the model folder whole or not at all; returns what the kind says of it."""
    beside = run / ".model.partial"
    shutil.rmtree(beside, ignore_errors=True)
    with disk_errors(run / MODEL):
        saved = ready.kind.save(beside, ready, fitted)
    replace_folder(beside, run / MODEL)
    return saved


def opened_before(journal: Journal) -> str | None:
    """When an earlier, unfinished scoring of this run opened the test rows, if one did."""
    notes = [line for line in journal.lines() if line.get("what") == OPENED]
    return str(notes[-1]["at"]) if notes else None


def score_once(
    run: Path,
    ready: Ready,
    splits: Splits,
    fitted: Fitted,
    job: Job,
    own: tuple[Any, ...],
    saved: dict[str, Any],
    before: str | None,
) -> Scored:
    """Open the test rows, say so in the journal, and let the kind score them; ``own`` are its
    listeners."""
    opened_at = now()
    again = f"; a killed run had opened them at {before}" if before else ""
    because = f"the run is complete and is scored{again}"
    job.journal.note(job.plan.steps, OPENED, because, at=opened_at)
    table = splits.test.open()
    scored = ready.kind.score(Finish(run, ready, splits, fitted, job, own, saved, table, opened_at))
    for made in scored.decisions:
        job.journal.note(fitted.last_step, made.what, made.because, chosen=made.chosen)
    return scored
