"""The advisor of a policy that acts: it prepares what the policy sees, enforces its limits, and
remembers its trials. Deterministic; its state survives a resume.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.control.choice import Choose, choose_across_branches
from holdfast.control.policy import Policy, advise
from holdfast.control.sight import Can, LossDifference, RemedyTrial, Sight, from_json
from holdfast.control.stop_rules import StoppingRule
from holdfast.core.actions import Action, RollBack, ScaleLearningRate, Stop, to_record
from holdfast.core.records import Floats, Snapshot, Verdict, finite, to_json
from holdfast.monitor.evidence import is_at_floor, validation_labels, validation_losses
from holdfast.stats.paired_tests import paired_t

# Each trial is one more choice on the validation rows.
MOST_TRIALS = 3
# As a share of the planned updates: the limit of a run with all its trials.
MOST_STEPS = 1.3
NO_ACTION = "no action"


@dataclass(frozen=True, slots=True)
class ControlledPlan:
    """What a controller knows about its run before the first step: the ``evaluation_steps`` of its
    plan, the peak ``rate`` and the ``usual_rates``, the ``class_skew`` of the training rows'
    classes, its ``capabilities``, the sentences of ``findings`` that name leaking rows, the
    ``steps_per_epoch``, the user's ``step_limit`` on all updates, and the ``first_end``: the first
    step of the last phase, before which no run can end."""

    evaluation_steps: tuple[int, ...]
    capabilities: Can
    rate: float | None = None
    usual_rates: tuple[float, float] | None = None
    class_skew: float | None = None
    findings: tuple[str, ...] = ()
    steps_per_epoch: int | None = None
    step_limit: int | None = None
    first_end: int = 1

    @property
    def steps(self) -> int:
        return self.evaluation_steps[-1]

    @property
    def max_steps(self) -> int:
        most = math.floor(MOST_STEPS * self.steps)
        return max(self.steps, most if self.step_limit is None else min(most, self.step_limit))

    @property
    def steps_between_evaluations(self) -> int:
        gaps = np.diff(self.evaluation_steps)
        return int(np.median(gaps)) if len(gaps) else 1


@dataclass(slots=True)
class ControllerMemory:
    """What is remembered between evaluations, even when the run goes back. ``reference_losses`` are
    the validation losses [n] of the checkpoint that was kept when the current trial began,
    ``best_step_before`` its step; ``planned_ends`` are the steps at which the run would end from
    each of the ``restore_steps``."""

    steps_taken: int = 0
    position: int = 0
    evaluations: int = 0
    best_step: int = 0
    best_step_before: int = 0
    restore_steps: tuple[int, ...] = (0,)
    trial: RemedyTrial | None = None
    ended_trials: tuple[RemedyTrial, ...] = ()
    reference_losses: Floats | None = None
    planned_ends: tuple[int, ...] = (0,)


class Controller:
    """The advisor of ``control.policy=adapt`` and of a user's own policy.

    Parameters
    ----------
    policy : decides by what it sees.
    rule : when to stop a run without a trial.
    trial_rule : when a trial ends: no trial ends because a gain is unlikely, since that would be
        computed for the original plan.
    choose : the index in a history of the checkpoint to keep, without a trial.
    course : what is known about the run.
    """

    def __init__(
        self,
        policy: Policy,
        rule: StoppingRule,
        trial_rule: StoppingRule,
        choose: Choose,
        course: ControlledPlan,
    ) -> None:
        self.policy = policy
        self.plan = course
        self._rules = (rule, trial_rule)
        self._choose = choose
        self._memory = ControllerMemory()
        self._notes: list[dict[str, Any]] = []

    @property
    def trial(self) -> RemedyTrial | None:
        """The trial in progress."""
        return self._memory.trial

    @property
    def trials(self) -> tuple[RemedyTrial, ...]:
        """The trials of the run; the last one may be in progress."""
        now = self._memory
        return (*now.ended_trials, *([now.trial] if now.trial is not None else []))

    @property
    def restart_factor(self) -> float:
        """By what the learning rate of the whole run is multiplied, since a restart at step 0 that
        is kept or in progress; 1 without one."""
        restarts = [
            one for one in self.trials if not one.from_step and (one.kept or one is self.trial)
        ]
        return math.prod(
            float(record["settings"]["factor"])
            for one in restarts
            for record in one.done
            if record["action"] == ScaleLearningRate.__name__
        )

    @property
    def steps_taken(self) -> int:
        """Updates taken in all branches, up to the last evaluation."""
        return self._memory.steps_taken

    def choose(self, history: Sequence[Snapshot]) -> int:
        """The index of the checkpoint to keep: of a trial only one that is better than the
        checkpoint kept before it."""
        return choose_across_branches(history, self._choose, self._memory.reference_losses)

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        sight = self._sight(verdict, history)
        advice, memory = advise(self.policy, sight), self._memory
        if advice.trial is not None and advice.trial != sight.trial:
            failed = sight.trial is not None and not sight.trial.kept
            if not failed:
                place = next(i for i, s in enumerate(history) if s.step == memory.best_step)
                losses = validation_losses(history)
                memory.reference_losses, memory.best_step_before = (
                    np.array(losses[:, place]),
                    memory.best_step,
                )
        elif advice.trial is None:
            memory.reference_losses = None
        memory.trial, memory.ended_trials = advice.trial, advice.ended_trials
        restore_steps = [one.to_step for one in advice.actions if isinstance(one, RollBack)]
        memory.position = restore_steps[-1] if restore_steps else memory.position
        names = ", ".join(type(one).__name__ for one in advice.actions)
        self._notes.append(
            {
                "because": advice.actions[0].because
                if advice.actions
                else advice.continue_because or NO_ACTION,
                "chosen": names or "continue",
                "sight": sight.to_record(),
                "actions": [to_record(one) for one in advice.actions],
            }
        )
        return advice.actions

    def notes(self) -> list[dict[str, Any]]:
        """The notes of the evaluations since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def restore_points(self, history: Sequence[Snapshot]) -> tuple[int, ...]:
        """The steps from which a trial may begin: of the first, the best and this evaluation."""
        return self._memory.restore_steps

    def returns_to(self) -> tuple[int, int] | None:
        """The branch and the step of the evaluation at which the current trial began. The run goes
        back there if the trial fails."""
        trial = self._memory.trial
        return (trial.branch, trial.step) if trial is not None else None

    def rolled_back(self, state: dict[str, Any]) -> None:
        for rule, rule_state in zip(self._rules, state["rules"], strict=True):
            rule.load_state_dict(rule_state)

    def state_dict(self) -> dict[str, Any]:
        memory = self._memory
        return {
            "rules": [rule.state_dict() for rule in self._rules],
            "now": [
                memory.steps_taken,
                memory.position,
                memory.evaluations,
                memory.best_step,
                memory.best_step_before,
                list(memory.restore_steps),
            ],
            "plans": list(memory.planned_ends),
            "trials": [to_json(one) for one in (memory.trial, *memory.ended_trials)],
            "reference": None
            if memory.reference_losses is None
            else memory.reference_losses.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rolled_back(state)
        steps_taken, position, evaluations, best_step, best_step_before, restore_steps = state[
            "now"
        ]
        trial, *ended_trials = (from_json(RemedyTrial, one) for one in state["trials"])
        self._memory = ControllerMemory(
            steps_taken,
            position,
            evaluations,
            best_step,
            best_step_before,
            tuple(restore_steps),
            trial,
            tuple(ended_trials),
            None if state["reference"] is None else np.array(state["reference"]),
            tuple(state["plans"]),
        )

    def _advance(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[int, Stop | None]:
        """Record this evaluation; the index of the checkpoint to keep, and the ``Stop`` by which
        the run would end here."""
        memory, plan, last = self._memory, self.plan, history[-1]
        memory.steps_taken += last.step - memory.position
        memory.position, memory.evaluations = last.step, memory.evaluations + 1
        best_place = self.choose(history)
        memory.best_step = history[best_place].step
        if memory.trial is not None:
            memory.trial = replace(
                memory.trial, kept=_belongs_to_trial(memory.trial, history[best_place])
            )
        trial, planned = memory.trial, last.planned_steps or plan.steps
        if not plan.capabilities.does("RollBack"):
            memory.restore_steps = memory.planned_ends = ()
        elif trial is None or trial.kept:
            memory.restore_steps = tuple(sorted({0, memory.best_step, last.step}))
            ends = {snapshot.step: snapshot.planned_steps or plan.steps for snapshot in history}
            memory.planned_ends = tuple(ends[step] for step in memory.restore_steps)
        # Both rules count every evaluation; one of them is used.
        actions = [rule.decide(verdict, history) for rule in self._rules][trial is not None]
        stop = next((one for one in actions if isinstance(one, Stop)), None)
        if (
            stop is None
            and last.branch.number
            and memory.steps_taken >= plan.max_steps
            and last.step < planned
        ):
            stop = Stop(f"all {plan.max_steps} updates that it may take in total are used")
        return best_place, stop

    def _sight(self, verdict: Verdict, history: Sequence[Snapshot]) -> Sight:
        best_place, stop = self._advance(verdict, history)
        memory, plan, last, trial = self._memory, self.plan, history[-1], self._memory.trial
        planned = last.planned_steps or plan.steps
        kept_changes = self._kept_changes()
        notches = sum(one.get("notches", 0) for one in kept_changes["StrengthenAugmentation"])
        rate_factor = math.prod(one["factor"] for one in kept_changes["ScaleLearningRate"])
        sight = Sight(
            step=last.step,
            look=memory.evaluations - 1,
            branch=last.branch.number,
            planned=planned,
            first_planned=plan.steps,
            spent=memory.steps_taken,
            most=plan.max_steps,
            first_end=plan.first_end,
            apart=plan.steps_between_evaluations,
            label=verdict.label,
            because=verdict.because,
            confidence=verdict.confidence,
            cause=verdict.cause,
            harm=verdict.harm,
            kept_step=memory.best_step,
            kept_before=memory.best_step_before if trial is not None else None,
            can=replace(
                plan.capabilities,
                notches=max(0, plan.capabilities.notches - notches),
                frozen=plan.capabilities.frozen and not kept_changes["Unfreeze"],
            ),
            over=to_record(stop) if stop is not None else None,
            end=last.step >= planned,
            trial_looks=sum(_belongs_to_trial(trial, snapshot) for snapshot in history)
            if trial is not None
            else 0,
            rate=None if plan.rate is None else plan.rate * rate_factor,
            usual=plan.usual_rates,
            skew=plan.class_skew,
            points=memory.restore_steps,
            plans=memory.planned_ends,
            epoch=plan.steps_per_epoch,
            tried=memory.ended_trials,
            trial=trial,
            trials_left=max(0, MOST_TRIALS - len(self.trials))
            if memory.steps_taken < plan.max_steps
            else 0,
            findings=plan.findings,
        )
        return _with_measurements(
            sight, history, best_place, memory.reference_losses if trial is not None else None
        )

    def _kept_changes(self) -> dict[str, list[Mapping[str, Any]]]:
        """The settings of the changes of trials that still apply at this evaluation, by action."""
        trial, settings = self._memory.trial, defaultdict(list)
        kept_trials = [one for one in self._memory.ended_trials if one.kept]
        if trial is not None:
            # Going back to before a change has undone it.
            kept_trials = [one for one in kept_trials if one.from_step < trial.from_step] + [trial]
        for one in kept_trials:
            for record in one.done:
                settings[record["action"]].append(record["settings"])
        return settings


def _with_measurements(
    sight: Sight, history: Sequence[Snapshot], best_place: int, reference: Floats | None
) -> Sight:
    """Add this evaluation's measurements, compared with the first evaluation, the one at
    ``best_place`` and the losses [n] of the ``reference``."""
    last = history[-1]
    chance, silent = _class_statistics(last)
    measured = replace(
        sight,
        train_loss=finite(last.train_loss),
        first_train=finite(history[0].train_loss),
        at_floor=bool(last.train_losses.size) and is_at_floor(last),
        chance=chance,
        silent=silent,
        valid_rows=int(last.valid_losses.size),
        metrics={name: finite(float(value)) for name, value in last.valid_metrics.items()},
    )
    if not measured.valid_rows:
        return measured
    losses = validation_losses(history)
    return replace(
        measured,
        loss=finite(losses[:, -1].mean()),
        against_first=_loss_difference(losses, losses[:, 0]),
        against_kept=_loss_difference(losses, losses[:, best_place]),
        against_before=LossDifference()
        if reference is None
        else _loss_difference(losses, reference),
    )


def _belongs_to_trial(trial: RemedyTrial, snapshot: Snapshot) -> bool:
    """Whether an evaluation belongs to the trial: it is of a later branch or, where the run cannot
    go back, of a later step."""
    if snapshot.branch.number > trial.branch:
        return snapshot.step > trial.from_step
    return snapshot.branch.number == trial.branch and snapshot.step > trial.step


def _class_statistics(snapshot: Snapshot) -> tuple[float | None, float | None]:
    """Two facts about the classes of the validation rows, where they are known: the loss of always
    predicting their frequencies, and the share of classes that are never predicted."""
    has_labels = (
        snapshot.step and snapshot.valid_losses.size and np.isfinite(snapshot.valid_losses).all()
    )
    labels = validation_labels(snapshot) if has_labels else None
    if labels is None:
        return None, None
    shares = np.bincount(labels) / len(labels)
    chance = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    predicted_classes = np.unique(np.asarray(snapshot.valid_logits).argmax(axis=1))
    return chance, float(1 - np.isin(np.unique(labels), predicted_classes).mean())


def _loss_difference(losses: Floats, reference: Floats) -> LossDifference:
    difference = paired_t(losses[:, -1], reference)
    return LossDifference(
        *map(finite, (difference.value, difference.low, difference.high, difference.above))
    )
