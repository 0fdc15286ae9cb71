"""One run, and from each of three looks every action to the end: one fit, by going back.

The run first goes to its end as it is. Then it is put back into a fork (the restore point that the
guard keeps of a look, from which a run goes on as if nothing had come after it), takes an action,
goes to the end, and so on. What each course would keep is chosen as a run chooses it, on its own
branch, and scored on the test rows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recorded.store import PLAIN, ROWS

from forked.courses import LOOKS, Course
from forked.menu import CONTINUE, MENU, STOP, Fork, menu
from holdfast.core.actions import RollBack, Stop, to_record
from holdfast.core.branches import snapshots_on_branch
from holdfast.core.errors import TrainingError
from holdfast.core.records import Snapshot, Verdict
from holdfast.fits.compose import make_training_plan
from holdfast.fits.fit import make_job
from holdfast.plan.defaults import FINETUNE
from holdfast.stats.temperature import best_temperature, losses_at
from holdfast.training.engine import verdict_line
from holdfast.training.loop import fit
from holdfast.training.machine.machine import make_accelerator

# Of the planned steps.
FORKS = (0.25, 0.5, 0.75)
Task = tuple[int, str]


@dataclass
class Found:
    """What a continuation came to: the places of its looks among all that were taken, oldest first,
    the one that is kept, and which test rows that state has right."""

    looks: list[int]
    kept: int
    right: Any
    loss: float
    actions: list[Any] = field(default_factory=list)


class Explorer:
    """The advisor that takes every action, and the listener that scores what comes of it."""

    name = "explorer"

    def __init__(
        self, made: Course, ready: Any, names: Collection[str], skip: Sequence[Task]
    ) -> None:
        self.course, self.ready, self.names, self.skip = made, ready, names, set(skip)
        self.run: Any = None
        self.now: Task | None = None
        self.verdicts: list[Verdict] = []
        self.found: dict[Task, Found] = {}
        self.menus: dict[int, dict[str, Any]] = {}
        self.todo: list[tuple[int, Task, Any]] = []
        looks = np.array(ready.plan.evaluate_at[:-1])
        at = [int(looks[np.abs(looks - share * ready.plan.steps).argmin()]) for share in FORKS]
        self.at = sorted({step for step in at if step > 0})

    def run_start(self, run: Any) -> None:
        self.run = run

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Any, ...]:
        self.verdicts.append(verdict)
        step = history[-1].step
        if self.now is None and step in self.at:
            self._open(verdict, history)
        if step < (history[-1].planned_steps or self.ready.plan.steps):
            return ()
        self.found[self.now or (0, CONTINUE)] = self._score(history)
        if self.now is None:
            self._plan()
        if not self.todo:
            return (Stop("every action was taken"),)
        to, self.now, advice = self.todo.pop(0)
        self.found.pop(self.now, None)
        changes = [one for one in advice if not isinstance(one, RollBack)]
        return (RollBack("to a fork", to), *changes)

    def _open(self, verdict: Verdict, history: Sequence[Snapshot]) -> None:
        """A fork: what would be legal here, and what stopping here gives."""
        fork = Fork(
            history,
            verdict,
            self.run.best.step,
            self.ready.recipe.train.learning_rate,
            self.ready.usual_rates,
            self.ready.plan.steps,
            max(1, round(self.ready.plan.steps / LOOKS)),
            self.ready.plan.phases[-1].name == FINETUNE,
        )
        step = fork.now
        self.menus[step] = {name: made for name, made in menu(fork).items() if name in self.names}
        self.found[step, STOP] = self._score(history)

    def _plan(self) -> None:
        """The latest first: going back drops what was kept of later looks."""
        for step, entries in self.menus.items():
            for name, advice in entries.items():
                if (step, name) not in self.skip:
                    back = next((a.to_step for a in advice if isinstance(a, RollBack)), step)
                    self.todo.append((back, (step, name), advice))
        self.todo.sort(key=lambda one: -one[0])

    def restore_points(self, history: Sequence[Snapshot]) -> set[int]:
        if self.now is None and not self.todo:
            return {s.step for s in history}
        targets = {to for to, _, _ in self.todo}
        if self.now is not None:
            entry = self.menus[self.now[0]][self.now[1]]
            targets.add(next((a.to_step for a in entry if isinstance(a, RollBack)), self.now[0]))
        # What is on the way there must not be put in the place of what is kept.
        return {to for to in targets if to in self.run.guard.restore_points}

    def _score(self, history: Sequence[Snapshot]) -> Found:
        """The state that is kept so far, on the test rows; the run is as before afterwards."""
        run, test = self.run, self.course.case.test
        snapshots = run.guard.snapshots
        place = {id(s): i for i, s in enumerate(snapshots)}
        looks = [place[id(s)] for s in snapshots_on_branch(snapshots, history[-1].branch)]
        kept = next(i for i in looks if snapshots[i].step == run.best.step)
        before, random = run.copy_tensors(), torch.get_rng_state()
        run.load_tensors(run.best.tensors)
        _, logits = run.observer.measure(run.network, test, np.arange(len(test)))
        run.load_tensors(before)
        torch.set_rng_state(random)
        valid = np.asarray(snapshots[kept].valid_logits)
        temperature = best_temperature(valid, run.job.valid.labels, smoothing=1)[0]
        loss = float(losses_at(logits, test.labels, temperature).mean())
        return Found(looks, kept, logits.argmax(axis=1) == test.labels, loss)

    def rolled_back(self, state: Mapping[str, Any]) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def explore(
    cell: Mapping[str, Any], made: Course, to: Path, names: Collection[str] = tuple(MENU)
) -> dict[str, Any]:
    """Record the actions of these ``names`` at every fork of a run into ``to``; what breaks is left
    out and told."""
    broken: list[Task] = []
    while True:
        ready = make_training_plan(
            made.case.prepared, made.train, made.valid, {"control.policy": "off"}
        )
        explorer = Explorer(made, ready, names, broken)
        job, _ = make_job(ready, make_accelerator("float32"), listeners=[explorer])
        job = replace(job, advisor=explorer)
        try:
            fit(job)
            break
        except TrainingError:
            if explorer.now is None or explorer.now in broken:
                raise
            broken.append(explorer.now)
    _write(cell, explorer, to, broken)
    return {
        "continuations": sum(name not in (CONTINUE, STOP) for _, name in explorer.found),
        "forks": len(explorer.menus),
        "broken": len(broken),
        "looks": len(explorer.run.guard.snapshots),
    }


def _write(cell: Mapping[str, Any], explorer: Explorer, to: Path, broken: Sequence[Task]) -> None:
    """Whole or not at all."""
    snapshots = explorer.run.guard.snapshots
    rows = {
        name: np.stack([getattr(s, name) for s in snapshots]).astype(
            bool if "correct" in name else np.float32
        )
        for name in ROWS
        if getattr(snapshots[-1], name) is not None
    }
    found = [
        {
            "fork": step,
            "action": name,
            "looks": one.looks,
            "kept": one.kept,
            "loss": one.loss,
            "taken": [to_record(a) for a in explorer.menus.get(step, {}).get(name, ())],
        }
        for (step, name), one in explorer.found.items()
    ]
    looks = [
        {
            **{name: getattr(s, name) for name in PLAIN},
            "planned_steps": s.planned_steps,
            "branch": [s.branch.number, s.branch.parent, s.branch.from_step],
            "verdict": verdict_line(v),
        }
        for s, v in zip(snapshots, explorer.verdicts, strict=True)
    ]
    told = {
        "cell": dict(cell),
        "looks": looks,
        "found": found,
        "broken": [list(one) for one in broken],
        "rate": explorer.ready.recipe.train.learning_rate,
        "steps": explorer.ready.plan.steps,
        "tested": len(explorer.course.case.test),
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    scratch = to.with_suffix(".tmp.npz")
    np.savez_compressed(
        scratch,
        told=np.array(json.dumps(told, default=_plain)),
        right=np.packbits(np.stack([one.right for one in explorer.found.values()]), axis=1),
        **rows,
    )
    scratch.rename(to)


def _plain(value: Any) -> Any:
    """Records within records, and NumPy's numbers."""
    if hasattr(value, "item"):
        return value.item()
    return {name: getattr(value, name) for name in value.__slots__}
