"""The main job, and the only place where all rooms meet:

load → audit → divide → refuse leaks → fit ⇄ (observe → diagnose → decide → act) → restore the
best → score once on the test rows → report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from holdfast._version import __version__
from holdfast.core.errors import Interrupted, RunError
from holdfast.core.files import disk_errors, write_json
from holdfast.core.records import Decision, to_json
from holdfast.core.run_facts import RunFacts
from holdfast.core.run_files import (
    SEALED,
    check_files,
    check_model,
    read_result,
    seal_folder,
    seal_model,
    sealed,
)
from holdfast.data.table import Table
from holdfast.models.adapter_save import base_folder
from holdfast.models.quick_dropout import quick_dropout
from holdfast.pipeline import outcome
from holdfast.pipeline.begun import check_recipe, mark_of, remember
from holdfast.pipeline.compose import make_accelerator, make_job, make_ready
from holdfast.pipeline.examples import EXAMPLES, write_examples
from holdfast.pipeline.folder import (
    CHECKPOINTS,
    MODEL,
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
from holdfast.pipeline.rows import Divided, Notify, load_and_divide, notify_all
from holdfast.pipeline.run_facts import run_facts_of, with_probe, with_texts
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
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    listeners: Sequence[Any] = (),
    notify: Notify = lambda _: None,
    checkpoint_every_s: float = LEAST_SECONDS,
    held: Mapping[str, Any] = MappingProxyType({}),
    outline: Callable[[Outline], None] = lambda _: None,
) -> dict[str, Any]:
    """Do the whole job into the folder ``run`` and return what ``result.json`` holds.

    ``listeners`` join the loop's own (a progress bar, say); ``notify`` hears every automatic
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
        done = read_result(run)
        rows = done.get("settings", {}).get("data", {}).get("path")
        because = f"it had come to its end, on {rows}; nothing that is given now was used"
        notify(Decision("resumed", str(run), because, prominent=True))
        return done
    if not resume:
        # Before the folder is made and rows in memory are stored in it.
        check_names(recipe)
    with (
        terminate_like_interrupt(),
        claimed(run, resume, notify),
        stored(held, run) as paths,
        flushed_subnormals(),
        quick_dropout(),
    ):
        recipe = recipe.changed(data=paths)
        try:
            return _train(recipe, run, resume, listeners, notify, checkpoint_every_s, outline)
        except KeyboardInterrupt:
            raise _interrupted(run) from None


def _train(
    recipe: Recipe,
    run: Path,
    resume: bool,
    listeners: Sequence[Any],
    notify: Notify,
    every_s: float,
    outline: Callable[[Outline], None],
) -> dict[str, Any]:
    start = time.perf_counter()
    again = resume and (run / RECIPE).exists()
    if again and (run / RESULT).exists() and _stands(run, notify):
        return _report(run) if is_main_process() else read_result(run)
    if again:
        check_recipe(run)
        recipe = read_recipe(run / RECIPE)
        because = f"every setting is that of its {RECIPE}; what is given now is not used"
        notify(Decision("resumed", str(run), because, prominent=True))
    divided = load_and_divide(recipe, notify)
    outline(outline_rows(divided))
    ready = make_ready(absolute(divided.recipe, divided.table), divided.splits, run)
    notify_all(notify, ready.decisions, ready.findings)
    outline(outline_model(ready))
    accelerator = make_accelerator(str(ready.recipe.train.precision))
    begun: dict[str, Any] = {}
    if accelerator.is_main_process:
        begun = remember(run, ready, divided, again, notify)
    accelerator.wait_for_everyone()
    mark = mark_of(run, divided, begun)
    decisions = [Decision(**decision) for decision in begun.get("decisions", ())]
    with tracked(run, ready.recipe, accelerator.is_main_process) as track:
        heard = (*listeners, *track)
        job, own = make_job(
            ready,
            accelerator,
            run,
            heard,
            every_s,
            notify,
            decisions,
            divided.findings,
            mark,
            begun,
        )
        before = opened_before(job.journal)
        train_s = time.perf_counter() - ready.loaded_at
        fitted = fit(job, again)
        train_s += fitted.train_s
        kept = kept_state(ready, own, fitted)
        job.journal.note(fitted.last_step, kept.what, kept.because, chosen=kept.chosen)
        notify(kept)
        if accelerator.is_main_process:
            with memory_errors("scoring the test rows"):
                saved = save_model(run, ready, fitted)
                model, base = seal_model(run), seal_folder(base_folder(run / MODEL))
                scored = score_once(run, ready, divided.splits, fitted, job, own, saved, before)
            fitted = with_texts(fitted, scored.blocks.get("generations"), job)
            known = with_probe(run_facts_of(ready, divided.findings), own)
            _keep_looks(run, fitted, known, job)
            _write(
                run, begun, divided, ready, fitted, scored, job, train_s, start, kept, model, base
            )
            send_score(track, fitted, scored)
    if accelerator.is_main_process:
        _report(run)
    accelerator.wait_for_everyone()
    return read_result(run)


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


def _write(
    run: Path,
    begun: dict[str, Any],
    divided: Divided,
    ready: Ready,
    fitted: Fitted,
    scored: Scored,
    job: Job,
    train_s: float,
    start: float,
    kept: Decision,
    model: Mapping[str, Any],
    base: Mapping[str, Any] | None,
) -> None:
    """The tables, then the result, which says what every file before it must be."""
    recipe = ready.recipe
    tables = (divided.table, *divided.given)
    outcome.write_splits(run / "splits.parquet", divided.splits.records, tables)
    outcome.write_predictions(run / "predictions.parquet", scored, divided.table.classes)
    write_examples(run / EXAMPLES, ready, fitted, job)
    timing = outcome.timing_block(fitted, time.perf_counter() - start, train_s, scored.seconds)
    result = to_json(
        {
            "schema": 1,
            "holdfast": __version__,
            "task": recipe.task,
            "model": recipe.model.name,
            "classes": None,
            "seed": recipe.seed,
            "data": outcome.data_block(
                divided.table, divided.given, divided.splits, begun["findings"]
            ),
            **scored.blocks,
            **outcome.run_block(fitted),
            "timing": timing,
            "peak_memory_mb": outcome.peak_memory_mb(),
            "decisions": [*begun["decisions"], *to_json([kept, *scored.decisions])],
            "division": outcome.division_block(divided.splits, scored, divided.table.classes),
            "settings": recipe.shown(),
            **outcome.surroundings(recipe.train.threads or 0, str(job.accelerator.device)),
        }
    )
    write_json(run / RESULT, sealed(run, result, model, base))


def _keep_looks(run: Path, fitted: Fitted, known: RunFacts, job: Job) -> None:
    """What the verdict was made of, so that ``diagnose`` can make it again."""
    if not write_looks(run / LOOKS, fitted.history, known, fitted.best_step, __version__):
        job.journal.note(
            fitted.last_step,
            "looks not kept",
            "their rows and classes are above 64 MB; the verdict stands in result.json",
            chosen=LOOKS,
        )


def _stands(run: Path, notify: Notify) -> bool:
    """Whether what a killed run had come to is whole, so that only its report is missing. Where it
    is not, the last checkpoint gives it again; without one the error is raised."""
    try:
        result = read_result(run)
        check_files(run, result, SEALED)
        check_model(run, result)
    except RunError as error:
        if not (run / CHECKPOINTS).exists():
            raise
        notify(Decision(RESULT, "made again", f"{error.what} {error.rule}"))
        return False
    return True


def _report(run: Path) -> dict[str, Any]:
    write_card(run)
    write_report(run)
    remove_checkpoints(run)
    return read_result(run)
