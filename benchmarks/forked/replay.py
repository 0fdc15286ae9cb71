"""What a policy's advice at each fork is worth, read off the recorded continuations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from recorded.store import PLAIN, ROWS

from forked.courses import course, pool_of
from forked.menu import CONTINUE, STOP, kind_of
from forked.stand_in import rows_of
from holdfast.control.choice import is_better
from holdfast.core.records import Branch, Evidence, Remedy, Snapshot, Verdict
from holdfast.core.seeds import generator
from holdfast.monitor.evidence import validation_losses

Advise = Callable[["Forked"], str]


@dataclass(frozen=True)
class Outcome:
    """A course from a fork to its end: which test rows its kept state has right [n] and how much
    each counts, their loss after the validation rows' temperature, the looks of its branch and the
    kept one among all."""

    action: str
    right: Any
    loss: float
    looks: tuple[int, ...]
    kept: int
    weights: Any = None

    @property
    def accuracy(self) -> float:
        """Of skewed rows the mean recall of the classes."""
        return self.on(np.ones(len(self.right), dtype=bool))

    def on(self, rows: Any) -> float:
        """That of some of the rows [n]."""
        weights = None if self.weights is None else self.weights[rows]
        return float(np.average(self.right[rows], weights=weights))


@dataclass(frozen=True)
class Forked:
    """A look of a recorded run and every course that it can take from there; going on and stopping
    are among them."""

    run: Recorded
    step: int
    outcomes: Mapping[str, Outcome]

    @property
    def history(self) -> tuple[Snapshot, ...]:
        """The run up to the fork."""
        trunk = self.outcomes[CONTINUE].looks
        return tuple(
            self.run.snapshots[i] for i in trunk if self.run.snapshots[i].step <= self.step
        )

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        trunk = self.outcomes[CONTINUE].looks
        return tuple(self.run.verdicts[i] for i in trunk if self.run.snapshots[i].step <= self.step)

    @property
    def share(self) -> float:
        return self.step / self.run.steps

    @property
    def open(self) -> bool:
        """Whether it matters what is done: not every course ends in the same answers."""
        first = self.outcomes[CONTINUE].right
        return any(not np.array_equal(one.right, first) for one in self.outcomes.values())

    def gain(self, action: str) -> float:
        """Points of accuracy over going on."""
        return 100 * (self.outcomes[action].accuracy - self.outcomes[CONTINUE].accuracy)

    def regret(self, action: str) -> float:
        """Points behind the best course, which is found on one half of the test rows and measured
        on the other, and the other way round: the best of eight on the rows that judge them is
        partly luck."""
        rows = len(self.outcomes[CONTINUE].right)
        first = np.zeros(rows, dtype=bool)
        first[generator(0, "benchmark", "halves").permutation(rows)[: rows // 2]] = True
        behind = []
        for half in (first, ~first):
            best = max(self.outcomes.values(), key=lambda one: one.on(half))
            behind.append(best.on(~half) - self.outcomes[action].on(~half))
        return 100 * float(np.mean(behind))

    def raw_regret(self, action: str) -> float:
        """The same against the best on the rows that judge."""
        best = max(one.accuracy for one in self.outcomes.values())
        return 100 * (best - self.outcomes[action].accuracy)

    def steps(self, action: str) -> float:
        """Updates of the run up to the fork and from there, ÷ those of going on."""
        if action == STOP:
            return self.share
        looks, snapshots = self.outcomes[action].looks, self.run.snapshots
        # Going back to an earlier look costs what was learned since.
        shared = max(snapshots[i].step for i in looks if not snapshots[i].branch.number)
        back = self.step - shared if action != CONTINUE else 0
        return (snapshots[looks[-1]].step + back) / self.run.steps

    def better(self, action: str, than: str) -> bool:
        """Whether the validation rows say, by the paired test, that this course's kept state is
        better than that of another."""
        mine, other = (self.outcomes[name].kept for name in (action, than))
        if mine == other:
            return False
        losses = validation_losses([self.run.snapshots[i] for i in (other, mine)])
        return bool(losses.size) and is_better(losses[:, 1], losses[:, 0])


@dataclass(frozen=True)
class Recorded:
    """One explored run."""

    cell: Mapping[str, Any]
    rate: float
    steps: int
    snapshots: tuple[Snapshot, ...]
    verdicts: tuple[Verdict, ...]
    found: tuple[Mapping[str, Any], ...]
    right: Any

    @cached_property
    def forks(self) -> tuple[Forked, ...]:
        by_step: dict[int, dict[str, Outcome]] = {}
        weights = by_class(self.cell) if self.cell["course"] == "skew" else None
        for one, right in zip(self.found, self.right, strict=True):
            name = one["action"]
            outcome = Outcome(name, right, one["loss"], tuple(one["looks"]), one["kept"], weights)
            by_step.setdefault(one["fork"], {})[name] = outcome
        trunk = by_step.pop(0)
        return tuple(Forked(self, step, {**trunk, **by_step[step]}) for step in sorted(by_step))


def by_class(cell: Mapping[str, Any]) -> Any:
    """How much each test row counts [n] where every class is to count the same."""
    rows = rows_of(cell["data"])
    labels = np.array([rows.labels[i] for i in pool_of(cell["data"])[0]])
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1.0 / counts[places]


def joined(first: Recorded, second: Recorded) -> Recorded:
    """Other actions of the same run, explored later."""
    at = len(first.snapshots)
    more = [
        place for place, one in enumerate(second.found) if one["action"] not in (CONTINUE, STOP)
    ]
    found = (
        {
            **second.found[place],
            "looks": [at + i for i in second.found[place]["looks"]],
            "kept": at + second.found[place]["kept"],
        }
        for place in more
    )
    trunk = [s.step for s in second.snapshots if not s.branch.number]
    known = [s.step for s in first.snapshots if not s.branch.number]
    same = trunk == known and np.array_equal(
        second.snapshots[len(trunk) - 1].valid_logits, first.snapshots[len(known) - 1].valid_logits
    )
    if not same:
        raise ValueError(f"{dict(first.cell)}: what was added later is of another run")
    return replace(
        first,
        snapshots=(*first.snapshots, *second.snapshots),
        verdicts=(*first.verdicts, *second.verdicts),
        found=(*first.found, *found),
        right=np.concatenate([first.right, second.right[more]]),
    )


def read(path: Path) -> Recorded:
    with np.load(path) as kept:
        told = json.loads(str(kept["told"]))
        held = {name: kept[name] for name in ROWS if name in kept.files}
        right = np.unpackbits(kept["right"], axis=1)[:, : told["tested"]].astype(bool)
    snapshots = tuple(
        Snapshot(
            **{name: look[name] for name in PLAIN},
            **{name: rows[i] for name, rows in held.items()},
            planned_steps=look["planned_steps"],
            branch=Branch(*look["branch"]),
        )
        for i, look in enumerate(told["looks"])
    )
    return Recorded(
        told["cell"],
        told["rate"],
        told["steps"],
        snapshots,
        tuple(_verdict(look["verdict"]) for look in told["looks"]),
        tuple(told["found"]),
        right,
    )


def _verdict(told: Mapping[str, Any]) -> Verdict:
    return Verdict(
        **{
            **told,
            "evidence": tuple(Evidence(**one) for one in told["evidence"]),
            "remedies": tuple(Remedy(one["do"], tuple(one["set"])) for one in told["remedies"]),
        }
    )


def advisor_of(policy: str, run: Recorded) -> Any:
    """The advisor that a recipe's ``control.policy`` names, as this run would have it."""
    from holdfast.fits.compose import make_training_plan
    from holdfast.fits.fit import make_job
    from holdfast.training.machine.machine import make_accelerator

    made = course(run.cell, tested=False)
    ready = make_training_plan(
        made.case.prepared, made.train, made.valid, {"control.policy": policy}
    )
    return make_job(ready, make_accelerator("float32"))[0].advisor


def asked(policy: str, run: Recorded) -> dict[int, str]:
    """What a policy would do at each fork of the run as it went: at each look it is asked, and what
    it advises at an earlier one is not done, nor remembered by it."""
    advisor, answers = advisor_of(policy, run), {}
    forks = {one.step: one for one in run.forks}
    last = run.forks[-1]
    for place, verdict in enumerate(last.verdicts):
        history = last.history[: place + 1]
        if advisor is None:
            advice: Sequence[Any] = ()
        else:
            before = advisor.state_dict()
            advice = advisor.decide(verdict, history)
            if any(type(one).__name__ != "Continue" for one in advice):
                advisor.load_state_dict(before)
        if history[-1].step in forks:
            name = kind_of(advice, history[-1].step)
            known = forks[history[-1].step].outcomes
            answers[history[-1].step] = name if name in known else CONTINUE
    return answers
