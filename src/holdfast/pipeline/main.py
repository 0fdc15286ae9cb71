"""The main job, and the only place where all rooms meet:

load → audit → divide → refuse leaks → fit ⇄ (observe → diagnose → decide → act) → restore the
best → score once on the test rows → report.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from holdfast._version import __version__
from holdfast.core.circumstances import Circumstances
from holdfast.core.errors import Interrupted, RunError
from holdfast.core.files import disk_errors, write_json, write_text
from holdfast.core.records import Decision, to_json
from holdfast.data.table import Table
from holdfast.models.quick_dropout import quick_dropout
from holdfast.pipeline import outcome
from holdfast.pipeline.circumstances import circumstances_of, with_probe, with_texts
from holdfast.pipeline.compose import make_accelerator, make_job, make_ready
from holdfast.pipeline.examples import EXAMPLES, write_examples
from holdfast.pipeline.folder import (
    BEGUN,
    CHECKPOINTS,
    RECIPE,
    RESULT,
    claimed,
    is_finished,
    is_main_process,
    remove_checkpoints,
)
from holdfast.pipeline.held import stored
from holdfast.pipeline.keep import kept_state
from holdfast.pipeline.names import check_names
from holdfast.pipeline.outline import Outline, outline_model, outline_rows
from holdfast.pipeline.ready import Ready, Scored
from holdfast.pipeline.rows import Divided, Tell, load_and_divide, tell_all
from holdfast.pipeline.scoring import opened_before, save_model, score_once
from holdfast.pipeline.tracking import send_score, tracked
from holdfast.recipe import Recipe, anchored, read_recipe
from holdfast.report.card import write_card
from holdfast.report.page import write_report
from holdfast.training.checkpoint import LEAST_SECONDS
from holdfast.training.looks import LOOKS, write_looks
from holdfast.training.loop import Fitted, fit, memory_errors
from holdfast.training.machine import flushed_subnormals
from holdfast.training.run import Job
from holdfast.training.signals import terminate_like_interrupt


def train(
    recipe: Recipe, run: Path, *, resume: bool = False, listeners: Sequence[Any] = (),
    tell: Tell = lambda _: None, checkpoint_every_s: float = LEAST_SECONDS,
    held: Mapping[str, Any] = MappingProxyType({}),
    outline: Callable[[Outline], None] = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """Do the whole job into the folder ``run`` and return what ``result.json`` holds.

    ``listeners`` join the loop's own (a progress bar, say); ``tell`` hears every automatic
    decision and every finding as it is made; ``outline`` hears what was made of the rows, then
    what was made of the model, as soon as each stands. ``checkpoint_every_s`` is the least time
    between two checkpoints. On a finished run ``resume`` changes nothing. ``held`` are rows that
    lie in memory (``data``, ``test``), which are stored in the run's folder first; see
    ``pipeline.held``.

    Raises ``Interrupted`` on Ctrl-C and SIGTERM; what is there then can be resumed.
    """
    with disk_errors(run):
        finished = resume and is_finished(run)
    if finished:
        because = "it had come to its end; nothing that is given now was used"
        tell(Decision("resumed", str(run), because))
        return _read_result(run)
    if not resume:
        # Before the folder is made and rows in memory are stored in it.
        check_names(recipe)
    with (
        terminate_like_interrupt(), claimed(run, resume, tell), stored(held, run) as paths,
        flushed_subnormals(), quick_dropout(),
    ):  # fmt: skip
        recipe = recipe.changed(data=paths)
        try:
            return _train(recipe, run, resume, listeners, tell, checkpoint_every_s, outline)
        except KeyboardInterrupt:
            raise _interrupted(run) from None


def _train(
    recipe: Recipe, run: Path, resume: bool, listeners: Sequence[Any], tell: Tell, every_s: float,
    outline: Callable[[Outline], None],
) -> dict[str, Any]:  # fmt: skip
    start = time.perf_counter()
    again = resume and (run / RECIPE).exists()
    if again and (run / RESULT).exists():
        return _report(run) if is_main_process() else _read_result(run)
    if again:
        recipe = read_recipe(run / RECIPE)
        because = f"every setting is that of its {RECIPE}; what is given now is not used"
        tell(Decision("resumed", str(run), because))
    divided = load_and_divide(recipe, tell)
    outline(outline_rows(divided))
    ready = make_ready(absolute(divided.recipe, divided.table), divided.splits, run)
    tell_all(tell, ready.decisions, ready.findings)
    outline(outline_model(ready))
    accelerator = make_accelerator(str(ready.recipe.train.precision))
    begun = _remember(run, ready, divided, again) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    decisions = [Decision(**decision) for decision in begun.get("decisions", ())]
    with tracked(run, ready.recipe, accelerator.is_main_process) as track:
        heard = (*listeners, *track)
        job, own = make_job(ready, accelerator, run, heard, every_s, tell, decisions,
                            divided.findings)  # fmt: skip
        before = opened_before(job.journal)
        train_s = time.perf_counter() - ready.loaded_at
        fitted = fit(job, again)
        train_s += fitted.train_s
        kept = kept_state(ready, own, fitted)
        job.journal.note(fitted.last_step, kept.what, kept.because, chosen=kept.chosen)
        tell(kept)
        if accelerator.is_main_process:
            with memory_errors("scoring the test rows"):
                saved = save_model(run, ready, fitted)
                scored = score_once(run, ready, divided.splits, fitted, job, own, saved, before)
            fitted = with_texts(fitted, scored.blocks.get("generations"), job)
            _write(run, begun, divided, ready, fitted, scored, job, train_s, start, kept)
            known = with_probe(circumstances_of(ready, divided.findings), own)
            _keep_looks(run, fitted, known, job)
            send_score(track, fitted, scored)
    if accelerator.is_main_process:
        _report(run)
    accelerator.wait_for_everyone()
    return _read_result(run)


def _interrupted(run: Path) -> Interrupted:
    if not (run / RECIPE).exists():
        return Interrupted("the run", "was interrupted before anything was written")
    return Interrupted(
        "the run", "was interrupted", None, "Continue it with the same command and --resume."
    )


def absolute(recipe: Recipe, table: Table) -> Recipe:
    """The recipe that repeats the run from anywhere: absolute paths, the columns worked out."""
    columns = table.columns
    data: dict[str, Any] = {"label": columns.label, "group": columns.group}
    if not recipe.data.template:
        data["text"] = columns.text
    if columns.label_kind is not None:
        data |= {"label_kind": columns.label_kind, "label_separator": columns.label_separator}
    return anchored(recipe, Path()).changed(data=data)


def _remember(run: Path, ready: Ready, divided: Divided, again: bool) -> dict[str, Any]:
    """What the run began with: a mark of its rows, its findings and decisions.

    It is written once, before the recipe; a run that is continued gives the first reasons again,
    and refuses other rows than it began with.
    """
    begun: dict[str, Any] = {
        "rows": _fingerprint(divided), "findings": to_json([*divided.findings, *ready.findings]),
        "decisions": to_json([*divided.decisions, *ready.decisions]),
    }  # fmt: skip
    path = run / CHECKPOINTS / BEGUN
    if not again:
        path.parent.mkdir(exist_ok=True)
        write_json(path, begun)
        write_text(run / RECIPE, ready.recipe.to_yaml())
        return begun
    before: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else begun
    if before["rows"] != begun["rows"]:
        raise RunError(
            str(run), "began with other rows than its source has now", None,
            "Restore the source file, or start a new run.",
        )  # fmt: skip
    return before


def _fingerprint(divided: Divided) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for table in (divided.table, *divided.given):
        for name in sorted(table.rows.column_names):
            for value in table.column(name):
                digest.update(str(value).encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _write(
    run: Path, begun: dict[str, Any], divided: Divided, ready: Ready, fitted: Fitted,
    scored: Scored, job: Job, train_s: float, start: float, kept: Decision,
) -> None:  # fmt: skip
    recipe = ready.recipe
    tables = (divided.table, *divided.given)
    outcome.write_splits(run / "splits.parquet", divided.splits.records, tables)
    outcome.write_predictions(run / "predictions.parquet", scored, divided.table.classes)
    write_examples(run / EXAMPLES, ready, fitted, job)
    timing = outcome.timing_block(fitted, time.perf_counter() - start, train_s, scored.seconds)
    write_json(run / RESULT, {
        "schema": 1, "holdfast": __version__, "task": recipe.task,
        "model": recipe.model.name, "classes": None, "seed": recipe.seed,
        "data": outcome.data_block(
            divided.table, divided.given, divided.splits, begun["findings"]
        ),
        **scored.blocks, **outcome.run_block(fitted), "timing": timing,
        "peak_memory_mb": outcome.peak_memory_mb(),
        "decisions": [*begun["decisions"], *to_json([kept, *scored.decisions])],
        "division": outcome.division_block(divided.splits, scored, divided.table.classes),
        "settings": recipe.shown(),
        **outcome.surroundings(recipe.train.threads or 0, str(job.accelerator.device)),
    })  # fmt: skip


def _keep_looks(run: Path, fitted: Fitted, known: Circumstances, job: Job) -> None:
    """What the verdict was made of, so that ``diagnose`` can make it again."""
    if not write_looks(run / LOOKS, fitted.history, known, fitted.best_step, __version__):
        job.journal.note(
            fitted.last_step, "looks not kept", "their rows and classes are above 64 MB; the "
            "verdict stands in result.json", chosen=LOOKS,
        )  # fmt: skip


def _report(run: Path) -> dict[str, Any]:
    write_card(run)
    write_report(run)
    remove_checkpoints(run)
    return _read_result(run)


def _read_result(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / RESULT).read_text("utf-8"))
    return result
