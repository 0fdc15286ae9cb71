"""Compare the policy `adapt` with each single action, taken at one evaluation of a run.

    python benchmarks/forks.py --jobs 2

The faults are those of ``repairs.py``, on fresh seeds. A run goes to an evaluation, its fork. From
there it goes to its planned end as it is, and once more after each action of ``MENU``; or it ends
there; or `adapt` decides from there on. Each of these courses keeps a checkpoint as a run does,
which is scored on the test rows.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from cells import Cell, run_command
from claims import Claim, Line, Lines, interval, mean_interval, number, pick
from enrich_pictures import prepared_images
from label_weights import with_wrong_labels
from peers.arms import steps_and_trials
from peers.process import commit
from peers.rows import Parts, labelled_counts
from peers.sets import parts_of
from peers.stand_in import case
from peers.tables import markdown
from repairs import FAULTS, IMAGE_FAULTS, IMAGE_PLAN, IMAGES, NONE, WRONG, with_skewed_classes

from holdfast.control.controller import Controller
from holdfast.control.policy import Policy, Remedy
from holdfast.control.sight import Sight
from holdfast.core.actions import (
    Action,
    Continue,
    Extend,
    RollBack,
    ScaleLearningRate,
    Shorten,
    Stop,
    StrengthenAugmentation,
    SwitchOn,
)
from holdfast.core.errors import TrainingError
from holdfast.core.events import Place
from holdfast.core.records import Snapshot, Verdict
from holdfast.core.seeds import generator
from holdfast.fits.compose import make_training_plan
from holdfast.fits.fit import make_job
from holdfast.training.loop import fit
from holdfast.training.machine.machine import make_accelerator
from holdfast.training.run import Run

NAME = "forks"
TEXTS, TEXT_ROWS, TESTED = ("trec", "cr", "mr", "instructions"), 800, 1500
SKEWED = "skewed classes, 1 : 20"
SHORT = "2 epochs"
LONG = "50 epochs without decay"
TEXT_FAULTS: dict[str, dict[str, Any]] = {
    NONE: {},
    **{name: change for name, change in FAULTS.items() if name != "8 updates"},
    SHORT: {"train.epochs": 2},
    WRONG: {},
    SKEWED: {},
}
# As shares of the planned updates.
FORKS = (0.25, 0.5)
# Runs of other benchmarks have the seeds 0 to 4.
SEED, SEEDS = 30, 1
# Nothing is done, the run ends, or the policy decides from the fork on.
GO_ON, STOP, ADAPT = "go on", "stop", "`adapt`"
BECAUSE, NEAR = "an action at a fork", 5.0


def cells() -> list[dict[str, Any]]:
    """A fork of each run: of half of them an early one, and with the next seed the other."""
    found = []
    for seed in range(SEEDS):
        for f, fault in enumerate({**TEXT_FAULTS, **IMAGE_FAULTS}):
            sets = [*(TEXTS if fault in TEXT_FAULTS else ())]
            sets += IMAGES if fault in (NONE, *IMAGE_FAULTS) else ()
            found += [
                {"data": name, "fault": fault, "seed": SEED + seed, "fork": FORKS[(f + s) % 2]}
                for s, name in enumerate(sets, seed)
            ]
    # The longest runs last.
    return sorted(found, key=lambda cell: (cell["fault"] == LONG, cell["seed"]))


@dataclass(frozen=True)
class Fork:
    """What an action is made of: the ``step`` of the evaluation, that of the checkpoint ``kept`` so
    far, the peak learning ``rate``, its ``usual`` range, the planned ``steps`` and those between
    two evaluations, and whether the rows are ``images``."""

    step: int
    kept: int
    rate: float
    usual: tuple[float, float]
    steps: int
    apart: int
    images: bool

    @property
    def to_usual(self) -> float:
        """The factor from the rate to the middle of the usual range; 1 near it."""
        factor = float(np.sqrt(np.prod(self.usual))) / self.rate
        return factor if not 1 / NEAR < factor < NEAR else 1.0


def scaled(fork: Fork, factor: float) -> tuple[Action, ...]:
    return (ScaleLearningRate(BECAUSE, factor),)


def regularized(fork: Fork) -> tuple[Action, ...]:
    if fork.images:
        return (StrengthenAugmentation(BECAUSE),)
    return (SwitchOn(BECAUSE, "label_smoothing", {"share": 0.1}),)


def decayed(fork: Fork) -> tuple[Action, ...]:
    end = fork.kept + 3 * fork.apart
    back = (RollBack(BECAUSE, fork.kept),) if fork.kept != fork.step else ()
    return (*back, Shorten(BECAUSE, end)) if end < fork.steps else ()


def begun_again(fork: Fork) -> tuple[Action, ...]:
    return (RollBack(BECAUSE, 0), *scaled(fork, fork.to_usual)) if fork.to_usual != 1 else ()


# What each action is; none where it would change nothing.
MENU: Mapping[str, Callable[[Fork], tuple[Action, ...]]] = {
    "lower learning rate": lambda fork: scaled(fork, min(1 / 3, fork.to_usual)),
    "higher learning rate": lambda fork: scaled(fork, max(3.0, fork.to_usual)),
    "restart at the usual learning rate": begun_again,
    "decay from the best checkpoint": decayed,
    "regularization": regularized,
    "robust loss": lambda fork: (SwitchOn(BECAUSE, "gce"),),
    "30 % more updates": lambda fork: (Extend(BECAUSE, steps=round(0.3 * fork.steps)),),
}
COURSES = (GO_ON, STOP, *MENU)


@dataclass(frozen=True)
class Rows:
    """What a fit begins with, its training and validation rows, and encoded test rows."""

    prepared: Any
    train: Any
    valid: Any
    tested: Any


@cache
def rows_of(data: str, fault: str, seed: int) -> Rows:
    if data in IMAGES:
        prepared, train, valid, test = prepared_images(data, seed)
        return Rows(prepared, train, valid, prepared.examples.take(test))
    parts = parts_of(data, labelled_counts(TEXT_ROWS), seed, TESTED)
    cell = {"data": data, "seed": seed, "arm": "", "wrong": "random 0.2"}
    if fault == WRONG:
        parts = with_wrong_labels(parts, cell)
    if fault == SKEWED:
        nobody = parts.test.take([])
        train, valid = (
            with_skewed_classes(Parts(side, nobody, nobody), cell).train
            for side in (parts.train, parts.valid)
        )
        parts = Parts(train, valid, parts.test)
    both = parts.whole().train
    made = case("minilm", both.texts, both.labels, parts.test, {"seed": seed})
    train, valid = np.split(np.arange(len(both)), [len(parts.train)])
    return Rows(made.prepared, train, valid, made.test)


def planned(cell: Cell, policy: str) -> tuple[Rows, Any]:
    rows = rows_of(cell["data"], cell["fault"], cell["seed"])
    images = cell["data"] in IMAGES
    of_fault = (IMAGE_FAULTS if images else TEXT_FAULTS).get(cell["fault"], {})
    settings = {**(IMAGE_PLAN if images else {"train.folds": 0}), **of_fault}
    settings |= {"control.policy": policy, "train.threads": 1}
    return rows, make_training_plan(rows.prepared, rows.train, rows.valid, settings)


class Explorer:
    """The advisor that takes every action of ``names`` at a fork, and the listener that scores what
    comes of it."""

    name = "explorer"
    place: Place = "tell"

    def __init__(self, cell: Cell, rows: Rows, plan: Any, names: Sequence[str]) -> None:
        self.rows, self.plan, self.names = rows, plan, names
        self.images = cell["data"] in IMAGES
        evaluations = np.array(plan.plan.evaluate_at[1:-1])
        wanted = cell["fork"] * plan.plan.steps
        self.step = int(evaluations[np.abs(evaluations - wanted).argmin()])
        self.right: dict[str, Any] = {}
        self.left: dict[str, tuple[Action, ...]] = {}
        self.now, self.origin = GO_ON, 0
        self.verdict = ""
        self.logits: Any = None
        self.run: Any = None

    def run_start(self, run: Run) -> None:
        self.run = run

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        last = history[-1]
        if self.now == GO_ON and last.step == self.step:
            self.verdict, self.logits = verdict.label, last.valid_logits
            self.right[STOP] = self.score()
            fork = Fork(
                last.step,
                self.run.best.step,
                self.plan.recipe.train.learning_rate,
                self.plan.usual_rates,
                self.plan.plan.steps,
                int(np.median(np.diff(self.plan.plan.evaluate_at))),
                self.images,
            )
            menu = {name: MENU[name](fork) for name in self.names}
            self.left = {name: actions for name, actions in menu.items() if actions}
        if last.step < (last.planned_steps or self.plan.plan.steps):
            return ()
        self.right[self.now] = self.score()
        if not self.left:
            return (Stop("every action was taken"),)
        self.now = max(self.left, key=self.origin_of)
        self.origin, actions = self.origin_of(self.now), self.left.pop(self.now)
        changes = [one for one in actions if not isinstance(one, RollBack)]
        return (RollBack(BECAUSE, self.origin), *changes)

    def origin_of(self, name: str) -> int:
        """To go back drops what was kept of later evaluations, so the latest come first."""
        return next(
            (one.to_step for one in self.left[name] if isinstance(one, RollBack)), self.step
        )

    def restore_points(self, history: Sequence[Snapshot]) -> set[int]:
        if self.now == GO_ON:
            return {snapshot.step for snapshot in history}
        origins = {self.origin, *map(self.origin_of, self.left)}
        return origins & set(self.run.guard.restore_points)

    def score(self) -> Any:
        """Which test rows the checkpoint kept so far has right; the run is as before afterwards."""
        run, tested = self.run, self.rows.tested
        before, random = run.copy_tensors(), torch.get_rng_state()
        run.load_tensors(run.best.tensors)
        _, logits = run.observer.measure(run.network, tested, np.arange(len(tested)))
        run.load_tensors(before)
        torch.set_rng_state(random)
        return logits.argmax(axis=1) == np.asarray(tested.labels)

    def rolled_back(self, state: Mapping[str, Any]) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def explored(cell: Cell) -> Explorer:
    """Every course of the fork; an action that breaks the run is left out."""
    left = list(MENU)
    known: dict[str, Any] = {}
    while True:
        rows, plan = planned(cell, "off")
        explorer = Explorer(cell, rows, plan, left)
        job, _ = make_job(plan, make_accelerator(plan.recipe.train.precision), listeners=[explorer])
        try:
            fit(replace(job, advisor=explorer))
        except TrainingError:
            if explorer.now not in left:
                raise
            known |= explorer.right
            left = [name for name in left if name not in (*known, explorer.now)]
        else:
            explorer.right = {**known, **explorer.right}
            return explorer


@dataclass(frozen=True)
class From:
    """A policy that does nothing before a step."""

    policy: Policy
    step: int

    def decide(self, sight: Sight) -> Remedy | Stop | Continue | None:
        return Continue("before the fork") if sight.step < self.step else self.policy.decide(sight)


def run_one(cell: Cell) -> dict[str, Any]:
    torch.set_num_threads(1)
    explorer = explored(cell)
    rows, plan = planned(cell, "adapt")
    scorer = Explorer(cell, rows, plan, ())
    job, _ = make_job(plan, make_accelerator(plan.recipe.train.precision), listeners=[scorer])
    controller = job.advisor
    assert isinstance(controller, Controller)
    controller.policy = From(controller.policy, explorer.step)
    trained = fit(job)
    at_fork = next(one for one in scorer.run.guard.snapshots if one.step == explorer.step)
    same = np.array_equal(at_fork.valid_logits, explorer.logits)
    right = {**explorer.right, ADAPT: scorer.score()}
    return {
        **{name: np.packbits(one).tobytes().hex() for name, one in right.items()},
        "tested": len(rows.tested),
        "step": explorer.step,
        "planned_steps": plan.plan.steps,
        "verdict": explorer.verdict,
        "trials": steps_and_trials("adapt", trained, controller, cell["seed"])["trials"],
        "same_at_fork": same,
        "commit": commit(),
    }


def right_of(line: Line) -> dict[str, Any]:
    """Which test rows each course has right, without an action that broke the run."""
    return {
        name: np.unpackbits(np.frombuffer(bytes.fromhex(line[name]), np.uint8))[: line["tested"]]
        for name in (*COURSES, ADAPT)
        if line.get(name)
    }


def regret(right: Mapping[str, Any], chosen: str) -> float:
    """Points by which a course is behind the best one of the menu. The best is found on one half of
    the test rows and measured on the other, both ways round: the best of nine on the rows that
    judge it is partly luck."""
    rows = len(right[chosen])
    first = np.zeros(rows, dtype=bool)
    first[generator(0, "benchmark", "halves").permutation(rows)[: rows // 2]] = True
    menu = [one for name, one in right.items() if name != ADAPT]
    behind = [
        max(menu, key=lambda one: one[half].mean())[~half].mean() - right[chosen][~half].mean()
        for half in (first, ~first)
    ]
    return 100 * float(np.mean(behind))


def regrets(lines: Lines, course: str = ADAPT) -> list[float]:
    return [regret(right, course) for line in lines if course in (right := right_of(line))]


def gain(line: Line, course: str) -> float | None:
    """Points of accuracy over going on."""
    right = right_of(line)
    if course not in right:
        return None
    return 100 * float(right[course].mean() - right[GO_ON].mean())


def finding(lines: Lines) -> str:
    if not lines:
        return ""
    behind = regrets(lines)
    median, mean, low, high = statistics.median(behind), *mean_interval(behind)
    sets = len({line["data"] for line in lines})
    others = []
    for words, name in (("going on", GO_ON), ("stopping", STOP)):
        found = regrets(lines, name)
        middle = number(statistics.median(found))
        others.append(f"{words}: median {middle}, mean {number(statistics.fmean(found))}")
    return (
        f"At {len(lines)} forks on {sets} sets, the accuracy of `adapt` is {number(median)} points "
        f"(median; mean {number(mean)}, 95 % CI {interval(low, high)}) below the best of up to "
        f"nine continuations ({'; '.join(others)})."
    )


def by_fault(lines: Lines) -> str:
    """The regret of the policy, of going on and of stopping, and what the policy tried."""
    rows = []
    for fault, some in _by_fault(lines).items():
        middle, low, high = mean_interval(regrets(some))
        limits = "" if np.isnan(low) else f" ({interval(low, high, sign=True)})"
        plain = [number(statistics.fmean(regrets(some, name))) for name in (GO_ON, STOP)]
        tried = Counter(one for line in some for one in line["trials"].split("; ") if one)
        told = ", ".join(f"{name} ({count})" for name, count in tried.most_common())
        median = number(statistics.median(regrets(some)))
        rows.append([fault, str(len(some)), median, number(middle) + limits, *plain, told])
    heads = ["Fault", "Forks", "Median regret of `adapt`, points", "Mean (95 % CI)"]
    return markdown([*heads, "Mean of going on", "Mean of stopping", "What `adapt` tried"], rows)


def by_action(lines: Lines) -> str:
    """What each continuation gains over going on."""
    rows = []
    for fault, some in _by_fault(lines).items():
        found = [[gain(line, name) for line in some] for name in (STOP, *MENU, ADAPT)]
        means = [[one for one in values if one is not None] for values in found]
        rows.append(
            [fault, *(number(statistics.fmean(one), sign=True) if one else "" for one in means)]
        )
    heading = "Mean gain of each continuation over going on, points of accuracy:"
    return f"{heading}\n\n{markdown(['Fault', STOP, *MENU, ADAPT], rows)}"


def largest(lines: Lines) -> str:
    """The forks at which the policy is furthest behind."""
    rows = []
    for line in sorted(lines, key=lambda one: -regrets([one])[0]):
        [behind] = regrets([line])
        if behind < 1:
            break
        right = {name: one.mean() for name, one in right_of(line).items() if name != ADAPT}
        best = max(right, key=lambda name: right[name])
        at = f"{line['step']} of {line['planned_steps']}"
        where = [line["fault"], line["data"], at, line["verdict"].replace("_", " ")]
        rows.append([*where, number(behind), best, line["trials"] or "nothing"])
    if not rows:
        return ""
    heads = [
        "Fault",
        "Set",
        "Fork at update",
        "Verdict there",
        "Regret, points",
        "Best continuation",
    ]
    heading = "All forks with a regret of at least one point:"
    return f"{heading}\n\n{markdown([*heads, 'What `adapt` tried'], rows)}"


def _by_fault(lines: Lines) -> dict[str, Lines]:
    faults = {**TEXT_FAULTS, **IMAGE_FAULTS}
    return {fault: some for fault in faults if (some := pick(lines, fault=fault))}


CLAIM = Claim(
    NAME,
    "Verdicts",
    "The policy `adapt` against the best single action",
    f"""\
