"""Rows that come in groups are judged by groups: flat curves raise hardly any alarm, and the
accuracy gap has the interval of so many groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from holdfast.core.labels import OVERFITTED
from holdfast.core.records import Snapshot
from holdfast.core.run_facts import RunFacts
from holdfast.monitor.evidence import accuracy_gap_of
from holdfast.monitor.judge import judge

GROUPS, ROWS, EVALUATIONS = 20, 10, 10


def flat_run(seed: int, make: Callable[..., Snapshot]) -> list[Snapshot]:
    """The losses of a group change together; after the first evaluations their mean stays."""
    rng, group = np.random.default_rng(seed), np.repeat(np.arange(GROUPS), ROWS)
    base, train = rng.gamma(4, 0.15, len(group)), rng.gamma(4, 0.15, 150)
    history = []
    for k in range(EVALUATIONS + 1):
        fall = 0.4 * np.exp(-k)
        noise = 0.11 * rng.normal(size=GROUPS)[group] + 0.17 * rng.normal(size=len(group))
        valid = base + fall + noise
        history.append(make(10 * k, train + fall - 0.01 * k, valid))
    return history


def test_groups_that_change_together_are_no_evidence_of_a_rise(snapshot) -> None:
    group, alarms = np.repeat(np.arange(GROUPS), ROWS), np.zeros(2)
    for seed in range(25):
        history = flat_run(seed, snapshot)
        for place, groups in enumerate((None, group)):
            facts = RunFacts(planned_steps=10 * EVALUATIONS, valid_groups=groups)
            alarms[place] += judge(history, facts).label in OVERFITTED
    assert alarms[1] <= 2
    # The same losses of rows of their own would be a rise.
    assert alarms[0] >= 5


def test_the_accuracy_gap_has_the_interval_of_as_many_groups(classified) -> None:
    rng = np.random.default_rng(0)
    covered, draws = np.zeros(2), 300
    (one,) = classified([0.3], [0.5], n=GROUPS * ROWS)[:1]
    group = np.repeat(np.arange(GROUPS), ROWS)
    for _ in range(draws):
        train = rng.random(GROUPS * ROWS) < rng.beta(9.5, 0.5, GROUPS)[group]
        valid = rng.random(GROUPS * ROWS) < rng.beta(3.48, 0.62, GROUPS)[group]
        drawn = dataclasses.replace(one, train_correct=train, valid_correct=valid)
        for place, groups in enumerate((None, group)):
            gap = accuracy_gap_of(drawn, groups, groups)
            assert gap is not None
            covered[place] += gap.low <= 0.95 - 3.48 / 4.1 <= gap.high
    assert covered[1] >= 0.92 * draws
    assert covered[0] < 0.85 * draws


def test_rows_of_one_group_have_no_gap(classified) -> None:
    (one,) = classified([0.3], [0.5], n=40)[:1]
    assert accuracy_gap_of(one) is not None
    assert accuracy_gap_of(one, None, np.zeros(40, dtype=np.int64)) is None
