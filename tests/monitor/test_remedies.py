"""Advice about the learning rate goes the way that it says, whatever few evaluations showed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from holdfast.core.curves import Curves, Series
from holdfast.core.records import Remedy
from holdfast.core.run_facts import RunFacts
from holdfast.monitor.curves import remedies as of_logs
from holdfast.monitor.curves.verdict import judge_curves
from holdfast.monitor.history import History
from holdfast.monitor.judge import judge
from holdfast.monitor.remedies import COMPUTED_REMEDIES, FINDINGS, REMEDIES, remedies_for

# Fractions of the peak by the share of the run that is over.
SCHEDULES: tuple[Callable[[float], float], ...] = (
    lambda t: 1.0,
    lambda t: 1 - t,
    lambda t: t / 0.1 if t < 0.1 else (1 - t) / 0.9,
    lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    lambda t: math.sin(math.pi * t),
)


def advised(remedies: tuple[Remedy, ...], word: str) -> list[float]:
    key = "train.learning_rate="
    chosen = [r for r in remedies if r.do == f"{word} the learning rate"]
    return [float(s[len(key) :]) for r in chosen for s in r.set if s.startswith(key)]


def told(history: History) -> tuple[Remedy, ...]:
    findings = ("diverging", "forgetting", "no progress", "slow")
    verdict = judge(history.snapshots, history.run_facts)
    return (*(r for one in findings for r in remedies_for(one, history)), *verdict.remedies)


def test_every_name_of_the_tables_is_a_remedy_and_is_used() -> None:
    named = {name for names in FINDINGS.values() for name in names}
    assert named == {*REMEDIES, *COMPUTED_REMEDIES}
    assert not {*REMEDIES} & {*COMPUTED_REMEDIES}


@pytest.mark.slow
def test_raise_is_always_higher_and_lower_always_lower_than_the_peak(history) -> None:
    rng = np.random.default_rng(0)
    raised = lowered = 0
    for _ in range(300):
        peak = float(10 ** rng.uniform(-7, 0))
        schedule = SCHEDULES[int(rng.integers(len(SCHEDULES)))]
        looks = int(rng.integers(2, 7))
        when = np.sort(rng.uniform(0, 1, looks))
        rates = [peak * schedule(float(t)) for t in when]
        ends = float(rng.choice([0.3, 0.69, 1.5]))
        losses = np.linspace(0.69, ends, looks)
        low = float(10 ** rng.uniform(-6, -2))
        usual = (low, low * float(10 ** rng.uniform(0.1, 3))) if rng.random() < 0.7 else None
        snapshots = tuple(history(losses, losses, n=40, learning_rate=rates))
        facts = RunFacts(planned_steps=snapshots[-1].step, classes=2, usual_rates=usual)
        for known in (peak, None):
            seen = History(snapshots, dataclasses.replace(facts, peak_rate=known))
            up, down = advised(told(seen), "raise"), advised(told(seen), "lower")
            assert all(value > peak for value in up), (peak, rates, up)
            assert all(0 < value < peak for value in down), (peak, rates, down)
            assert known is not None or not up, "nobody knows what would be higher"
            raised, lowered = raised + len(up), lowered + len(down)
    assert raised > 100
    assert lowered > 100


def test_a_usual_peak_is_not_called_too_low_for_what_a_warm_up_and_an_end_showed(history) -> None:
    """A peak of 1e-4 between two evaluations at 0 and one at 3e-6."""
    means = [0.69, 0.66, 0.63, 0.60, 0.57]
    rates = [0.0, 3e-6, 3e-6, 1e-6, 0.0]
    snapshots = history(means, means, learning_rate=rates)
    facts = RunFacts(planned_steps=400, planned_looks=5, classes=2, usual_rates=(1e-5, 1e-3))
    known = judge(snapshots, dataclasses.replace(facts, peak_rate=1e-4))
    assert not any(one.name == "learning_rate" for one in known.evidence)
    assert all(value > 1e-4 for value in advised(known.remedies, "raise"))
    unknown = judge(snapshots, facts)
    assert not advised(unknown.remedies, "raise")
    low = judge(snapshots, dataclasses.replace(facts, peak_rate=3e-6))
    assert low.cause == "the learning rate is too low"
    assert advised(low.remedies, "raise") == [1e-5]


def test_a_rate_above_the_usual_ones_is_lowered_into_them(history) -> None:
    means = [0.69, 0.9, 1.2, 1.6]
    known = RunFacts(classes=2, peak_rate=1e-2, usual_rates=(1e-5, 1e-3))
    verdict = judge(history(means, means, learning_rate=[1e-2] * 4), known)
    assert verdict.label == "diverging"
    assert advised(verdict.remedies, "lower") == [1e-3]


@pytest.mark.parametrize("ends", [0.68, 2.5])
def test_a_foreign_log_gets_no_value_of_the_rate(ends: float) -> None:
    """Its peak is not known: no number would be higher, or lower, for sure."""
    at = np.arange(1.0, 21.0)
    train = Series("loss", at, np.linspace(0.69, ends, 20))
    valid = Series("eval_loss", at, np.linspace(0.69, ends, 20))
    verdict = judge_curves(Curves("csv", "epoch", train, valid))
    assert verdict.label in ("underfit", "diverging")
    assert not any("learning_rate" in s for r in verdict.remedies for s in r.set)
    assert not any("larger learning rate" in r.do for r in verdict.remedies)


def test_the_tables_of_logs_name_remedies_and_use_each() -> None:
    named = {name for names in of_logs.FINDINGS.values() for name in names}
    assert named == {*of_logs.OF_LOGS, *of_logs.WORKED_OUT}


@pytest.mark.parametrize(("limit", "steps"), [(None, []), (300, ["train.max_steps=600"])])
def test_a_run_that_ended_by_its_updates_gets_more_of_them(
    history, limit: int | None, steps: list[str]
) -> None:
    looks = tuple(history([0.69, 0.6, 0.5, 0.4], [0.69, 0.62, 0.54, 0.45]))
    facts = RunFacts(step_limit=limit)
    (longer,) = (r for r in judge(looks, facts).remedies if r.do == "train longer")
    assert [s for s in longer.set if s.startswith("train.max_steps")] == steps
    assert "train.epochs=6" in longer.set


def test_before_the_first_evaluation_limited_updates_are_doubled_too() -> None:
    (longer,) = COMPUTED_REMEDIES["longer"](History((), RunFacts(step_limit=40)))
    assert longer.set == ("train.epochs=10", "train.max_steps=80")
