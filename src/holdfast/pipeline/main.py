"""The main job, and the only place where all rooms meet:

load → audit → divide → refuse leaks → fit ⇄ (observe → diagnose → decide → act) → restore the
best → score once on the test rows → report.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast._version import __version__
from holdfast.core.errors import RunError
from holdfast.core.files import write_json, write_text
from holdfast.data.table import Table
from holdfast.pipeline import outcome
from holdfast.pipeline.compose import Ready, make_accelerator, make_job, make_ready
from holdfast.pipeline.folder import (
    CHECKPOINTS,
    RECIPE,
    RESULT,
    is_finished,
    open_folder,
    remove_checkpoints,
)
from holdfast.pipeline.rows import Divided, Tell, load_and_divide, tell_all
from holdfast.pipeline.scoring import Scored, opened_before, save_model, score_once
from holdfast.recipe import Recipe, read_recipe
from holdfast.report.card import write_card
from holdfast.report.page import write_report
from holdfast.train.loop import Fitted, fit


def train(
    recipe: Recipe, run: Path, *, resume: bool = False, listeners: Sequence[Any] = (),
    tell: Tell = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """Do the whole job into the folder ``run`` and return what ``result.json`` holds.

    ``listeners`` join the loop's own (a progress bar, say); ``tell`` hears every automatic
    decision and every finding as it is made. On a finished run ``resume`` changes nothing.
    """
    start = time.perf_counter()
    if resume and is_finished(run):
        return _read_result(run)
    recipe, again = _open(recipe, run, resume)
    if again and (run / RESULT).exists():
        return _report(run)
    divided = load_and_divide(recipe, tell)
    ready = make_ready(recipe, divided.splits)
    tell_all(tell, ready.decisions, ready.findings)
    accelerator = make_accelerator(str(ready.recipe.train.precision))
    if accelerator.is_main_process:
        _remember(run, ready.recipe, divided, again)
    accelerator.wait_for_everyone()
    job, refit = make_job(ready, accelerator, run, listeners)
    before = opened_before(job.journal)
    prepared_s = time.perf_counter() - ready.loaded_at
    fitted = fit(job, again)
    if accelerator.is_main_process:
        temperature = save_model(run, ready, fitted)
        scored = score_once(run, ready, divided.splits, refit, job, temperature, before)
        _write(run, divided, ready, fitted, scored, prepared_s + fitted.train_s, start)
        _report(run)
    accelerator.wait_for_everyone()
    return _read_result(run)


def absolute(recipe: Recipe, table: Table) -> Recipe:
    """The recipe that repeats the run from anywhere: absolute paths, the columns worked out."""

    def anchor(value: str | None) -> str | None:
        return str(Path(value).resolve()) if value and Path(value).exists() else value

    data: dict[str, Any] = {
        key: anchor(getattr(recipe.data, key)) for key in ("path", "valid", "test")
    }
    columns = table.columns
    data |= {"label": columns.label, "group": columns.group}
    if not recipe.data.template:
        data["text"] = columns.text
    return recipe.changed(data=data, model={"name": anchor(recipe.model.name)})


def _open(recipe: Recipe, run: Path, resume: bool) -> tuple[Recipe, bool]:
    """The recipe to follow, and whether an earlier start is continued."""
    if int(os.environ.get("RANK", "0")) > 0:
        stored = run / RECIPE
        return (read_recipe(stored), True) if resume and stored.exists() else (recipe, False)
    open_folder(run, resume)
    if not (resume and (run / RECIPE).exists()):
        return recipe, False
    return read_recipe(run / RECIPE), True


def _remember(run: Path, recipe: Recipe, divided: Divided, again: bool) -> None:
    """Write the recipe once, and refuse to continue on other rows than the run began with."""
    mark = run / CHECKPOINTS / "rows.txt"
    now = _fingerprint(divided)
    if again and mark.exists() and mark.read_text("utf-8") != now:
        raise RunError(
            str(run), "began with other rows than its source has now", None,
            "Restore the source file, or start a new run.",
        )  # fmt: skip
    if not again:
        write_text(run / RECIPE, absolute(recipe, divided.table).to_yaml())
    mark.parent.mkdir(exist_ok=True)
    write_text(mark, now)


def _fingerprint(divided: Divided) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for side in (divided.splits.train.table, divided.splits.valid.table):
        for name in ("row", "label", "text"):
            for value in side.column(name):
                digest.update(str(value).encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _write(
    run: Path, divided: Divided, ready: Ready, fitted: Fitted, scored: Scored, train_s: float,
    start: float,
) -> None:  # fmt: skip
    recipe = ready.recipe
    findings = (*divided.findings, *ready.findings)
    decisions = (*divided.decisions, *ready.decisions, *scored.decisions)
    outcome.write_parquet(run / "splits.parquet", divided.splits.records)
    outcome.write_predictions(run / "predictions.parquet", scored.outputs, ready.task.classes)
    timing = outcome.timing_block(fitted, time.perf_counter() - start, train_s, scored.seconds)
    write_json(run / RESULT, {
        "schema": 1, "holdfast": __version__, "task": recipe.task,
        "model": recipe.model.name, "classes": list(ready.task.classes), "seed": recipe.seed,
        "data": outcome.data_block(divided.table, divided.splits, findings),
        **scored.blocks, **outcome.run_block(fitted), "timing": timing,
        "peak_memory_mb": outcome.peak_memory_mb(),
        "decisions": outcome.decisions_block(decisions),
        "division": outcome.division_block(
            divided.splits, scored.outputs.labels, ready.task.classes
        ),
        "settings": recipe.model_dump(mode="json"),
        **outcome.surroundings(recipe.train.threads or 0, scored.device),
    })  # fmt: skip


def _report(run: Path) -> dict[str, Any]:
    write_card(run)
    write_report(run)
    remove_checkpoints(run)
    return _read_result(run)


def _read_result(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / RESULT).read_text("utf-8"))
    return result
