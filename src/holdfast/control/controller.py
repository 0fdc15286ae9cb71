"""The advisor of a policy that acts: looks at the run for it, holds it to its bounds, and remembers
what was tried. Deterministic; its state survives a resume.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.control.choice import Choose, of_branches
from holdfast.control.policy import Policy, advise
from holdfast.control.sight import Can, LossDifference, RemedyTrial, Sight, revived
from holdfast.control.stop_rules import StoppingRule
from holdfast.core.actions import Action, RollBack, Stop, to_record
from holdfast.core.records import Floats, Snapshot, Verdict, finite, to_json
from holdfast.monitor.evidence import at_floor, validation_labels, validation_losses
from holdfast.stats.paired_tests import paired_t

# Each of them is a further choice on the validation rows.
MOST_TRIALS = 3
# Of the planned updates: what a run may take with all its trials.
MOST_STEPS = 1.3
NOTHING = "nothing is done"


@dataclass(frozen=True, slots=True)
class RunCourse:
    """What a controller knows of its run before the first step: the ``looks`` of its plan, the peak
    ``rate`` and the ``usual`` ones, the ``skew`` of the training rows' classes, what it ``can`` do,
    the sentences of ``findings`` that say which rows leak, the updates of an ``epoch``, and the
    ``limit`` that the user has set to all updates."""

    looks: tuple[int, ...]
    can: Can
    rate: float | None = None
    usual: tuple[float, float] | None = None
    skew: float | None = None
    findings: tuple[str, ...] = ()
    epoch: int | None = None
    limit: int | None = None

    @property
    def steps(self) -> int:
        return self.looks[-1]

    @property
    def most(self) -> int:
        most = math.floor(MOST_STEPS * self.steps)
        return max(self.steps, most if self.limit is None else min(most, self.limit))

    @property
    def apart(self) -> int:
        gaps = np.diff(self.looks)
        return int(np.median(gaps)) if len(gaps) else 1


@dataclass(slots=True)
class ControllerMemory:
    """What is remembered from look to look, whatever the run goes back to. ``reference`` are the
    validation losses [n] of the state that was kept when the present trial began, ``before`` its
    step; ``plans`` where the run would end from each of the ``points``."""

    spent: int = 0
    position: int = 0
    looks: int = 0
    kept: int = 0
    before: int = 0
    points: tuple[int, ...] = (0,)
    trial: RemedyTrial | None = None
    tried: tuple[RemedyTrial, ...] = ()
    reference: Floats | None = None
    plans: tuple[int, ...] = (0,)


class Controller:
    """The advisor of ``control.policy=adapt`` and of a policy of the user's.

    Parameters
    ----------
    policy : decides by what it sees.
    rule : when to stop a run that nothing is done about.
    trial_rule : when a trial is over: no trial ends for want of gain, which would be worked out for
        the plan as it was.
    choose : the place in a history of the state that is kept, where nothing is on trial.
    course : what is known of the run.
    """

    def __init__(
        self,
        policy: Policy,
        rule: StoppingRule,
        trial_rule: StoppingRule,
        choose: Choose,
        course: RunCourse,
    ) -> None:
        self.policy = policy
        self.course = course
        self._rules = (rule, trial_rule)
        self._plain = choose
        self._now = ControllerMemory()
        self._told: list[dict[str, Any]] = []

    @property
    def tried(self) -> tuple[RemedyTrial, ...]:
        """The trials of the run, the last of which may be going on."""
        now = self._now
        return (*now.tried, *([now.trial] if now.trial is not None else []))

    @property
    def spent(self) -> int:
        """Updates taken in all branches, up to the last look."""
        return self._now.spent

    def choose(self, history: Sequence[Snapshot]) -> int:
        """The place of the state that is kept: of a trial only one that is better than what was
        kept before it."""
        return of_branches(history, self._plain, self._now.reference)

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        sight = self._look(verdict, history)
        advice, now = advise(self.policy, sight), self._now
        if advice.trial is not None and advice.trial != sight.trial:
            failed = sight.trial is not None and not sight.trial.kept
            if not failed:
                place = next(i for i, s in enumerate(history) if s.step == now.kept)
                losses = validation_losses(history)
                now.reference, now.before = np.array(losses[:, place]), now.kept
        elif advice.trial is None:
            now.reference = None
        now.trial, now.tried = advice.trial, advice.tried
        back = [one.to_step for one in advice.actions if isinstance(one, RollBack)]
        now.position = back[-1] if back else now.position
        names = ", ".join(type(one).__name__ for one in advice.actions)
        self._told.append(
            {
                "because": advice.actions[0].because if advice.actions else advice.on or NOTHING,
                "chosen": names or "go on",
                "sight": sight.to_record(),
                "actions": [to_record(one) for one in advice.actions],
            }
        )
        return advice.actions

    def notes(self) -> list[dict[str, Any]]:
        """The notes of the looks since it was asked last."""
        found, self._told = self._told, []
        return found

    def restore_points(self, history: Sequence[Snapshot]) -> tuple[int, ...]:
        """The first look, the state that is kept, and this look, from which a trial may begin."""
        return self._now.points

    def returns_to(self) -> tuple[int, int] | None:
        """The branch and the step of the look at which the present trial was begun, to which the
        run goes back where it fails."""
        trial = self._now.trial
        return (trial.branch, trial.step) if trial is not None else None

    def rolled_back(self, state: dict[str, Any]) -> None:
        for rule, kept in zip(self._rules, state["rules"], strict=True):
            rule.load_state_dict(kept)

    def state_dict(self) -> dict[str, Any]:
        now = self._now
        return {
            "rules": [rule.state_dict() for rule in self._rules],
            "now": [now.spent, now.position, now.looks, now.kept, now.before, list(now.points)],
            "plans": list(now.plans),
            "trials": [to_json(one) for one in (now.trial, *now.tried)],
            "reference": None if now.reference is None else now.reference.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rolled_back(state)
        spent, position, looks, kept, before, points = state["now"]
        trial, *tried = (revived(RemedyTrial, one) for one in state["trials"])
        self._now = ControllerMemory(
            spent,
            position,
            looks,
            kept,
            before,
            tuple(points),
            trial,
            tuple(tried),
            None if state["reference"] is None else np.array(state["reference"]),
            tuple(state["plans"]),
        )

    def _advance(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[int, Stop | None]:
        """Remember this look; the place of the state that is kept, and the ``Stop`` by which the
        run would end here."""
        now, course, last = self._now, self.course, history[-1]
        now.spent += last.step - now.position
        now.position, now.looks = last.step, now.looks + 1
        kept = self.choose(history)
        now.kept = history[kept].step
        if now.trial is not None:
            now.trial = replace(now.trial, kept=_is_of(now.trial, history[kept]))
        trial, planned = now.trial, last.planned_steps or course.steps
        if not course.can.does("RollBack"):
            now.points = now.plans = ()
        elif trial is None or trial.kept:
            now.points = tuple(sorted({0, now.kept, last.step}))
            plans = {look.step: look.planned_steps or course.steps for look in history}
            now.plans = tuple(plans[step] for step in now.points)
        # Both count every look; one of them is heard.
        said = [rule.decide(verdict, history) for rule in self._rules][trial is not None]
        stop = next((one for one in said if isinstance(one, Stop)), None)
        if stop is None and last.branch.number and now.spent >= course.most and last.step < planned:
            stop = Stop(f"no updates are left of the {course.most} that it may take in all")
        return kept, stop

    def _look(self, verdict: Verdict, history: Sequence[Snapshot]) -> Sight:
        kept, stop = self._advance(verdict, history)
        now, course, last, trial = self._now, self.course, history[-1], self._now.trial
        planned = last.planned_steps or course.steps
        standing = self._standing()
        more = sum(one.get("notches", 0) for one in standing["StrengthenAugmentation"])
        faster = math.prod(one["factor"] for one in standing["ScaleLearningRate"])
        sight = Sight(
            step=last.step,
            look=now.looks - 1,
            branch=last.branch.number,
            planned=planned,
            first_planned=course.steps,
            spent=now.spent,
            most=course.most,
            apart=course.apart,
            label=verdict.label,
            because=verdict.because,
            confidence=verdict.confidence,
            cause=verdict.cause,
            harm=verdict.harm,
            kept_step=now.kept,
            kept_before=now.before if trial is not None else None,
            can=replace(
                course.can,
                notches=max(0, course.can.notches - more),
                frozen=course.can.frozen and not standing["Unfreeze"],
            ),
            over=to_record(stop) if stop is not None else None,
            end=last.step >= planned,
            trial_looks=sum(_is_of(trial, look) for look in history) if trial is not None else 0,
            rate=None if course.rate is None else course.rate * faster,
            usual=course.usual,
            skew=course.skew,
            points=now.points,
            plans=now.plans,
            epoch=course.epoch,
            tried=now.tried,
            trial=trial,
            trials_left=max(0, MOST_TRIALS - len(self.tried)) if now.spent < course.most else 0,
            findings=course.findings,
        )
        return _measured(sight, history, kept, now.reference if trial is not None else None)

    def _standing(self) -> dict[str, list[Mapping[str, Any]]]:
        """What was done in trials that hold at this look, by action: the settings of each."""
        trial, found = self._now.trial, defaultdict(list)
        held = [one for one in self._now.tried if one.kept]
        if trial is not None:
            # Going back to before a change has undone it.
            held = [one for one in held if one.from_step < trial.from_step] + [trial]
        for one in held:
            for record in one.done:
                found[record["action"]].append(record["settings"])
        return found


def _measured(
    sight: Sight, history: Sequence[Snapshot], kept: int, reference: Floats | None
) -> Sight:
    """The sight with what its look measured, beside the first look, the one at ``kept``, and the
    losses [n] of the ``reference``."""
    last = history[-1]
    chance, silent = _classes(last)
    found = replace(
        sight,
        train_loss=finite(last.train_loss),
        first_train=finite(history[0].train_loss),
        at_floor=bool(last.train_losses.size) and at_floor(last),
        chance=chance,
        silent=silent,
        valid_rows=int(last.valid_losses.size),
        metrics={name: finite(float(value)) for name, value in last.valid_metrics.items()},
    )
    if not found.valid_rows:
        return found
    losses = validation_losses(history)
    return replace(
        found,
        loss=finite(losses[:, -1].mean()),
        against_first=_against(losses, losses[:, 0]),
        against_kept=_against(losses, losses[:, kept]),
        against_before=LossDifference() if reference is None else _against(losses, reference),
    )


def _is_of(trial: RemedyTrial, look: Snapshot) -> bool:
    """Whether a look is one of the trial's: of a later branch, or where the run cannot go back of a
    later step."""
    if look.branch.number > trial.branch:
        return look.step > trial.from_step
    return look.branch.number == trial.branch and look.step > trial.step


def _classes(look: Snapshot) -> tuple[float | None, float | None]:
    """Of the classes of the validation rows, where a later look tells them: the loss of always
    giving their frequencies, and the share of those that no answer names."""
    known = look.step and look.valid_losses.size and np.isfinite(look.valid_losses).all()
    labels = validation_labels(look) if known else None
    if labels is None:
        return None, None
    shares = np.bincount(labels) / len(labels)
    chance = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    named = np.unique(np.asarray(look.valid_logits).argmax(axis=1))
    return chance, float(1 - np.isin(np.unique(labels), named).mean())


def _against(losses: Floats, bar: Floats) -> LossDifference:
    found = paired_t(losses[:, -1], bar)
    return LossDifference(*map(finite, (found.value, found.low, found.high, found.above)))
