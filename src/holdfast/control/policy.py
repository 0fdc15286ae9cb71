"""From a sight to actions: what a policy is, and the rules that hold for every policy.

    sight ─ a trial is in progress ────────── no action until it ends, or is worse
          ├ a trial ended, nothing is kept ── the policy's next trial; else it is undone
          └ otherwise ─────────────────────── the policy's trial; else the run continues, or stops
                                              where ``stop`` would stop it, unless the policy says
                                              to continue

A **trial** is whatever a policy does except stopping. It begins a new branch, at this evaluation or
at an earlier one. A checkpoint of it is kept only where a paired test on the validation rows shows
that it is better than the checkpoint kept before, or where it has both a lower loss and more
correct rows (``control.choice.choose_across_branches``). A trial of which nothing is kept is
undone: the run returns to its state at the evaluation where the trial began. So a policy can cost
steps, at most three tenths of the planned ones, but not quality, except for the optimism of
choosing (``control/choice.py``). Everything here is a function of the sight.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from holdfast.control.sight import RemedyTrial, Sight
from holdfast.core.actions import (
    ACTIONS,
    Action,
    Continue,
    Extend,
    RollBack,
    ScaleLearningRate,
    Shorten,
    Stop,
    StrengthenAugmentation,
    SwitchOn,
    from_record,
    to_record,
)
from holdfast.core.errors import RunError
from holdfast.core.input_errors import reading_errors


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a policy wants to try: a ``name``, by which it recognizes it in ``Sight.tried``, and the
    actions, of which the first may be ``RollBack`` to one of ``Sight.points``. With ``in_time`` the
    trial is undone at the last evaluation from which the previous plan can still be finished, if it
    has no gain by then; otherwise it may use all updates that are left."""

    name: str
    actions: tuple[Action, ...]
    in_time: bool = False


@runtime_checkable
class Policy(Protocol):
    """Decides at each evaluation, only by what it sees. It keeps no state, since ``Sight`` says
    what was tried. So it decides the same after a resume and in a replay."""

    def decide(self, sight: Sight) -> Remedy | Stop | Continue | None:
        """What to try, or ``Stop``; ``None``: continue as planned, and stop where the policy
        ``stop`` would; ``Continue``: continue where that would stop, while updates are left.
        Where no trial is left (``Sight.trials_left``), none is begun."""
        ...


@dataclass(frozen=True, slots=True)
class Advice:
    """The ``actions`` at an evaluation; the ``trial`` that is in progress after them; the trials
    that have ended by then; and ``continue_because``, why the run continues where it would have
    been stopped."""

    actions: tuple[Action, ...]
    trial: RemedyTrial | None
    ended_trials: tuple[RemedyTrial, ...]
    continue_because: str | None = None


def advise(policy: Policy, sight: Sight) -> Advice:
    """Decide what to do at this evaluation. Raises ``RunError`` where the policy breaks a rule."""
    trial = sight.trial
    if trial is not None and not (sight.finished or sight.failing):
        return Advice((), trial, sight.tried)
    ended_trials = (*sight.tried, *([trial] if trial is not None else []))
    actions_before: tuple[Action, ...] = ()
    if trial is not None and trial.kept:
        because = (
            f"kept: {trial.name}. The checkpoint of step {sight.kept_step} is better than that of "
            f"step {sight.kept_before} on {sight.valid_rows} validation rows"
        )
        actions_before = (Continue(because, sight.kept_step),)
    decision = _policy_decision(policy, sight)
    if isinstance(decision, Remedy) and sight.trials_left > 0:
        actions, new_trial = start_trial(sight, decision)
        return Advice((*actions_before, *actions), new_trial, ended_trials)
    continue_because = (
        decision.because if isinstance(decision, Continue) and sight.room > 0 else None
    )
    if trial is not None and not trial.kept:
        return Advice(
            undo_trial(sight, on=continue_because is not None), None, ended_trials, continue_because
        )
    if isinstance(decision, Stop):
        return Advice((*actions_before, decision), None, ended_trials)
    stop = (stop_action(sight),) if sight.over is not None and continue_because is None else ()
    return Advice(
        (*actions_before, *stop),
        None,
        ended_trials,
        continue_because if sight.over is not None else None,
    )


def _policy_decision(policy: Policy, sight: Sight) -> Remedy | Stop | Continue | None:
    """The policy's decision, checked for its type. The policy gets a copy of the sight, so what it
    writes into it has no effect."""
    name = f"the policy {type(policy).__name__}"
    remedy = "Correct it and continue with --resume, or train with control.policy=stop."
    with reading_errors(name, RunError, f"failed at step {sight.step}", remedy):
        decision = policy.decide(copy.deepcopy(sight))
    if isinstance(decision, (Stop, Continue)) and isinstance(decision.because, str):
        return decision
    if decision is None:
        return None
    if isinstance(decision, Remedy):
        named: object = decision.name
        listed = isinstance(named, str) and named and isinstance(decision.actions, (list, tuple))
        if listed and all(isinstance(getattr(a, "because", ""), str) for a in decision.actions):
            return replace(decision, actions=tuple(decision.actions))
    rule = "must return Remedy(name, actions), Stop(because) or Continue(because), or None"
    raise RunError(name, rule, decision, remedy)


def trial_start(sight: Sight, remedy: Remedy) -> int:
    """The step from which a trial of this remedy continues; a trial that follows a failed one
    begins where that one did."""
    first, past = remedy.actions[0], sight.trial
    if isinstance(first, RollBack):
        return first.to_step
    return past.step if past is not None and not past.kept else sight.step


