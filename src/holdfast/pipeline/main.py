"""The main job, and the only place where all rooms meet:

load → audit → treat → divide → refuse leaks → fit ⇄ (observe → diagnose → decide → act) → restore
the best → find what may be said of it → score once on the test rows → confirm it there → report.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from holdfast._version import __version__
from holdfast.analyses.analysis import confirm_all, find_all
from holdfast.contract import result as outcome
from holdfast.contract.fit import FittedModel, OuterAnswers, Scored
from holdfast.contract.run_folder import (
    CHECKPOINTS,
    MODEL,
    RECIPE,
    RESULT,
    claimed,
    is_finished,
    is_main_process,
)
from holdfast.core.decisions import notify, stage
from holdfast.core.errors import InputError, Interrupted, RunError
from holdfast.core.files import disk_errors
from holdfast.core.input_errors import survived
from holdfast.core.records import Decision, to_json
from holdfast.core.run_files import (
    EVENTS,
    SEALED,
    check_files,
    check_model,
    read_events,
    read_result,
    seal_folder,
    seal_model,
    write_result,
)
from holdfast.data.table import Table
from holdfast.fits.fit import averages, late_decisions
from holdfast.fits.outer_folds import answer_outer
from holdfast.fits.row_roles import LearningRows
from holdfast.fits.row_use import learning_of
from holdfast.fits.run_facts import run_facts_of, with_probe, with_texts
from holdfast.models.adapters.save import base_folder
from holdfast.models.compute.dropout import quick_dropout
from holdfast.monitor.confirmation import confirmed
from holdfast.prepare.names import check_names
from holdfast.prepare.rows import Divided, load_and_divide
from holdfast.prepare.sources import stored, with_mix
from holdfast.recipe import Recipe, anchored, read_recipe
from holdfast.runs.journal import RunFolder
from holdfast.runs.outline import Outline, outline_rows
from holdfast.runs.pages import write_pages
from holdfast.runs.procedure import (
    Learner,
    Procedure,
    ScoresByFolds,
    begin_search,
    blocks_of,
    forget_search,
    keep_search,
)
from holdfast.runs.scoring import save_model, save_side, score_once
from holdfast.runs.start import Destination, check_recipe
from holdfast.runs.tables import EXAMPLES, control_block, write_examples
from holdfast.stats.threads import one_thread
from holdfast.training.checkpoint import LEAST_SECONDS
from holdfast.training.evaluation_file import LOOKS, write_looks
from holdfast.training.loop import Trained, memory_errors
from holdfast.training.machine.machine import flushed_subnormals
from holdfast.training.machine.signals import terminate_like_interrupt

if TYPE_CHECKING:
    from holdfast.core.events import Listener


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    listeners: Sequence[Listener] = (),
    checkpoint_every_s: float = LEAST_SECONDS,
    held: Mapping[str, object] = MappingProxyType({}),
    outline: Callable[[Outline], None] = lambda _: None,
    procedure: Procedure | None = None,
) -> dict[str, Any]:
    """Do the whole job into the folder ``run`` and return what ``result.json`` holds.

    ``listeners`` join the loop's own (a progress bar, say); ``outline`` hears what was made of
    the rows, then what was made of the model, as soon as each stands. ``checkpoint_every_s`` is the
    least time between two checkpoints. On a finished run ``resume`` changes nothing. ``held`` are
    rows that lie in memory (``data``, ``test``), which are stored in the run's folder first; see
    ``prepare.sources``. A ``procedure`` takes the place of the one fit.

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
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminate_like_interrupt())
        stack.enter_context(claimed(run, resume))
        if not (resume and (run / RECIPE).exists()):
            # A run that is continued has its rows; the sources may have gone or changed since.
            recipe, held = with_mix(recipe, held)
        paths = stack.enter_context(stored(held, run))
        stack.enter_context(flushed_subnormals())
        stack.enter_context(quick_dropout())
        recipe = begin_search(run, procedure, recipe.changed(data=paths), resume)
        to = Destination(run, resume and (run / RECIPE).exists(), checkpoint_every_s, outline)
        try:
            if to.resume:
                return _continue(recipe, to, listeners, procedure)
            return _train(recipe, to, listeners, procedure)
        except KeyboardInterrupt:
            raise _interrupted(run) from None
        except InputError:
            if procedure is not None and not resume:
                forget_search(run)
            raise


def _continue(
    asked: Recipe, to: Destination, listeners: Sequence[Listener], procedure: Procedure | None
) -> dict[str, Any]:
    """Finish what a run has come to, by the recipe that it began with: a procedure by what it was
    ``asked``, since the run's recipe is that of the model that it came to."""
    run = to.run
    if (run / RESULT).exists() and _stands(run):
        return write_pages(run) if is_main_process() else read_result(run)
    check_recipe(run)
    because = f"every setting is that of its {RECIPE}; what is given now is not used"
    notify(Decision("resumed", str(run), because, prominent=True))
    recipe = asked if procedure else read_recipe(run / RECIPE)
    return _train(recipe, to, listeners, procedure)


