"""Primacy, planted: rows in a sorted order, the first thousand of them passed again and again
before any other. Is it found, and is it mended?

    python benchmarks/primacy.py             # every cell, some seconds each

TREC's questions sorted by their words, 2,400 to learn from: a layer of 128 units over MiniLM's
frozen features, through the real loop at a steady rate. ``planted``: the first thousand pass
``REPEATS`` times in their order, then all rows twice, in their order. ``clean``: as many updates of
all rows, drawn by chance. The detector is asked at every look. Where it speaks first, a mended run
of the same beginning turns: the head is again what it was (2205.07802), and from there rows are
drawn by chance, those that are not of the first thousand twice as often; the parts of that are arms
of their own.

"Gap": the mean loss of the rows that came late less that of the first thousand, of the training
rows (each measured without dropout); over the run the mean of its looks, on the train probe. Test:
1,500 questions that take no part.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from cells import RESULTS, Cell, grid, run_cells
from claims import Claim, Line, Lines, average, paired, pick, renamed, share, table
from peers.rows import clean_set, draw
from recorded.features import Small, encoded, job_of, table_of

from holdfast.core.events import Place
from holdfast.core.run_facts import RunFacts
from holdfast.core.seeds import generator
from holdfast.core.updates import Draw, RowPool
from holdfast.models.layers import restore_initial_head
from holdfast.monitor.detectors.memory import primacy
from holdfast.monitor.history import History
from holdfast.monitor.judge import judge
from holdfast.training.loop import fit
from holdfast.training.plan import Phase, Plan, first_use_steps, probe_positions
from holdfast.training.run import Run

NAME = "primacy"
TRAIN, VALID, TEST = 2400, 400, slice(0, 1500)
FIRST, REPEATS, PASSES, BATCH, RATE, LOOKS = 1000, 12, 2, 16, 2e-3, 12
ARMS = ("clean", "planted", "head reset", "reshuffled", "late rows twice", "all three")


@dataclass(frozen=True, eq=False)
class InOrder:
    """The first thousand ``REPEATS`` times, then all rows, in their order; from the update
    ``turned`` on by chance where ``shuffled``, rows that are not of the first thousand twice as
    often where ``late``."""

    turned: int | None = None
    shuffled: bool = False
    late: bool = False
    name: ClassVar[str] = "in order"
    has_epochs: ClassVar[bool] = False

    def steps_per_epoch(self, pool: RowPool) -> int:
        return pool.steps_per_pass

    def draw(self, pool: RowPool, step: int) -> Draw:
        by_chance = self.shuffled or self.late
        if self.turned is not None and step >= self.turned and by_chance:
            return Draw(self._by_chance(pool, step))
        order = np.concatenate([np.tile(np.arange(FIRST), REPEATS), np.arange(len(pool))])
        at = (step * BATCH + np.arange(BATCH)) % (FIRST * REPEATS + len(pool) * PASSES)
        at = np.where(at < len(order), at, FIRST * REPEATS + (at - len(order)) % len(pool))
        return Draw(order[at])

    def _by_chance(self, pool: RowPool, step: int) -> np.ndarray:
        rng = generator(pool.seed, "benchmark", "primacy", step)
        weight = np.ones(len(pool))
        if self.late:
            weight[FIRST:] = 2
        return rng.choice(len(pool), BATCH, replace=False, p=weight / weight.sum())


@dataclass(frozen=True, eq=False)
class ByChance(InOrder):
    """All rows, by chance."""

    def draw(self, pool: RowPool, step: int) -> Draw:
        return Draw(self._by_chance(pool, step))


class PutBack:
    """The head is again what it was, after ``step`` updates."""

    name = "put back"
    place: Place = "change"

    def __init__(self, step: int) -> None:
        self._step = step

    def step_done(self, run: Run) -> None:
        if run.step == self._step:
            assert restore_initial_head(
                run.network, run.trainable_parameters(), run.initial_tensors, run.optimizer
            )


def run_one(cell: Cell) -> dict[str, Any]:
    arm, seed = str(cell["arm"]), int(cell["seed"])
    if arm in ("clean", "planted"):
        return _trained(seed, arm)
    planted = _trained(seed, "planted")
    turned = planted["found_at"]
    # Not found is not mended.
    made = planted if turned is None else _trained(seed, arm, turned)
    return {**made, "mended_at": turned}


@functools.cache
def _trained(seed: int, arm: str, turned: int | None = None) -> dict[str, Any]:
    table, where = table_of("trec")
    parts = draw(clean_set("trec"), seed=seed, train=TRAIN, valid=VALID, test=TEST)
    classes = tuple(parts.classes)
    sides = {name: encoded(rows, where, classes) for name, rows in parts.named().items()}
    order = np.argsort(np.array([text.lower() for text in parts.train.texts]))
    sides["train"] = sides["train"].take(order)
    steps = (FIRST * REPEATS + TRAIN * PASSES) // BATCH
    late, shuffled = (arm in (one, "all three") for one in ("late rows twice", "reshuffled"))
    phase = Phase(
        name="finetune",
        steps=steps,
        batch_size=BATCH,
        learning_rate=RATE,
        head_learning_rate=RATE,
        schedule="constant",
        source=ByChance() if arm == "clean" else InOrder(turned, shuffled, late),
    )
    at = tuple(sorted({round(steps * i / LOOKS) for i in range(LOOKS + 1)}))
    probe = probe_positions(sides["train"].rows, 500, seed)
    seen = first_use_steps((phase,), sides["train"], seed, probe)
    facts = RunFacts(planned_steps=steps, train_rows=TRAIN, first_seen=seen)
    mend = (PutBack(turned),) if arm in ("head reset", "all three") and turned else ()
    watch = Watch(sides["test"])
    plan, network = Plan((phase,), at, 500, seed), Small(table, 128, len(classes), seed)
    job = job_of(network, classes, sides, plan, watch)
    trained = fit(
        replace(
            job,
            listeners=(*job.listeners, *mend),
            monitor=lambda history, kept=None: judge(history, facts, kept),
        )
    )
    spoke = [
        one.step
        for i, one in enumerate(trained.history)
        if primacy(History(tuple(trained.history[: i + 1]), facts)) is not None
    ]
    losses, _, _ = watch.last["train"]
    early = probe < FIRST
    gaps = [
        float(one.train_losses[~early].mean() - one.train_losses[early].mean())
        for one in trained.history
        if one.step
    ]
    return {
        "label": trained.verdict.label,
        "cause": trained.verdict.cause,
        "early": float(losses[:FIRST].mean()),
        "late": float(losses[FIRST:].mean()),
        "gap": float(losses[FIRST:].mean() - losses[:FIRST].mean()),
        "mean_gap": statistics.fmean(gaps),
        "gaps": gaps,
        "accuracy": watch.accuracy,
        "test_loss": watch.loss,
        "found_at": spoke[0] if spoke else None,
        "looks_found": len(spoke),
        "looks": len(trained.history) - 1,
    }


class Watch:
    """The training and the test rows at the last look; the state of the end is what is measured,
    not the one that a run would keep."""

    name = "watch"
    place: Place = "tell"

    def __init__(self, test: Any) -> None:
        self._test = test
        self.last: dict[str, Any] = {}

    def snapshot_taken(self, run: Run) -> None:
        if run.step < run.plan.steps:
            return
        for name, rows in (("train", run.job.train), ("test", self._test)):
            losses, kept = run.observer.measure(run.network, rows, np.arange(len(rows)))
            self.last[name] = (losses, kept, rows)

    @property
    def accuracy(self) -> float:
        _, kept, rows = self.last["test"]
        return float((kept.argmax(axis=1) == rows.labels).mean())

    @property
    def loss(self) -> float:
        return float(self.last["test"][0].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{NAME}.jsonl")
    given = parser.parse_args()
    cells = grid(seed=range(given.seeds), arm=ARMS)
    run_cells(NAME, cells, run_one, given.out, minutes=given.minutes)


CALLED = {"clean": "shuffled", "planted": "sorted"}


def with_found(lines: Lines) -> list[Line]:
    return [{**line, "found": line["found_at"] is not None} for line in lines]


def found(lines: Lines) -> str:
    return f"{sum(line['found'] for line in lines)} of {len(lines)}"


def finding(lines: Lines) -> str:
    lines = with_found(lines)
    planted, clean = pick(lines, arm="planted"), pick(lines, arm="clean")
    gap = paired(lines, "accuracy", "reshuffled", "planted", ("seed",))
    if not gap:
        return ""
    return (
        "Training on rows in a sorted order is detected in "
        f"{share(sum(l['found'] for l in planted), len(planted), long=True)} runs; with shuffled "
        "rows there is a false alarm in "
        f"{share(sum(l['found'] for l in clean), len(clean), long=True)}. Shuffling from the "
        f"detection on changes test accuracy by {gap.words(100, 1, ' points')}."
    )


CLAIM = Claim(
    NAME,
    "Verdicts",
    "Rows in a sorted order",
    """\
TREC sorted by its words, a layer of 128 units over frozen MiniLM features. Sorted: the network is
trained twelve times on the first thousand rows, then twice on all 2,400. Shuffled: as many updates
on shuffled rows. The other runs begin like the sorted run. When an evaluation detects the order,
they reset the head, draw the rows in random order, draw those after the first thousand twice as
often, or do all three.""",
    lambda: grid(seed=range(10), arm=ARMS),
    finding,
    [
        lambda lines: table(
            {"arm": "Run"},
            {
                "Detected": found,
                "Test accuracy, %": average("accuracy", 100),
                "Test loss": average("test_loss", 1, 3),
            },
        )(renamed(with_found(lines), arm=CALLED))
    ],
    "Resetting the head alone does not help. A planted order is clearer than a real one.",
)


if __name__ == "__main__":
    main()
