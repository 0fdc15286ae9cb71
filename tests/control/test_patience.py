"""Patience: a series of values in, the step of the stop out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from holdfast.control.stop_rules import Patience
from holdfast.core.actions import Stop
from holdfast.core.records import Snapshot, Verdict

CALM = Verdict("learning", "calm", 0.5)


def snapshot(step: int, value: float) -> Snapshot:
    nothing = np.zeros(0)
    return Snapshot(
        step=step,
        epoch=0.0,
        examples_seen=0,
        phase="x",
        train_losses=nothing,
        valid_losses=nothing,
        train_metrics={},
        valid_metrics={},
        refined_loss=value,
        temperature=1.0,
        learning_rate=0.0,
        gradient_norm=None,
        relative_update=None,
        distance=None,
        seconds=0.0,
    )


def stop_step(advisor: Patience, values: list[float], start: int = 0) -> int | None:
    """The first step, ten apart, at which the advisor says stop."""
    for index, value in enumerate(values, start):
        advice = advisor.decide(CALM, [snapshot(10 * index, value)])
        if advice:
            assert [type(action) for action in advice] == [Stop]
            return 10 * index
    return None


def make(patience: int | None, start_step: int = 0) -> Patience:
    return Patience(patience, lambda s: s.refined_loss, start_step)


NAN = float("nan")
TABLE = [
    (1, [3, 2, 1], None),
    (1, [1, 2], 10),
    (1, [3, 2, 2], 20),
    (2, [3, 2, 2, 2], 30),
    (2, [3, 2, 4, 1, 5, 6], 50),
    (3, [1, 2, 2, 2], 30),
    (3, [1, 2, 2], None),
    (2, [1, NAN, NAN], 20),
    (2, [NAN, NAN, 1, 2, 3], 40),
    (None, [1] + [2] * 50, None),
    (2, [5, 6, 4, 5, 3, 4, 2], None),
    (1, [1], None),
    (1, [], None),
]


@pytest.mark.parametrize(("patience", "values", "step"), TABLE)
def test_the_table_of_series(patience, values, step) -> None:
    assert stop_step(make(patience), values) == step


@pytest.mark.parametrize(("patience", "values", "step"), TABLE)
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_the_count_survives_a_resume(patience, values, step, cut: int) -> None:
    first = make(patience)
    early = stop_step(first, values[:cut])
    if early is not None:
        assert early == step
        return
    second = make(patience)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert stop_step(second, values[cut:], start=min(cut, len(values))) == step


def test_waiting_starts_after_the_first_phase() -> None:
    """Steps 10 to 40 belong to it, so that the third look after it is the stop."""
    assert stop_step(make(3), [1] + [2] * 9) == 30
    assert stop_step(make(3, start_step=40), [1] + [2] * 9) == 70


def test_the_reason_names_the_best_step_and_the_count() -> None:
    advisor = make(2)
    for index, value in enumerate([3.0, 1.0, 2.0]):
        advisor.decide(CALM, [snapshot(index, value)])
    (action,) = advisor.decide(CALM, [snapshot(3, 2.0)])
    assert "2 evaluations in a row" in action.because
    assert "step 1" in action.because


@pytest.mark.parametrize("patience", [None, 1, 99])
def test_a_diverging_run_stops_at_once(patience) -> None:
    verdict = Verdict("diverging", "the loss exploded", 1.0)
    (action,) = make(patience).decide(verdict, [snapshot(10, 1.0)])
    assert isinstance(action, Stop)
    assert "the loss exploded" in action.because


@pytest.mark.parametrize("label", ["learning", "healthy", "overfit", "inconclusive"])
def test_no_other_verdict_stops_by_itself(label) -> None:
    assert make(None).decide(Verdict(label, "", 1.0), [snapshot(10, 1.0)]) == ()