def start_trial(sight: Sight, remedy: Remedy) -> tuple[tuple[Action, ...], RemedyTrial]:
    """The actions that begin a trial, and the trial. It ends within the updates that are left."""
    _check_remedy(sight, remedy)
    first, past, far = remedy.actions[0], sight.trial, sight.can.does("RollBack")
    failed = past if past is not None and not past.kept else None
    changes = remedy.actions[1:] if isinstance(first, RollBack) else remedy.actions
    at = trial_start(sight, remedy)
    end = at + sight.room
    changes = tuple(_extend_in_steps(sight, one) for one in changes)
    more = sum(one.steps or 0 for one in changes if isinstance(one, Extend))
    if not sight.may_end_from(at):
        rule = f"cannot reach step {sight.first_end}, where the last phase begins, within the "
        raise _policy_error(remedy, f"{rule}{sight.room} updates left", at)
    cut = next((one for one in changes if isinstance(one, Shorten)), None)
    if cut is not None and cut.to_step > end:
        raise _policy_error(
            remedy, f"would take more than the {sight.room} updates left", cut.to_step
        )
    planned = sight.planned_from(at) if failed or isinstance(first, RollBack) else sight.planned
    if far and cut is None and planned + more > end:
        changes = (*changes, Shorten(_step_limit_words(sight), end))
    trial = RemedyTrial(
        remedy.name,
        failed.step if failed else sight.step,
        failed.branch if failed else sight.branch,
        at,
        tuple(map(to_record, changes)),
        failed.over if failed else sight.finished,
        in_time=remedy.in_time,
    )
    if not far:
        return (
            *(_inverse_actions(sight, f"undone: {failed.name}") if failed else ()),
            *changes,
        ), trial
    returns = (undo_trial(sight)[0],) if failed is not None else ()
    back = first if isinstance(first, RollBack) else RollBack(f"trial: {remedy.name}", at)
    return (*returns, back, *changes), trial


def _extend_in_steps(sight: Sight, change: Action) -> Action:
    """Convert a longer run to updates, which are what the limit counts."""
    if not isinstance(change, Extend) or change.epochs is None or not sight.epoch:
        return change
    steps = max(1, math.floor(change.epochs * sight.epoch + 1e-9))
    return Extend(change.because, steps=steps)


def _step_limit_words(sight: Sight) -> str:
    return f"a run may take at most {sight.most} updates in total, and it has taken {sight.spent}"


def undo_trial(sight: Sight, *, on: bool = False) -> tuple[Action, ...]:
    """The end of a trial that failed: go back to where it began, and continue from there, or stop.
    With ``on`` it continues where it would have been stopped."""
    trial = sight.trial
    assert trial is not None
    because = (
        f"undone: {trial.name}. None of its evaluations is shown to be better than the checkpoint "
        "kept before, on the validation rows"
    )
    if not sight.can.does("RollBack"):
        inverse = _inverse_actions(sight, because)
        return (*inverse, stop_action(sight)) if sight.over is not None and not on else inverse
    back = RollBack(because, trial.step, trial.branch)
    if trial.over and not (on and trial.step < sight.first_planned):
        return (back, Stop(f"{trial.name} was tried and undone, and nothing else is left to try"))
    left = sight.room
    if trial.step + left >= sight.planned_from(trial.step):
        return (back,)
    if left < max(1, sight.apart) or not sight.may_end_from(trial.step):
        return (back, Stop(f"{trial.name} was tried and undone, and no updates are left"))
    return (back, Shorten(_step_limit_words(sight), trial.step + left))


def _inverse_actions(sight: Sight, because: str) -> tuple[Action, ...]:
    """Where a run cannot go back: the actions that reverse the changes, as far as possible."""
    done = sight.trial.done if sight.trial else ()
    factors = [one["settings"]["factor"] for one in done if one["action"] == "ScaleLearningRate"]
    return tuple(ScaleLearningRate(because, 1 / factor) for factor in factors)


def stop_action(sight: Sight) -> Action:
    """The ``Stop`` of the policy ``stop``."""
    assert sight.over is not None
    return from_record(**sight.over)


def _check_remedy(sight: Sight, remedy: Remedy) -> None:
    can, names = sight.can, [type(one).__name__ for one in remedy.actions]
    if not names or "Stop" in names or "RollBack" in names[1:]:
        rule = (
            "must be a sequence of changes, of which the first may be a RollBack; Stop cannot be "
            "one of them"
        )
        raise _policy_error(remedy, rule, ", ".join(names) or "nothing")
    unknown = [name for name in names if name not in ACTIONS or not can.does(name)]
    if unknown:
        rule = "contains an action that is not possible in this run"
        raise _policy_error(
            remedy, rule, unknown[0], f"Possible: {', '.join(sorted(can.actions))}."
        )
    for one in remedy.actions:
        if isinstance(one, RollBack) and one.branch is not None:
            raise _policy_error(
                remedy, "names a branch, which a remedy's RollBack must not do", one.branch
            )
        if isinstance(one, RollBack) and one.to_step not in sight.points:
            there = f"There are: {', '.join(map(str, sight.points)) or 'none'}."
            rule = "goes back to an evaluation that is not in Sight.points"
            raise _policy_error(remedy, rule, one.to_step, there)
        if isinstance(one, SwitchOn) and one.method not in can.methods:
            known = ", ".join(sorted(can.methods)) or "none"
            raise _policy_error(
                remedy, "switches on a method that cannot join", one.method, f"Possible: {known}."
            )
        if isinstance(one, StrengthenAugmentation) and one.notches > can.notches:
            raise _policy_error(remedy, "augments more than these rows allow", one.notches)


def _policy_error(remedy: Remedy, rule: str, value: object, then: str = "") -> RunError:
    return RunError(f"the policy's remedy {remedy.name!r}", rule, value, then)
