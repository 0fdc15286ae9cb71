"""``holdfast meta``: a base model that adapts to a new task in a few steps.

load → clean → split by task → refuse leaks → train the baseline and the methods on the training
tasks → select what a paired test on validation episodes shows to be better, else the baseline →
save → score once on episodes of the test tasks → report.

This is not an ordinary fit: the base model has no classes of its own, and the score is over tasks.
The run folder is therefore written here, in the contract's form (``result.py`` has the blocks).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from holdfast.contract import result as outcome
from holdfast.contract.inference import run_recipe
from holdfast.contract.run_folder import CHECKPOINTS, MODEL, RECIPE, RUN_START, claim_folder
from holdfast.core.curves import Curves, Series
from holdfast.core.decisions import (
    current_listener,
    decisions_and_findings,
    notify,
    record_decisions,
)
from holdfast.core.errors import MachineError, RecipeError, RunError
from holdfast.core.files import disk_errors, replacing_folder, write_json, write_text
from holdfast.core.input_errors import reading_errors
from holdfast.core.machine import process_count
from holdfast.core.records import Decision, Verdict, to_json
from holdfast.core.run_files import seal_model, write_result
from holdfast.core.yaml_values import from_yaml
from holdfast.data.table import Table
from holdfast.monitor.curves.verdict import judge_curves
from holdfast.plugins.episodes.choice import (
    MetaBench,
    MethodChoice,
    choose,
    fill_settings,
    with_prototypes,
)
from holdfast.plugins.episodes.learn import EpisodeEvaluation
from holdfast.plugins.episodes.methods import BASELINE, METHODS
from holdfast.plugins.episodes.result import result_document, score_tests, write_predictions
from holdfast.plugins.episodes.rows import MetaRows, load_tasks
from holdfast.prepare.model import prepare
from holdfast.prepare.rows import check_names
from holdfast.prepare.sources import store_tables
from holdfast.recipe import Recipe, resolve_paths
from holdfast.runs.procedure import notify_resumed
from holdfast.runs.scoring import write_pages
from holdfast.runs.start import (
    OPENED,
    finished_before,
    interruptible,
    settings_fingerprint,
    settings_of,
)
from holdfast.training.checkpoint import LEAST_SECONDS
from holdfast.training.journal import Journal
from holdfast.training.machine.machine import flushed_subnormals
from holdfast.training.machine.signals import terminate_like_interrupt

# What is recorded of an evaluation, by the names of ``EpisodeEvaluation``.
EVALUATION_FIELDS = ("train_accuracy", "train_loss", "valid_accuracy", "valid_loss", "update_loss")


def meta(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    held: Mapping[str, Any] = MappingProxyType({}),
    checkpoint_every_s: float = LEAST_SECONDS,
) -> dict[str, Any]:
    """Learn a base model from the recipe's tasks into the folder ``run``; returns the content of
    ``result.json``.

    With ``resume`` an existing run is continued with its original settings; a finished one stays
    unchanged. Raises ``InputError`` where rows or settings are at fault, ``Interrupted`` on Ctrl-C
    and SIGTERM.
    """
    finished = finished_before(run, resume)
    if finished is not None:
        notify(Decision("resumed", str(run), "it is already finished", prominent=True))
        return finished
    if process_count() > 1:
        rule = "runs in one process only, since its tasks are small"
        remedy = "Start it without a launcher."
        raise MachineError("holdfast meta", rule, process_count(), remedy)
    if not resume:
        check_names(recipe)
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminate_like_interrupt())
        stack.enter_context(claim_folder(run, resume))
        paths = stack.enter_context(store_tables(held, run))
        stack.enter_context(flushed_subnormals())
        resumed = resume and (run / RECIPE).exists()
        if resumed:
            recipe = run_recipe(run)
            if recipe.meta.method is None:
                remedy = "Continue it with the command that started it."
                raise RunError(str(run), "is not a run of holdfast meta", None, remedy)
            notify_resumed(run, RECIPE)
        else:
            recipe = recipe.with_changes(data=paths)
        if recipe.meta.method is None:
            recipe = recipe.with_changes(meta={"method": "auto"})
        if recipe.meta.method not in ("auto", BASELINE, *METHODS):
            rule = "was removed: it lost in every benchmark"
            alternatives = f"Use auto, {BASELINE} or {' or '.join(METHODS)}"
            remedy = f"{alternatives}. A finished run of it still predicts."
            raise RecipeError("meta.method", rule, recipe.meta.method, remedy)
        with interruptible(run):
            return _run_meta(recipe, run, resumed, checkpoint_every_s)


def _run_meta(recipe: Recipe, run: Path, resumed: bool, every_s: float) -> dict[str, Any]:
    start = time.perf_counter()
    rows = load_tasks(recipe)
    recipe = absolute_recipe(rows)
    fixed = {"train": {"precision": "float32"}, "control": {"policy": "off"}}
    prepared = prepare(recipe.with_changes(**fixed), with_training_labels(rows))
    recipe, setting_decisions = fill_settings(prepared.recipe, prepared)
    mark = _begin(run, recipe, rows_hash(rows), resumed)
    notify(*prepared.loaded.decisions, *setting_decisions)
    loaded, report = time.perf_counter(), current_listener()
    bench = MetaBench(prepared, rows, recipe, run / CHECKPOINTS / "meta", mark, every_s)
    with record_decisions(also_notify=True) as log:
        # Messages from the loading are no decisions of the run.
        choice = choose(bench, lambda name, look: report(_progress_decision(name, look, recipe)))
    trial_decisions, _ = decisions_and_findings(log)
    decisions = (*rows.decisions, *prepared.loaded.decisions, *setting_decisions, *trial_decisions)
    train_s = time.perf_counter() - loaded
    journal = Journal(run)
    journal.restore("")
    verdict = _write_curves(journal, choice, recipe, decisions)
    reader = bench.reader(choice.selected.training.state if choice.selected.training else None)
    network = with_prototypes(bench, reader).cpu()
    with replacing_folder(run / MODEL) as temporary, disk_errors(run / MODEL):
        network.save(temporary, prepared.loaded.tokenizer)
    clock = time.perf_counter()
    test = score_tests(bench, choice, reader)
    journal.note(
        choice.last_step, OPENED, "the base model is chosen and is scored", at=test.opened_at
    )
    score_s = time.perf_counter() - clock
    outcome.write_splits(run / "splits.parquet", rows.records, rows.sources)
    write_predictions(run, rows, test)
    seconds = {"total": time.perf_counter() - start, "train": train_s, "score": score_s}
    result = result_document(rows, recipe, choice, test, verdict, decisions, seconds)
    result |= outcome.surroundings(recipe.train.threads or 1, str(reader.device))
    notify(*write_result(run, result, seal_model(run)))
    return write_pages(run)


def absolute_recipe(rows: MetaRows) -> Recipe:
    """The recipe that repeats the run from any folder, with the columns that were worked out."""
    columns = rows.table.columns
    data = {"label": columns.label, "text": columns.text}
    return resolve_paths(rows.recipe, Path()).with_changes(data=data)


def with_training_labels(rows: MetaRows) -> Table:
    """The rows with the classes of the training tasks as their labels, -1 for others."""
    label_index = {name: at for at, name in enumerate(rows.head)}
    labels = [label_index.get(name, -1) for name in rows.names]
    return replace(rows.table.with_column("label", labels), classes=rows.head)


def rows_hash(rows: MetaRows) -> str:
    """A hash of the rows, their tasks and their splits."""
    digest, table = hashlib.blake2b(digest_size=16), rows.table
    for name in ("text", "text_pair"):
        if name in table.rows.column_names:
            for value in table.column(name):
                digest.update(str(value).encode("utf-8", "surrogatepass") + b"\0")
    for name, split in zip(rows.names, rows.split.tolist(), strict=True):
        digest.update(f"{name}\0{split}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _begin(run: Path, recipe: Recipe, rows: str, resumed: bool) -> str:
    """Record the run's rows and settings, or compare them with the recorded ones; returns the mark
    of its checkpoints.

    The recorded recipe is read from its file, so that a later version of Holdfast, whose recipes
    have more keys, can continue the run.
    """
    path, text = run / CHECKPOINTS / RUN_START, recipe.to_yaml()
    settings = settings_of(run) if resumed else settings_fingerprint(from_yaml(text))
    if resumed and path.is_file():
        with reading_errors(str(path), RunError, remedy="Start a new run with another --out."):
            saved = json.loads(path.read_text("utf-8"))
        if saved != {"rows": rows, "settings": settings}:
            rule = "began with other rows or settings than the current ones"
            remedy = "Restore the source file and recipe.yaml, or start a new run."
            raise RunError(str(run), rule, None, remedy)
    if not resumed:
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"rows": rows, "settings": settings})
        write_text(run / RECIPE, text)
    return f"{rows} {settings}"


def _progress_decision(name: str, evaluation: EpisodeEvaluation, recipe: Recipe) -> Decision:
    accuracy = f"{100 * evaluation.valid_accuracy:.1f} % on validation episodes"
    because = (
        f"{100 * evaluation.train_accuracy:.1f} % on training episodes; loss "
        f"{evaluation.valid_loss:.3f}"
    )
    return Decision(f"{name}, {evaluation.step} of {recipe.meta.episodes}", accuracy, because)


def _write_curves(
    journal: Journal, choice: MethodChoice, recipe: Recipe, decisions: Sequence[Decision]
) -> Verdict:
    """Write the selected method's evaluations as the run's, those of others as notes, and the
    verdict.
    """
    for candidate in choice.candidates:
        if candidate is choice.selected or candidate.training is None:
            continue
        for evaluation in candidate.training.evaluations:
            figures = {name: getattr(evaluation, name) for name in EVALUATION_FIELDS}
            journal.note(
                evaluation.step,
                f"{candidate.name} evaluation",
                "a method that was not selected",
                **figures,
            )
    for evaluation in choice.selected.training.evaluations if choice.selected.training else []:
        journal.write(
            "snapshot",
            evaluation.step,
            epoch=float(evaluation.step),
            examples_seen=evaluation.rows,
            phase=choice.selected.name,
            train_loss=evaluation.train_loss,
            valid_loss=evaluation.valid_loss,
            refined_loss=evaluation.valid_loss,
            temperature=1.0,
            train_metrics={"accuracy": evaluation.train_accuracy},
            valid_metrics={"accuracy": evaluation.valid_accuracy},
            seconds=round(evaluation.seconds, 3),
        )
    journal.note_decisions(0, *decisions)
    verdict = _verdict(choice, recipe)
    journal.write("verdict", choice.last_step, **to_json(verdict))
    return verdict


def _verdict(choice: MethodChoice, recipe: Recipe) -> Verdict:
    """The verdict from the evaluations on fixed training and validation episodes, by the rules for
    curves.
    """
    if choice.selected.training is None:
        return Verdict(
            "inconclusive", "Nothing was trained: the base model was kept unchanged", 0.0
        )
    evaluations = choice.selected.training.evaluations
    steps = np.array([evaluation.step for evaluation in evaluations], dtype=float)

    def series(name: str, rises: bool = False) -> Series:
        return Series(
            name, steps, np.array([getattr(evaluation, name) for evaluation in evaluations]), rises
        )

    curves = Curves(
        "holdfast",
        "step",
        series("train_loss"),
        series("valid_loss"),
        series("train_accuracy", True),
        series("valid_accuracy", True),
        clean=True,
        planned_end=float(recipe.meta.episodes or steps[-1]),
        valid_rows=len(evaluations[0].accuracy),
        checkpoint=float(choice.selected.training.best_step),
    )
    return judge_curves(curves)