Runs with the faults of [what `adapt` repairs](repairs.md), on fresh seeds: MiniLM on {TEXT_ROWS}
texts of four sets with a validation set, and a small network on 1,200 images of two sets. The fork
of a run is the evaluation nearest to a quarter or half of its planned updates. Up to nine
continuations start there: going on to the planned end, stopping, and each action in the second
table that changes something ("lower" and "higher learning rate": a third of it or three times it,
or the middle of the usual range if that is further; "regularization": label smoothing of 0.1 for
texts, stronger augmentation for images; "robust loss": generalized cross-entropy). In the tenth,
`adapt` decides from the fork on; with wrong labels, it also weights rows from the beginning. Each
continuation keeps a checkpoint as a run does, which is scored on {TESTED:,} test rows that are used
for no decision. **Regret** is how many points of accuracy a continuation is below the best of the
others. The best is chosen on one half of the test rows and scored on the other, and the reverse:
choosing and scoring on the same rows would favour it. A regret can therefore be negative.""",
    cells,
    finding,
    [by_fault, by_action, largest],
    """\
`adapt` may act earlier in a full run. Each continuation takes one action and never undoes it. No
action changes the labels or the class balance. That a restart of a run that gains must show a gain
in time was decided after `adapt` had a regret of 1.9 points on MNIST with a learning rate × 10; the
cells of MNIST and `instructions`, which it concerns, were then measured again.""",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
