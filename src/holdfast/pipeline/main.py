"""The training pipeline, where all packages meet:

load → audit → clean → split without leaks → fit ⇄ (observe → diagnose → decide → act) → restore the
best checkpoint → analyse on validation rows → score once on test rows → confirm there → report.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from holdfast.analyses.analysis import confirm_all, find_all
from holdfast.contract.fit import FittedModel, OuterFoldPredictions
from holdfast.contract.inference import run_recipe
from holdfast.contract.run_folder import (
    CHECKPOINTS,
    MODEL,
    RECIPE,
    RESULT,
    claim_folder,
    is_main_process,
)
from holdfast.core.decisions import notify, stage
from holdfast.core.errors import InputError, RunError
from holdfast.core.input_errors import surviving_defects
from holdfast.core.machine import return_freed_memory
from holdfast.core.records import Decision
from holdfast.core.run_files import (
    SEALED_FILES,
    check_files,
    check_model,
    read_result,
    seal_folder,
    seal_model,
)
from holdfast.data.table import Table
from holdfast.fits.plan_trial import recipe_before_trials
from holdfast.fits.row_use import LearningRows, learning_rows, predict_outer_folds
from holdfast.fits.run_facts import judge_with_texts
from holdfast.models.adapters.save import base_folder
from holdfast.models.compute.processor import quick_dropout
from holdfast.prepare.rows import check_names, load_and_divide
from holdfast.prepare.sources import check_same_rows, store_tables, with_mix
from holdfast.recipe import Recipe, resolve_paths
from holdfast.runs.procedure import (
    Learner,
    Procedure,
    ScoresByFolds,
    begin_search,
    blocks_of,
    forget_search,
    keep_search,
    notify_resumed,
)
from holdfast.runs.scoring import (
    CompletedRun,
    save_evaluations,
    save_model,
    score_once,
    write_files,
    write_pages,
)
from holdfast.runs.start import (
    Destination,
    RunFolder,
    check_recipe,
    finished_before,
    interruptible,
    notify_outline,
    outline_rows,
)
from holdfast.stats.threads import one_thread
from holdfast.training.checkpoint import LEAST_SECONDS
from holdfast.training.loop import memory_errors
from holdfast.training.machine.machine import flushed_subnormals
from holdfast.training.machine.signals import terminate_like_interrupt

if TYPE_CHECKING:
    from holdfast.core.events import Listener


# PyTorch's random numbers and number of threads belong to the process: two runs at once would take
# them from each other, and neither would be the run of its seed.
_ONE_RUN_AT_A_TIME = threading.RLock()


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    listeners: Sequence[Listener] = (),
    checkpoint_every_s: float = LEAST_SECONDS,
    in_memory: Mapping[str, Any] = MappingProxyType({}),
    procedure: Procedure | None = None,
) -> dict[str, Any]:
    """Run the pipeline, write the run into the folder ``run``, and return its ``result.json``.

    ``listeners`` are added to those of the training loop (a progress bar, for example).
    ``checkpoint_every_s`` is the least time in seconds between two checkpoints. On a finished run
    ``resume`` changes nothing. ``in_memory`` holds tables in memory (``data``, ``test``), which are
    first stored in the run's folder; see ``prepare.sources``. A ``procedure`` replaces the single
    fit. Threads of one process train one after another.

    Raises ``Interrupted`` on Ctrl-C and SIGTERM; the run can then be resumed.
    """
    finished = finished_before(run, resume)
    if finished is not None:
        check_same_rows(in_memory, run)
        rows = finished.get("settings", {}).get("data", {}).get("path")
        because = f"the run is finished (trained on {rows}); the settings given now are ignored"
        notify(Decision("resumed", str(run), because, prominent=True))
        return finished
    if not resume:
        # Before the folder is created and rows in memory are stored in it.
        check_names(recipe)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ONE_RUN_AT_A_TIME)
        stack.enter_context(terminate_like_interrupt())
        stack.enter_context(claim_folder(run, resume))
        if not (resume and (run / RECIPE).exists()):
            # A resumed run has its rows; the sources may have been deleted or changed since.
            recipe, in_memory = with_mix(recipe, in_memory)
        paths = stack.enter_context(store_tables(in_memory, run))
        stack.enter_context(flushed_subnormals())
        stack.enter_context(quick_dropout())
        recipe = begin_search(run, procedure, recipe.with_changes(data=paths), resume)
        destination = Destination(run, resume and (run / RECIPE).exists(), checkpoint_every_s)
        stack.enter_context(interruptible(run))
        try:
            run_pipeline = _continue if destination.resume else _train
            return run_pipeline(recipe, destination, listeners, procedure)
        except InputError:
            if procedure is not None and not resume:
                forget_search(run)
            raise


def _continue(
    recipe_given: Recipe,
    destination: Destination,
    listeners: Sequence[Listener],
    procedure: Procedure | None,
) -> dict[str, Any]:
    """Resume a run with its stored recipe; a procedure with ``recipe_given``, because the run's
    recipe is that of the model that the procedure selected."""
    run = destination.run
    if (run / RESULT).exists() and _is_intact(run):
        return write_pages(run) if is_main_process() else read_result(run)
    check_recipe(run)
    notify_resumed(run, RECIPE)
    recipe = recipe_given if procedure else run_recipe(run)
    return _train(recipe, destination, listeners, procedure)


def _train(
    recipe: Recipe,
    destination: Destination,
    listeners: Sequence[Listener],
    procedure: Procedure | None,
) -> dict[str, Any]:
    """The pipeline above, from the rows on."""
    start, run = time.perf_counter(), destination.run
    scores_by_folds = isinstance(procedure, ScoresByFolds)
    divided = load_and_divide(recipe, scores_by_folds=scores_by_folds)
    notify_outline(outline_rows(divided, scores_by_folds))
    recipe = with_absolute_paths(divided.recipe, divided.table)
    learner = (
        procedure.learn(recipe, divided)
        if procedure
        else learning_rows(recipe, divided, folds_first=True)
    )
    divided = learner.divided
    outer_recipes = learner.outer_recipes if isinstance(learner, LearningRows) else ()
    with RunFolder(destination, divided, outer_recipes) as folder:
        fit_start = time.perf_counter()
        fitted = learner.fit(folder, listeners)
        # Training before the run was resumed.
        earlier_seconds = max(0.0, fitted.seconds - (time.perf_counter() - fit_start))
        accelerator = fitted.job.accelerator
        if accelerator.is_main_process:
            with memory_errors("scoring the test rows"), one_thread():
                return_freed_memory()
                with stage("saving the model"):
                    saved = save_model(run, fitted)
                    model, base = seal_model(run), seal_folder(base_folder(run / MODEL))
                outer = _outer_predictions(learner, folder, fitted)
                # The verdict and the findings are fixed before the test rows are read.
                with surviving_defects(
                    "validation texts", "the verdict is based on the losses alone"
                ):
                    fitted = judge_with_texts(fitted)
                findings = find_all(run, fitted, saved)
                return_freed_memory()
                test = divided.splits.test
                with stage("scoring the test rows" if len(test) else "scoring"):
                    scored = score_once(run, fitted, test, saved, folder.opened_before, outer)
                scored = confirm_all(findings, scored)
            save_evaluations(run, fitted)
            seconds = time.perf_counter() - start + earlier_seconds
            keep_search(run)
            blocks = blocks_of(learner, scored)
            write_files(CompletedRun(run, divided, fitted, scored, seconds, model, base, blocks))
            folder.send_score(fitted, scored)
    if accelerator.is_main_process:
        with stage("writing the report"):
            write_pages(run)
    accelerator.wait_for_everyone()
    return read_result(run)


def _outer_predictions(
    learning: Learner, folder: RunFolder, fitted: FittedModel
) -> OuterFoldPredictions | None:
    """Predictions of the outer folds, if the run has no test rows."""
    if not (isinstance(learning, LearningRows) and learning.outer):
        return None
    assert fitted.run_start is not None
    with stage("scoring by outer folds"):
        recipe = recipe_before_trials(fitted)
        return predict_outer_folds(learning, recipe, folder.checkpoints, fitted.run_start)


def with_absolute_paths(recipe: Recipe, table: Table) -> Recipe:
    """The recipe that repeats the run from any folder: with absolute paths and column names."""
    columns = table.columns
    data: dict[str, Any] = {"label": columns.label, "group": columns.group}
    if not recipe.data.template:
        data["text"] = columns.text
    if columns.label_kind is not None:
        data |= {"label_kind": columns.label_kind, "label_separator": columns.label_separator}
    return resolve_paths(recipe, Path()).with_changes(data=data)


def _is_intact(run: Path) -> bool:
    """Whether the result of a killed run is complete, so that only its report is missing. If it is
    not, the run continues from its last checkpoint; without one the error is raised."""
    try:
        result = read_result(run)
        check_files(run, result, SEALED_FILES)
        check_model(run, result)
    except RunError as error:
        if not (run / CHECKPOINTS).exists():
            raise
        notify(Decision(RESULT, "computed again", f"{error.what} {error.rule}", prominent=True))
        return False
    return True
