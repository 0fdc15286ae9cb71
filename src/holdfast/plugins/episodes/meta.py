"""``holdfast meta``: a start that adapts to a new task in a few steps.

load → treat → divide by task → refuse leaks → try the baseline and the methods on the training
tasks → keep what a paired test on validation episodes proves better, else the baseline → save →
score once on episodes of the test tasks → report.

It is no ordinary fit: what is learned has no classes of its own, and what is scored are tasks. So
the run folder is written here, in the contract's shape. Episodes of the test tasks stand where
``train`` has test rows, and ``test`` counts them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from holdfast._version import __version__
from holdfast.contract import result as outcome
from holdfast.contract.run_folder import BEGUN, CHECKPOINTS, MODEL, RECIPE, claimed, is_finished
from holdfast.core.curves import Curves, Series
from holdfast.core.decisions import decisions_to, listener, notify
from holdfast.core.errors import Interrupted, MachineError, RecipeError, RunError
from holdfast.core.files import disk_errors, replace_folder, write_json, write_text
from holdfast.core.input_errors import door
from holdfast.core.machine import processes
from holdfast.core.records import Decision, Finding, Floats, Verdict, to_json
from holdfast.core.run_files import read_result, seal_model, write_result
from holdfast.core.yaml_values import from_yaml
from holdfast.data.table import Table
from holdfast.models.probes.logistic import softmax_losses
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
from holdfast.plugins.episodes.rows import SIDES, MetaRows, load_tasks
from holdfast.plugins.episodes.scores import EpisodeScores, score
from holdfast.plugins.episodes.tasks import Episode, TaskPool
from holdfast.prepare.model import prepare
from holdfast.prepare.rows import check_names
from holdfast.prepare.sources import stored
from holdfast.recipe import Recipe, anchored, read_recipe
from holdfast.runs.result_files import write_pages
from holdfast.runs.scoring import OPENED
from holdfast.runs.start import settings_mark, settings_of
from holdfast.stats.paired_tests import Difference
from holdfast.stats.shared_units import mean_over_units
from holdfast.training.checkpoint import LEAST_SECONDS
from holdfast.training.journal import Journal
from holdfast.training.machine.machine import flushed_subnormals
from holdfast.training.machine.signals import terminate_like_interrupt

# ±1.96 standard errors over episodes, as papers give it: it takes each for a new task.
PLAIN = 1.959963984540054
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
    with disk_errors(run):
        finished = resume and is_finished(run)
    if finished:
        notify(Decision("resumed", str(run), "it had come to its end", prominent=True))
        return read_result(run)
    if processes() > 1:
        rule = "runs in one process: its tasks are small"
        remedy = "Start it without a launcher."
        raise MachineError("holdfast meta", rule, processes(), remedy)
    if not resume:
        check_names(recipe)
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminate_like_interrupt())
        stack.enter_context(claimed(run, resume))
        paths = stack.enter_context(stored(held, run))
        stack.enter_context(flushed_subnormals())
        again = resume and (run / RECIPE).exists()
        if again:
            recipe = read_recipe(run / RECIPE)
            if recipe.meta.method is None:
                remedy = "Continue it with the command that began it."
                raise RunError(str(run), "is no run of holdfast meta", None, remedy)
            because = f"every setting is that of its {RECIPE}; what is given now is not used"
            notify(Decision("resumed", str(run), because, prominent=True))
        else:
            recipe = recipe.changed(data=paths)
        if recipe.meta.method is None:
            recipe = recipe.changed(meta={"method": "auto"})
        if recipe.meta.method not in ("auto", BASELINE, *METHODS):
            rule = "is a method that was taken out: it lost wherever it was measured (docs/meta.md)"
            left = f"Use auto, {BASELINE} or {' or '.join(METHODS)}"
            remedy = f"{left}; a finished run of it still predicts."
            raise RecipeError("meta.method", rule, recipe.meta.method, remedy)
        try:
            return _meta(recipe, run, again, checkpoint_every_s)
        except KeyboardInterrupt:
            remedy = "Continue it with the same command and --resume."
            raise Interrupted("the run", "was interrupted", None, remedy) from None


def _meta(recipe: Recipe, run: Path, again: bool, every_s: float) -> dict[str, Any]:
    start = time.perf_counter()
    rows = load_tasks(recipe)
    recipe = absolute_recipe(rows)
    prepared = prepare(recipe.changed(train={"precision": "float32"}), with_head(rows))
    recipe, chosen_now = settled(prepared.recipe, prepared)
    mark = _begin(run, recipe, rows_mark(rows), again)
    decisions: list[Decision] = [*rows.decisions, *prepared.loaded.decisions, *chosen_now]

    outer = listener()

    def hear(made: Decision | Finding) -> None:
        if isinstance(made, Decision):
            decisions.append(made)
        outer(made)

    notify(*prepared.loaded.decisions, *chosen_now)
    loaded = time.perf_counter()
    into = run / CHECKPOINTS / "meta"
    bench = MetaBench(prepared, rows, recipe, into, mark, every_s)
    with decisions_to(hear):
        chosen = choose(bench, lambda name, look: outer(_seen(name, look, recipe)))
    train_s = time.perf_counter() - loaded
    journal = Journal(run)
    journal.restore("")
    verdict = _write_course(journal, chosen, recipe, decisions)
    reader = bench.reader(chosen.kept.learned.state if chosen.kept.learned else None)
    _save(run, with_prototypes(bench, reader), prepared.loaded.tokenizer)
    clock = time.perf_counter()
    scored = _score(bench, chosen, reader)
    journal.note(_last(chosen), OPENED, "the start is chosen and is scored", at=scored.opened_at)
    score_s = time.perf_counter() - clock
    outcome.write_splits(run / "splits.parquet", rows.records, rows.sources)
    _write_predictions(run, rows, scored)
    seconds = {"total": time.perf_counter() - start, "train": train_s, "score": score_s}
    result = _result(rows, recipe, chosen, scored, verdict, decisions, seconds)
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
    now = settings_of(run) if again else settings_mark(from_yaml(text))
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


def _last(chosen: MethodChoice) -> int:
    learned = chosen.kept.learned
    return learned.looks[-1].step if learned else 0


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
    for made in decisions:
        journal.note(0, made.what, made.because, chosen=made.chosen)
    verdict = _verdict(chosen, recipe)
    journal.write("verdict", _last(chosen), **to_json(verdict))
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


def _save(run: Path, network: Any, tokenizer: Any) -> None:
    beside = run / ".model.partial"
    shutil.rmtree(beside, ignore_errors=True)
    network.cpu()
    with disk_errors(run / MODEL):
        network.save(beside, tokenizer)
    replace_folder(beside, run / MODEL)


@dataclass(frozen=True, slots=True)
class _Scored:
    """The test episodes and what was made of them: by the kept start, and by each baseline."""

    episodes: list[Episode]
    kept: EpisodeScores
    baselines: dict[str, EpisodeScores]
    members: Floats
    unit: str
    opened_at: str


def _score(bench: MetaBench, chosen: MethodChoice, reader: Any) -> _Scored:
    """The test episodes, met once by the start that is kept and by the baselines."""
    test, rows, meta = bench.rows.pools[2], bench.rows, bench.recipe.meta
    opened_at = outcome.now()
    episodes = test.episodes(rows.shape, meta.test_episodes, bench.recipe.seed, "test")
    reader.network.to(reader.device)
    kept = score(chosen.kept.method, reader, episodes)
    others = {}
    for arm in chosen.arms[:2]:
        own = reader
        if arm is not chosen.kept:
            own = bench.reader(arm.learned.state if arm.learned else None)
        others[arm.name] = kept if own is reader else score(arm.method, own, episodes)
    members, unit = test.members(episodes)
    return _Scored(episodes, kept, others, members, unit, opened_at)


def _write_predictions(run: Path, rows: MetaRows, scored: _Scored) -> None:
    """A line for each query row of each episode: the episode's classes in ``classes``, and how
    probable the kept start holds each, in ``shares``; ``probabilities`` would be of the run's own
    classes."""
    import pyarrow as pa
    from scipy.special import softmax

    ids = np.asarray(rows.table.column("row"))
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    test: TaskPool = rows.pools[2]
    for at, (episode, kept) in enumerate(zip(scored.episodes, scored.kept.logits, strict=True)):
        logits = np.asarray(kept, dtype=np.float64)
        names = [test.tasks[episode.task].classes[c] for c in episode.classes.tolist()]
        labels = episode.query_labels
        columns["episode"] += [at] * len(labels)
        columns["row"] += ids[episode.query.ravel()].tolist()
        columns["label"] += [names[i] for i in labels.tolist()]
        columns["prediction"] += [names[i] for i in logits.argmax(axis=1).tolist()]
        columns["loss"] += softmax_losses(logits, labels).tolist()
        columns["shares"] += softmax(logits, axis=1).tolist()
        columns["classes"] += [names] * len(labels)
    outcome.write_parquet(run / "predictions.parquet", pa.table(columns))


COLUMNS = ("episode", "row", "label", "prediction", "loss", "shares", "classes")


def _estimate(values: Floats, members: Floats, unit: str, most: float = np.inf) -> dict[str, Any]:
    """A mean over episodes, which is ``most`` at most, with its interval over other tasks or
    classes of their kind."""
    found = mean_over_units(values, members)
    made: dict[str, Any] = {"value": found.value, "low": None, "high": None, "level": 0.95}
    if np.isfinite(found.low):
        made |= {"low": max(0.0, found.low), "high": min(most, found.high)}
        made["note"] = f"over {members.shape[1]} {unit}{'es' if unit == 'class' else 's'}"
        return made
    return {**made, "why": f"every episode has the same {unit}es: nothing says how others differ"}


def _side(scores: EpisodeScores, members: Floats, unit: str) -> dict[str, Any]:
    accuracy = _estimate(scores.accuracy, members, unit, 1.0)
    metrics = {"accuracy": accuracy, "loss": _estimate(scores.loss, members, unit)}
    return {"n": len(scores.accuracy), "unit": "episodes", "metrics": metrics}


def _per_task(rows: MetaRows, scored: _Scored) -> list[dict[str, Any]]:
    """Accuracy by test task; where there is one alone, by its classes (of query rows of each)."""
    tasks, kept = rows.pools[2].tasks, scored.kept
    if len(tasks) > 1:
        sizes = {task.name: len(task.classes) for task in tasks}
        names = [task.name for task in tasks]
    else:
        names = list(tasks[0].classes)
        sizes = dict.fromkeys(names, 1)
    hits: list[list[float]] = [[] for _ in names]
    for at, (episode, logits) in enumerate(zip(scored.episodes, kept.logits, strict=True)):
        if len(tasks) > 1:
            hits[episode.task].append(float(kept.accuracy[at]))
            continue
        right = (logits.argmax(axis=1) == episode.query_labels).reshape(episode.query.shape)
        for one, share in zip(episode.classes.tolist(), right.mean(axis=1), strict=True):
            hits[one].append(float(share))
    return [
        {
            "task": name,
            "classes": sizes[name],
            "episodes": len(found),
            "accuracy": float(np.mean(found)) if found else None,
        }
        for name, found in zip(names, hits, strict=True)
    ]


def _gap(gap: Difference) -> dict[str, Any]:
    low, high = (gap.low, gap.high) if np.isfinite(gap.low) else (None, None)
    return {"value": gap.value, "low": low, "high": high, "episodes": gap.n}


def _result(
    rows: MetaRows,
    recipe: Recipe,
    chosen: MethodChoice,
    scored: _Scored,
    verdict: Verdict,
    decisions: Sequence[Decision],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    meta, members, unit = recipe.meta, scored.members, scored.unit
    learned = chosen.kept.learned
    held = scored.baselines[chosen.baseline.name]
    difference = mean_over_units(scored.kept.accuracy - held.accuracy, members)
    plain = PLAIN * float(scored.kept.accuracy.std(ddof=1)) / len(scored.kept.accuracy) ** 0.5
    frozen = scored.baselines["frozen"]
    # The units of the validation episodes that the kept method met.
    valid, count = rows.pools[1], len(chosen.kept.judged.accuracy)
    judged = valid.members(valid.episodes(rows.shape, count, recipe.seed, "valid"))
    counts = {name: int((rows.side == at).sum()) for at, name in enumerate(SIDES)}
    test = _side(scored.kept, members, unit)
    return {
        "schema": 1,
        "holdfast": __version__,
        "task": recipe.task,
        "model": recipe.model.name,
        "classes": list(rows.head),
        "seed": recipe.seed,
        "data": {
            "files": [t.source for t in rows.sources if Path(t.source).expanduser().exists()],
            "rows": sum(table.source_rows for table in rows.sources),
            "used": sum(counts.values()),
            **counts,
            "findings": to_json(list(rows.findings)),
        },
        "test": {**test, "opened_at": scored.opened_at},
        "valid": _side(chosen.kept.judged, *judged),
        "train_probe": {"n": 0, "metrics": {}},
        "baseline": {"what": "linear probe", "test": _side(frozen, members, unit)},
        "meta": {
            "method": chosen.kept.name if chosen.kept.name not in scored.baselines else BASELINE,
            "asked": meta.method,
            "kept": chosen.kept.name,
            "because": chosen.because,
            "ways": rows.shape.ways,
            "shots": rows.shape.shots,
            "queries": rows.shape.queries,
            "episodes": len(scored.episodes),
            "by": rows.by,
            "tasks": {
                name: [len(pool.tasks), sum(len(t.classes) for t in pool.tasks)]
                for name, pool in zip(SIDES, rows.pools, strict=True)
            },
            "accuracy": test["metrics"]["accuracy"],
            "interval": {
                "over": unit,
                "units": int(members.any(axis=0).sum()),
                "plain_half": plain,
            },
            "baselines": {
                arm.name: {
                    "readout": arm.method.inner["readout"],
                    "accuracy": _estimate(scored.baselines[arm.name].accuracy, members, unit, 1.0),
                }
                for arm in chosen.arms[:2]
            },
            "against": {"baseline": chosen.baseline.name, **_gap(difference)},
            "tried": [
                {
                    "method": arm.name,
                    "accuracy": arm.accuracy,
                    "episodes": len(arm.judged.accuracy),
                    "difference": _gap(chosen.against[arm.name])
                    if arm.name in chosen.against
                    else None,
                    "best_step": arm.learned.best if arm.learned else None,
                    "seconds": round(arm.seconds, 3),
                    **arm.method.inner,
                }
                for arm in chosen.arms
            ],
            "per_task": _per_task(rows, scored),
        },
        "verdict": to_json(verdict),
        "best_step": learned.best if learned else 0,
        "last_step": _last(chosen),
        "stopped_because": f"the {meta.episodes} planned episodes are done",
        "actions": [],
        "probes": {"memorization": None, "forgetting": None},
        "timing": {
            "total_s": round(seconds["total"], 3),
            "train_s": round(seconds["train"], 3),
            "evaluate_s": 0.0,
            "guard_s": 0.0,
            "examples_per_s": _rate(chosen, seconds["train"]),
            "score_s": round(seconds["score"], 3),
        },
        "peak_memory_mb": outcome.peak_memory_mb(),
        "decisions": to_json(list(decisions)),
        "settings": recipe.shown(),
    }


def _rate(chosen: MethodChoice, seconds: float) -> float:
    passed = sum(arm.learned.looks[-1].rows for arm in chosen.arms if arm.learned)
    return round(passed / seconds, 3) if seconds else 0.0