def _train(
    recipe: Recipe, to: Destination, listeners: Sequence[Listener], procedure: Procedure | None
) -> dict[str, Any]:
    """The sentence above, from the rows on."""
    start, run = time.perf_counter(), to.run
    folded = isinstance(procedure, ScoresByFolds)
    divided = load_and_divide(recipe, folded=folded)
    to.outline(outline_rows(divided, folded))
    recipe = absolute(divided.recipe, divided.table)
    learner = learner_of(recipe, divided, procedure)
    divided = learner.divided
    with RunFolder(to, divided) as folder:
        fitted = learner.fit(folder, listeners)
        accelerator = fitted.job.accelerator
        if accelerator.is_main_process:
            with memory_errors("scoring the test rows"), one_thread():
                with stage("saving the model"):
                    saved = save_model(run, fitted)
                    save_side(run, fitted)
                    model, base = seal_model(run), seal_folder(base_folder(run / MODEL))
                outer = _answered(learner, folder, fitted)
                # The verdict, and what may be said of the test rows, are fixed before these open.
                with survived("validation texts", "the verdict is based on the losses alone"):
                    fitted = with_texts(fitted)
                found = find_all(run, fitted, saved)
                with stage("scoring the test rows"):
                    test = divided.splits.test
                    scored = score_once(run, fitted, test, saved, folder.opened_before, outer)
                scored = confirm_all(found, scored)
            _keep_looks(run, fitted)
            seconds = time.perf_counter() - start
            keep_search(run)
            blocks = blocks_of(learner, scored)
            _write(Finished(run, divided, fitted, scored, seconds, model, base, blocks))
            folder.send_score(fitted, scored)
    if accelerator.is_main_process:
        with stage("writing the report"):
            write_pages(run)
    accelerator.wait_for_everyone()
    return read_result(run)


def learner_of(recipe: Recipe, divided: Divided, procedure: Procedure | None) -> Learner:
    """What the run learns from: as the recipe says, or as a procedure has it."""
    if procedure is None:
        return learning_of(recipe, divided)
    return procedure.learn(recipe, divided)


def _answered(learning: Learner, folder: RunFolder, fitted: FittedModel) -> OuterAnswers | None:
    """What the outer folds say, where there are no test rows."""
    if not (isinstance(learning, LearningRows) and learning.outer):
        return None
    mark = fitted.begun.mark if fitted.begun else ""
    with stage("scoring by outer folds"):
        return answer_outer(learning, learning.outer, fitted.recipe, folder.kept_in, mark)


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


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is trained and scored: what its tables and its result are written from.
    ``seconds`` is how long all of it took; ``model`` and ``base`` say what the files of its model
    must be; ``blocks`` are what a procedure found."""

    run: Path
    divided: Divided
    fitted: FittedModel
    scored: Scored
    seconds: float
    model: Mapping[str, Any]
    base: Mapping[str, Any] | None
    blocks: Mapping[str, Any]


def _write(done: Finished) -> None:
    """The tables, then the result, which says what every file before it must be. Both the result
    and the journal are read again, by the shapes that every later command reads them by."""
    run, divided, fitted, scored = done.run, done.divided, done.fitted, done.scored
    recipe, trained, begun = fitted.recipe, fitted.trained, fitted.begun
    assert begun is not None
    late = to_json(fitted.side.findings) if fitted.side else []
    tables = (divided.table, *divided.given)
    outcome.write_splits(run / "splits.parquet", divided.splits.records, tables)
    outcome.write_predictions(run / "predictions.parquet", scored, divided.table.classes)
    write_examples(run / EXAMPLES, fitted)
    train_s = fitted.ready.prepared.seconds + fitted.seconds
    timing = outcome.timing_block(trained, done.seconds, train_s, scored.seconds)
    result = to_json(
        {
            "schema": 1,
            "holdfast": __version__,
            "task": recipe.task,
            "model": recipe.model.name,
            "classes": None,
            "seed": recipe.seed,
            "data": outcome.data_block(
                divided.table,
                divided.given,
                divided.splits,
                [*begun.findings, *late],
                fitted.ready.added,
            ),
            **scored.blocks,
            **_with_answers(
                outcome.run_block(_judged(trained, scored), recipe.seed), scored.answers
            ),
            "control": control_block(fitted, scored.blocks),
            "timing": {**timing, "know_s": round(scored.know_s, 3)},
            "peak_memory_mb": outcome.peak_memory_mb(),
            "decisions": [
                *begun.decisions,
                *to_json(
                    [*averages(fitted), fitted.kept, *late_decisions(fitted), *scored.decisions]
                ),
            ],
            "division": outcome.division_block(divided.splits, scored, divided.table.classes),
            "settings": recipe.shown(),
            **({"synthetic": synthetic} if (synthetic := fitted.ready.prepared.synthetic) else {}),
            **({"rates": fitted.rates.to_json()} if fitted.rates else {}),
            **({"wrapper": fitted.side.block} if fitted.side else {}),
            **done.blocks,
            **outcome.surroundings(recipe.train.threads, str(fitted.job.accelerator.device)),
        }
    )
    for left_out in write_result(run, result, done.model, done.base):
        notify(left_out)
    # What the report, the dashboard and ``diagnose`` read beside it.
    read_events(run / EVENTS)


def _judged(trained: Trained, scored: Scored) -> Trained:
    """The run with what the test rows say of its verdict, whose label was fixed before."""
    comparison = scored.answers.get("verdict", {}).get("test_comparison")
    if comparison is None:
        return trained
    return replace(trained, verdict=confirmed(trained.verdict, comparison))


def _with_answers(block: dict[str, Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    """The run's own blocks with those of its questions, whose probes stand beside the loop's; what
    was asked about the verdict is in the verdict."""
    probes = {**block["probes"], **answers.get("probes", {})}
    return {**block, **answers, "probes": probes, "verdict": block["verdict"]}


def _keep_looks(run: Path, fitted: FittedModel) -> None:
    """What the verdict was made of, so that ``diagnose`` can make it again."""
    trained = fitted.trained
    known = with_probe(run_facts_of(fitted.ready), fitted.listeners)
    if not write_looks(run / LOOKS, trained.history, known, trained.best_step, __version__):
        fitted.job.journal.note(
            trained.last_step,
            "looks not kept",
            "their rows and classes are above 64 MB, or cannot be read again; result.json has the "
            "verdict",
            chosen=LOOKS,
        )


def _stands(run: Path) -> bool:
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
