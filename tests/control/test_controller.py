"""What the controller remembers from look to look: table of looks in, what a policy sees out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from holdfast.control.choice import newest_unless_worse
from holdfast.control.controller import ControlledPlan, Controller
from holdfast.control.policy import Remedy
from holdfast.control.sight import Can, Sight
from holdfast.control.stop_rules import StoppingRule
from holdfast.core.actions import ACTIONS, Extend, RollBack, ScaleLearningRate, Stop
from holdfast.core.records import Branch, Snapshot, Verdict

COURSE = ControlledPlan(
    evaluation_steps=tuple(range(0, 110, 10)),
    capabilities=Can(tuple(ACTIONS)),
    rate=1e-3,
    steps_per_epoch=5,
)
TRIAL = Branch(1, 0, 10)


def look(step: int, mean: float, branch: Branch | None = None, **changes: object) -> Snapshot:
    rows = mean + 0.3 * np.random.default_rng(step).standard_normal(30)
    plain = Snapshot(
        step=step,
        epoch=float(step),
        examples_seen=step,
        phase="finetune",
        train_losses=np.zeros(0),
        valid_losses=rows,
        train_metrics={},
        valid_metrics={},
        refined_loss=float(rows.mean()),
        temperature=1.0,
        learning_rate=1e-4,
        gradient_norm=None,
        relative_update=None,
        distance=None,
        seconds=0.0,
        branch=branch or Branch(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


class FromTheTenth:
    """At the third look back to step 10, at half the rate and for longer; once."""

    def decide(self, sight: Sight) -> Remedy | None:
        if sight.step != 20 or sight.tried or sight.trial:
            return None
        back = RollBack("why", 10)
        return Remedy("mine", (back, ScaleLearningRate("why", 0.5), Extend("why", steps=7)))


def controller(patience: int | None = None) -> Controller:
    rules = [StoppingRule({}, None, patience, lambda s: s.refined_loss) for _ in range(2)]
    return Controller(FromTheTenth(), rules[0], rules[1], newest_unless_worse, COURSE)


def seen(made: Controller, history: Sequence[Snapshot]) -> Sight:
    made.decide(Verdict("learning", "it falls", 0.5), history)
    return Sight.from_record(made.notes()[-1]["sight"])


def until_the_trial(made: Controller) -> list[Snapshot]:
    """Three looks, of which the second is the lowest; the trial has begun at the third."""
    history = [look(0, 1.0), look(10, 0.5), look(20, 0.9)]
    for end in (1, 2, 3):
        seen(made, history[:end])
    return history[:2]


def test_updates_are_counted_over_all_branches() -> None:
    made = controller()
    history = [*until_the_trial(made), look(20, 0.4, TRIAL)]
    assert seen(made, history).spent == 30
    assert seen(made, [*history, look(30, 0.2, TRIAL)]).spent == 40


def test_the_rate_and_the_plan_are_those_of_the_trial_and_of_where_it_leads_back() -> None:
    made = controller()
    history = [*until_the_trial(made), look(20, 0.1, TRIAL, planned_steps=107)]
    now = seen(made, history)
    assert now.trial is not None
    assert (now.trial.kept, now.rate, now.planned) == (True, 5e-4, 107)
    assert (now.points, now.plans) == ((0, 20), (100, 107))
    assert now.planned_from(20) == 107


def test_a_trial_is_held_to_the_state_that_was_kept_when_it_began() -> None:
    made = controller()
    history = [*until_the_trial(made), look(20, 0.8, TRIAL)]
    now = seen(made, history)
    assert now.trial is not None
    assert (now.trial.kept, now.kept_step, now.kept_before) == (False, 10, 10)
    assert now.against_before.worse
    assert (now.points, now.plans) == ((0, 10, 20), (100, 100, 100)), "as when it began"


def test_it_goes_on_from_its_state_as_if_nothing_had_been() -> None:
    made, other = controller(patience=9), controller(patience=9)
    history = [*until_the_trial(made), look(20, 0.45, TRIAL)]
    other.load_state_dict(made.state_dict())
    assert other.state_dict() == made.state_dict()
    assert seen(other, history) == seen(made, history)


def test_patience_goes_back_with_the_run_and_what_was_tried_does_not() -> None:
    made = controller(patience=1)
    history = [look(0, 1.0), look(10, 0.5), look(20, 0.9)]
    seen(made, history[:1])
    seen(made, history[:2])
    then = made.state_dict()
    assert seen(made, history).over is not None, "a look without gain"
    assert made.state_dict()["rules"] != then["rules"]
    made.rolled_back(then)
    assert made.state_dict()["rules"] == then["rules"]
    assert made.steps_taken == 20
    assert len(made.trials) == 1
    assert seen(made, [*history[:2], look(20, 0.1, TRIAL)]).over is None


def test_where_no_updates_are_left_no_trial_is() -> None:
    made = controller()
    history = [*until_the_trial(made), look(120, 0.4, TRIAL, planned_steps=200)]
    now = seen(made, history)
    assert (now.spent, now.trials_left) == (130, 0)
    assert now.over is not None
    assert now.over["action"] == Stop.__name__


def test_its_state_is_one_that_a_checkpoint_reads(tmp_path: object) -> None:
    made = controller()
    until_the_trial(made)
    path = f"{tmp_path}/state.pt"
    torch.save(made.state_dict(), path)
    assert torch.load(path, weights_only=True) == made.state_dict()
