"""``holdfast meta``: a start that adapts to a new task in a few steps.

load → treat → divide by task → refuse leaks → try the baseline and the methods on the training
tasks → keep what a paired test on validation episodes proves better, else the baseline → save →
score once on episodes of the test tasks → report.

It is no ordinary fit: what is learned has no classes of its own, and what is scored are tasks. So
the run folder is written here, in the contract's shape (``result.py`` has the blocks).
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
from holdfast.contract.run_folder import BEGUN, CHECKPOINTS, MODEL, RECIPE, claimed
from holdfast.core.curves import Curves, Series
from holdfast.core.decisions import listener, notify, parted, recorded
from holdfast.core.errors import MachineError, RecipeError, RunError
from holdfast.core.files import disk_errors, whole_folder, write_json, write_text
from holdfast.core.input_errors import door
from holdfast.core.machine import processes
from holdfast.core.records import Decision, Verdict, to_json
from holdfast.core.run_files import seal_model, write_result
from holdfast.core.yaml_values import from_yaml
from holdfast.data.table import Table
from holdfast.monitor.curves.verdict import judge_curves
from holdfast.plugins.episodes.choice import (
    MetaBench,
    MethodChoice,
    choose,
    settled,
    with_prototypes,
)
from holdfast.plugins.episodes.learn import EpisodeEvaluation
from holdfast.plugins.episodes.methods import BASELINE, METHODS
from holdfast.plugins.episodes.result import result_of, score_tests, write_predictions
from holdfast.plugins.episodes.rows import MetaRows, load_tasks
from holdfast.prepare.model import prepare
from holdfast.prepare.rows import check_names
from holdfast.prepare.sources import store_tables
from holdfast.recipe import Recipe, anchored, read_recipe
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

# What is noted of a look, by the names of ``EpisodeEvaluation``.
MEASURED = ("train_accuracy", "train_loss", "valid_accuracy", "valid_loss", "update_loss")


def meta(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    held: Mapping[str, Any] = MappingProxyType({}),
    checkpoint_every_s: float = LEAST_SECONDS,
) -> dict[str, Any]:
    """Learn a start from the tasks that the recipe names, into the folder ``run``; gives what
    ``result.json`` holds.

    With ``resume`` the run that is there is continued,
    by the settings that it began with; on a finished one nothing changes. Raises ``InputError``
    where rows or settings are at fault, ``Interrupted`` on Ctrl-C and SIGTERM.
    """
    done = finished_before(run, resume)
    if done is not None:
        notify(Decision("resumed", str(run), "it had come to its end", prominent=True))
        return done
    if processes() > 1:
        rule = "runs in one process: its tasks are small"
        remedy = "Start it without a launcher."
        raise MachineError("holdfast meta", rule, processes(), remedy)
    if not resume:
        check_names(recipe)
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminate_like_interrupt())
        stack.enter_context(claimed(run, resume))
        paths = stack.enter_context(store_tables(held, run))
        stack.enter_context(flushed_subnormals())
        again = resume and (run / RECIPE).exists()
        if again:
            recipe = read_recipe(run / RECIPE)
            if recipe.meta.method is None:
                remedy = "Continue it with the command that began it."
                raise RunError(str(run), "is no run of holdfast meta", None, remedy)
            notify_resumed(run, RECIPE)
        else:
            recipe = recipe.changed(data=paths)
        if recipe.meta.method is None:
            recipe = recipe.changed(meta={"method": "auto"})
        if recipe.meta.method not in ("auto", BASELINE, *METHODS):
            rule = "is a method that was taken out: it lost wherever it was measured (docs/meta.md)"
            left = f"Use auto, {BASELINE} or {' or '.join(METHODS)}"
            remedy = f"{left}; a finished run of it still predicts."
            raise RecipeError("meta.method", rule, recipe.meta.method, remedy)
        with interruptible(run):
            return _meta(recipe, run, again, checkpoint_every_s)


def _meta(recipe: Recipe, run: Path, again: bool, every_s: float) -> dict[str, Any]:
    start = time.perf_counter()
    rows = load_tasks(recipe)
    recipe = absolute_recipe(rows)
    prepared = prepare(recipe.changed(train={"precision": "float32"}), with_head(rows))
    recipe, chosen_now = settled(prepared.recipe, prepared)
    mark = _begin(run, recipe, rows_mark(rows), again)
    notify(*prepared.loaded.decisions, *chosen_now)
    loaded, hear = time.perf_counter(), listener()
    bench = MetaBench(prepared, rows, recipe, run / CHECKPOINTS / "meta", mark, every_s)
    with recorded(aloud=True) as log:
        # What is seen on the way is no decision of the run.
        chosen = choose(bench, lambda name, look: hear(_seen(name, look, recipe)))
    tried, _ = parted(log)
    decisions = (*rows.decisions, *prepared.loaded.decisions, *chosen_now, *tried)
    train_s = time.perf_counter() - loaded
    journal = Journal(run)
    journal.restore("")
    verdict = _write_course(journal, chosen, recipe, decisions)
    reader = bench.reader(chosen.kept.learned.state if chosen.kept.learned else None)
    network = with_prototypes(bench, reader).cpu()
    with whole_folder(run / MODEL) as beside, disk_errors(run / MODEL):
        network.save(beside, prepared.loaded.tokenizer)
    clock = time.perf_counter()
    test = score_tests(bench, chosen, reader)
    journal.note(chosen.last_step, OPENED, "the start is chosen and is scored", at=test.opened_at)
    score_s = time.perf_counter() - clock
    outcome.write_splits(run / "splits.parquet", rows.records, rows.sources)
    write_predictions(run, rows, test)
    seconds = {"total": time.perf_counter() - start, "train": train_s, "score": score_s}
    result = result_of(rows, recipe, chosen, test, verdict, decisions, seconds)
    result |= outcome.surroundings(recipe.train.threads or 1, str(reader.device))
    notify(*write_result(run, result, seal_model(run)))
    return write_pages(run)


def absolute_recipe(rows: MetaRows) -> Recipe:
    """The recipe that repeats the run from anywhere, with the columns that were worked out."""
    columns = rows.table.columns
    data = {"label": columns.label, "text": columns.text}
    return anchored(rows.recipe, Path()).changed(data=data)


def with_head(rows: MetaRows) -> Table:
    """The rows with the classes of the training tasks as their labels, -1 for others."""
    place = {name: at for at, name in enumerate(rows.head)}
    labels = [place.get(name, -1) for name in rows.names]
    return replace(rows.table.with_column("label", labels), classes=rows.head)


def rows_mark(rows: MetaRows) -> str:
    """A hash of the rows, their tasks and their sides."""
    digest, table = hashlib.blake2b(digest_size=16), rows.table
    for name in ("text", "text_pair"):
        if name in table.rows.column_names:
            for value in table.column(name):
                digest.update(str(value).encode("utf-8", "surrogatepass") + b"\0")
    for name, side in zip(rows.names, rows.side.tolist(), strict=True):
        digest.update(f"{name}\0{side}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _begin(run: Path, recipe: Recipe, rows: str, again: bool) -> str:
    """Write down what the run begins with, or compare it with what it began with: the mark of its
    checkpoints. What a recipe says is read from its file, so that a later version of Holdfast,
    whose recipes have more keys, goes on with it."""
    path, text = run / CHECKPOINTS / BEGUN, recipe.to_yaml()
    now = settings_of(run) if again else settings_fingerprint(from_yaml(text))
    if again and path.is_file():
        with door(str(path), RunError, remedy="Start a new run with another --out."):
            before = json.loads(path.read_text("utf-8"))
        if before != {"rows": rows, "settings": now}:
            rule = "began with other rows or settings than there are now"
            remedy = "Restore the source file and recipe.yaml, or start a new run."
            raise RunError(str(run), rule, None, remedy)
    if not again:
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"rows": rows, "settings": now})
        write_text(run / RECIPE, text)
    return f"{rows} {now}"


def _seen(name: str, look: EpisodeEvaluation, recipe: Recipe) -> Decision:
    told = f"{100 * look.valid_accuracy:.1f} % on validation episodes"
    because = f"{100 * look.train_accuracy:.1f} % on training ones; loss {look.valid_loss:.3f}"
    return Decision(f"{name}, {look.step} of {recipe.meta.episodes}", told, because)


def _write_course(
    journal: Journal, chosen: MethodChoice, recipe: Recipe, decisions: Sequence[Decision]
) -> Verdict:
    """The kept method's looks as the run's, those of others as notes, and the verdict on them."""
    for arm in chosen.arms:
        if arm is chosen.kept or arm.learned is None:
            continue
        for look in arm.learned.looks:
            told = {name: getattr(look, name) for name in MEASURED}
            journal.note(look.step, f"{arm.name} look", "a method that was tried", **told)
    for look in chosen.kept.learned.looks if chosen.kept.learned else []:
        journal.write(
            "snapshot",
            look.step,
            epoch=float(look.step),
            examples_seen=look.rows,
            phase=chosen.kept.name,
            train_loss=look.train_loss,
            valid_loss=look.valid_loss,
            refined_loss=look.valid_loss,
            temperature=1.0,
            train_metrics={"accuracy": look.train_accuracy},
            valid_metrics={"accuracy": look.valid_accuracy},
            seconds=round(look.seconds, 3),
        )
    journal.note_decisions(0, *decisions)
    verdict = _verdict(chosen, recipe)
    journal.write("verdict", chosen.last_step, **to_json(verdict))
    return verdict


def _verdict(chosen: MethodChoice, recipe: Recipe) -> Verdict:
    """What the looks at fixed training and validation episodes show, by the rules for curves."""
    if chosen.kept.learned is None:
        return Verdict("inconclusive", "Nothing was trained: the model as it is was kept", 0.0)
    looks = chosen.kept.learned.looks
    at = np.array([look.step for look in looks], dtype=float)

    def series(name: str, rises: bool = False) -> Series:
        return Series(name, at, np.array([getattr(look, name) for look in looks]), rises)

    curves = Curves(
        "holdfast",
        "step",
        series("train_loss"),
        series("valid_loss"),
        series("train_accuracy", True),
        series("valid_accuracy", True),
        clean=True,
        planned=float(recipe.meta.episodes or at[-1]),
        valid_rows=len(looks[0].accuracy),
        kept=float(chosen.kept.learned.best),
    )
    return judge_curves(curves)
