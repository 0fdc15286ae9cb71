"""The guard's engine: observe → diagnose → decide → act, and remember, in any trainer.

    evaluation
     ├─ observe                 the trainer takes a snapshot
     ├─ choose                  is this the best checkpoint so far? then save its weights
     ├─ diagnose                the snapshots of the live branch → a verdict
     ├─ decide                  verdict and history → actions, by the advisor, if there is one
     ├─ restore points          where the advisor may still go back to this evaluation
     └─ act                     each action, by a table from its class

Our loop (``training/run.py``) and other trainers (``plugins/trainers``) differ only in who
measures, whose weights are copied, and what can be changed during training. ``GuardedTrainer``
contains exactly these differences.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from holdfast.core.actions import Action, Continue, RollBack, Stop, from_record, to_record
from holdfast.core.branches import snapshots_on_branch
from holdfast.core.errors import RunError
from holdfast.core.events import Advisor, Explains, Monitor, Returns, RollsBack
from holdfast.core.records import FIRST_BRANCH, Branch, Snapshot, Verdict
from holdfast.training.journal import Journal
from holdfast.training.restore import RestorePoint, SavedWeights

Appliers = Mapping[type[Any], Callable[[Any], None]]


class GuardedTrainer(Protocol):
    """A run under guard, as the engine sees any trainer."""

    @property
    def step(self) -> int:
        """The number of updates so far."""
        ...

    @property
    def appliers(self) -> Appliers:
        """The actions that can be applied during training: an action's class to the function that
        applies it. ``Stop``, ``Continue`` and ``RollBack`` belong to the engine."""
        ...

    def observe(self) -> Snapshot:
        """Measure the training sample and the validation rows."""
        ...

    def save_weights(self) -> SavedWeights:
        """The weights that were just measured."""
        ...

    def restore_point(self) -> RestorePoint | None:
        """The restore point of the current evaluation; ``None`` where the state of the training is
        not accessible."""
        ...

    def restore_from(self, point: RestorePoint) -> None:
        """Continue from ``point`` as if nothing had happened after it."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """How a run is judged: ``choose`` gives the index in a history of the checkpoint to keep, which
    is the newest or the one kept before. Without an ``advisor`` a run is only observed."""

    monitor: Monitor
    choose: Callable[[Sequence[Snapshot]], int]
    advisor: Advisor | None = None


class GuardEngine:
    """What the guard knows about one run, and what it does at each evaluation.

    ``snapshots`` are all that were taken, ``history`` those of the live branch, on which every
    decision is based. ``best`` is the best checkpoint so far. ``log_line`` receives each change of
    the verdict as a line.
    """

    def __init__(
        self,
        guarded: GuardedTrainer,
        rules: Rules,
        journal: Journal,
        log_line: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.rules = rules
        self.journal = journal
        self.snapshots: list[Snapshot] = []
        self.branch = FIRST_BRANCH
        self.best = SavedWeights()
        self.restore_points: dict[int, RestorePoint] = {}
        self.abandoned_points: dict[tuple[int, int], dict[int, RestorePoint]] = {}
        self.verdict: Verdict | None = None
        self.actions: list[tuple[int, Action]] = []
        self.stop_because: str | None = None
        self.evaluate_s = self.guard_s = 0.0
        self._guarded = guarded
        self._log_line = log_line
        self._appliers: Appliers = {
            Stop: self._stop,
            Continue: lambda _: None,
            RollBack: self._roll_back_to,
            **guarded.appliers,
        }

    @property
    def history(self) -> tuple[Snapshot, ...]:
        """The snapshots of the live branch, oldest first, with increasing steps."""
        return snapshots_on_branch(self.snapshots, self.branch)

    def evaluate(self) -> None:
        """Run one evaluation."""
        start = time.perf_counter()
        snapshot = self._guarded.observe()
        self.snapshots.append(snapshot)
        self.journal.write("snapshot", **snapshot.summary())
        observed_at = time.perf_counter()
        self.evaluate_s += observed_at - start
        # First, since the verdict names the checkpoint that is kept.
        history = self.history
        if self.rules.choose(history) == len(history) - 1:
            self.best = self._guarded.save_weights()
        self._diagnose()
        advice = self._decide()
        # Before any action, so that it can be undone.
        self._save_restore_point()
        for action in advice:
            self.act(action)
        self.abandoned_points = {
            key: held for key, held in self.abandoned_points.items() if key == self.returns_to()
        }
        self.guard_s += time.perf_counter() - observed_at

    def act(self, action: Action) -> None:
        """Apply one action and record it with its reason.

        Raises ``RunError`` for an action that the trainer cannot apply.
        """
        apply = self._appliers.get(type(action))
        if apply is None:
            rule = "returned an action that this trainer cannot apply"
            remedy = f"Possible: {', '.join(sorted(kind.__name__ for kind in self._appliers))}."
            raise RunError("the advisor", rule, type(action).__name__, remedy)
        # Read it first: a rollback changes it.
        step = self._guarded.step
        apply(action)
        if isinstance(action, RollBack):
            self.record(step, action, branch=self.branch)
            # The live history has changed, and the verdict may have.
            self._diagnose()
        else:
            self.record(step, action)

    def record(self, step: int, action: Action, **more: object) -> None:
        """Record what was done at ``step``."""
        self.actions.append((step, action))
        self.journal.write("action", step, **to_record(action), **more)

    def update_verdict(self) -> None:
        """Compute the verdict of the current history. It is a function of it, so no state keeps
        it."""
        history = self.history
        self.verdict = self.rules.monitor(history, self.best.step) if history else None

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs, in types that the weights-only loader reads; ``best`` and the
        advisor's state are part of a restore point."""
        records = [(step, to_record(action)) for step, action in self.actions]
        return {
            "stop_because": self.stop_because,
            "evaluate_s": self.evaluate_s,
            "guard_s": self.guard_s,
            "journal": self.journal.text,
            "history": [pack_snapshot(snapshot) for snapshot in self.snapshots],
            "branch": _branch_to_list(self.branch),
            "actions": [(s, r["action"], r["because"], r["settings"]) for s, r in records],
            "points": {step: point.to_state() for step, point in self.restore_points.items()},
            "left": [
                (*key, {step: point.to_state() for step, point in held.items()})
                for key, held in self.abandoned_points.items()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict``; the owner of the journal restores it."""
        for name in ("stop_because", "evaluate_s", "guard_s"):
            setattr(self, name, state[name])
        self.snapshots = [unpack_snapshot(packed) for packed in state["history"]]
        self.branch = Branch(*state["branch"])
        self.actions = [(step, from_record(*record)) for step, *record in state["actions"]]
        self.restore_points = {
            step: RestorePoint.from_state(point) for step, point in state["points"].items()
        }
        self.abandoned_points = {
            (branch, step): {at: RestorePoint.from_state(point) for at, point in held.items()}
            for branch, step, held in state["left"]
        }

    def _diagnose(self) -> None:
        before = self.verdict
        self.update_verdict()
        verdict = self.verdict
        assert verdict is not None
        if before is None or before.label != verdict.label:
            step = self._guarded.step
            self.journal.write("verdict", step, **verdict_line(verdict))
            self._log_line(f"step {step}: {verdict.label.replace('_', ' ')}. {verdict.because}")

    def _decide(self) -> tuple[Action, ...]:
        advisor = self.rules.advisor
        if advisor is None:
            return ()
        assert self.verdict is not None
        advice = advisor.decide(self.verdict, self.history)
        for note in advisor.notes() if isinstance(advisor, Explains) else ():
            self.journal.write("note", self._guarded.step, what="control", **note)
        return advice

    def returns_to(self) -> tuple[int, int] | None:
        """The evaluation to which the run goes back if the current trial fails."""
        advisor = self.rules.advisor
        return advisor.returns_to() if isinstance(advisor, Returns) else None

    def _save_restore_point(self) -> None:
        advisor = self.rules.advisor
        if not isinstance(advisor, RollsBack):
            return
        wanted_steps, step_now = set(advisor.restore_points(self.history)), self._guarded.step
        self.restore_points = {
            step: point for step, point in self.restore_points.items() if step in wanted_steps
        }
        point = self._guarded.restore_point() if step_now in wanted_steps else None
        if point is not None:
            self.restore_points[step_now] = point.copied()

    def _stop(self, action: Stop) -> None:
        self.stop_because = action.because

    def _roll_back_to(self, action: RollBack) -> None:
        """Open a branch at the evaluation ``to_step`` and drop what was stored for later ones; or
        return to the branch that was left, at its last evaluation."""
        if action.branch is not None:
            point = self._return_to(action.branch, action.to_step)
        else:
            point = self._branch_at(action.to_step)
        self.best = point.best
        self._guarded.restore_from(point)
        if isinstance(self.rules.advisor, RollsBack) and point.advisor is not None:
            self.rules.advisor.rolled_back(point.advisor)

    def _branch_at(self, step: int) -> RestorePoint:
        point, current = self.restore_points.get(step), (self.branch.number, self._guarded.step)
        if point is None:
            raise RunError(
                "the advisor",
                "rolls back to an evaluation without a restore point",
                step,
                "Its restore_points(history) must name this step at that evaluation and at every "
                f"later one; available now: {sorted(self.restore_points) or 'none'}.",
            )
        if current == self.returns_to() and current[1] in self.restore_points:
            self.abandoned_points[current] = dict(self.restore_points)
        parent = next(s.branch for s in self.history if s.step == step)
        # The number of a branch that was left is not used again.
        number = 1 + max(self.branch.number, *(s.branch.number for s in self.snapshots))
        self.branch = Branch(number, parent.number, step)
        self.restore_points = {at: kept for at, kept in self.restore_points.items() if at <= step}
        # Keep the point unchanged: the run may come back to it, and training writes into its
        # state.
        return point.copied()

    def _return_to(self, branch: int, step: int) -> RestorePoint:
        points = self.abandoned_points.get((branch, step), {})
        if step not in points:
            raise RunError(
                "the advisor",
                "returns to a branch without a restore point",
                (branch, step),
                "Its returns_to() must name it from the evaluation at which it is left; available "
                f"now: {sorted(self.abandoned_points) or 'none'}.",
            )
        self.restore_points = dict(points)
        branches = {look.branch.number: look.branch for look in self.snapshots}
        self.branch = branches[branch]
        return points[step].copied()


def verdict_line(verdict: Verdict) -> dict[str, Any]:
    """The record of a verdict in ``events.jsonl``."""
    return {
        "label": verdict.label,
        "because": verdict.because,
        "confidence": verdict.confidence,
        "since_step": verdict.since_step,
        "cause": verdict.cause,
        "evidence": list(verdict.evidence),
        "remedies": list(verdict.remedies),
        "harm": verdict.harm,
    }


def pack_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot in types that the weights-only loader reads."""
    fields = {name: getattr(snapshot, name) for name in Snapshot.__slots__}
    arrays = {
        name: torch.from_numpy(np.ascontiguousarray(value))
        for name, value in fields.items()
        if isinstance(value, np.ndarray)
    }
    return {**fields, **arrays, "branch": _branch_to_list(snapshot.branch)}


def unpack_snapshot(packed: Mapping[str, Any]) -> Snapshot:
    """A snapshot from ``pack_snapshot``."""
    fields: dict[str, Any] = {
        name: value.numpy() if torch.is_tensor(value) else value for name, value in packed.items()
    }
    return Snapshot(**{**fields, "branch": Branch(*packed["branch"])})


def _branch_to_list(branch: Branch) -> list[int | None]:
    return [branch.number, branch.parent, branch.from_step]
