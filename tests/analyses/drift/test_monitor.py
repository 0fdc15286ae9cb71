"""A stream watched from three sides: one alarm a change, each dated, and restarts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from holdfast.core.errors import Defect
from holdfast.plugins.drift.monitor import NEW_REFERENCE_ROWS, DriftMonitor
from holdfast.plugins.drift.rows import DriftRows, Reference, concatenate_rows


def _rows(n: int, seed: int, by: float = 0.0, second: float = 0.3) -> DriftRows:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(n, 8))
    vectors[:, 0] += by
    answers = (random.uniform(size=n) < second).astype(np.int64)
    return DriftRows(n, vectors, answers, {"confidence": random.uniform(0.5, 1, n)})


@pytest.fixture
def reference() -> Reference:
    return Reference(_rows(150, 7), ("no", "yes"), np.ones(150))


def test_there_and_back_are_two_alarms(reference: Reference) -> None:
    monitor = DriftMonitor.of_reference(reference)
    for part in (_rows(500, 1), _rows(900, 2, by=3.0), _rows(900, 3)):
        monitor = monitor.add(part)
    first, second = monitor.alarms
    assert 490 <= first.since <= 510
    assert first.since < first.at < 600
    assert first.side == "inputs"
    assert first.against == "validation rows"
    assert 1390 <= second.since <= 1410
    assert second.against == f"rows from row {first.since} on"
    assert monitor.rows == 2300
    # Three sides together come to what was asked for: each waits for three times as much.
    assert min(max(one.levels.values()) for one in monitor.alarms) >= monitor.between


def test_rows_that_are_new_from_the_first_on_are_dated_so(reference: Reference) -> None:
    for seed in range(5):
        monitor = DriftMonitor.of_reference(reference).add(_rows(200, seed, by=3.0))
        assert monitor.alarms[0].since <= 2
        assert monitor.alarms[0].at < 60


def test_clean_rows_raise_none(reference: Reference) -> None:
    monitor = DriftMonitor.of_reference(reference).add(_rows(4000, 11))
    assert monitor.alarms == ()
    assert set(monitor.levels) == {"inputs", "classes", "numbers"}
    assert max(monitor.levels.values()) < 10_000


def test_the_side_that_changes_is_named(reference: Reference) -> None:
    monitor = DriftMonitor.of_reference(reference).add(_rows(400, 1)).add(_rows(400, 2, second=0.9))
    (alarm,) = monitor.alarms
    assert alarm.side == "classes"
    assert alarm.by in ("yes more often", "no less often")


def test_a_restart_at_any_point_changes_nothing(reference: Reference) -> None:
    rows = concatenate_rows([_rows(300, 1), _rows(700, 2, by=3.0), _rows(300, 3)])
    whole = DriftMonitor.of_reference(reference).add(rows)
    monitor = DriftMonitor.of_reference(reference)
    for start in range(0, len(rows), 90):
        monitor = monitor.add(rows.take(slice(start, start + 90)))
        monitor = DriftMonitor.from_json(json.loads(json.dumps(monitor.to_json())), reference)
    # What stands in memory alone, for alarms to be told with, is gone.
    assert [(a.at, a.side, a.against) for a in monitor.alarms[:1]] == [
        (a.at, a.side, a.against) for a in whole.alarms[:1]
    ]
    for mine, other in zip(monitor.alarms, whole.alarms, strict=True):
        assert abs(mine.since - other.since) <= 20
        assert abs(mine.at - other.at) <= 10
    assert len(whole.alarms) == 2
    assert monitor.rows == whole.rows


def test_sides_that_nothing_is_known_of_are_named(reference: Reference) -> None:
    bare = Reference(DriftRows(12, np.zeros((12, 3)), None, {"confidence": np.linspace(0, 1, 12)}))
    monitor = DriftMonitor.of_reference(bare)
    assert set(monitor.unwatched) == {"inputs", "classes", "numbers"}
    assert "12 reference rows" in monitor.unwatched["inputs"]
    assert monitor.add(_rows(50, 0)).alarms == ()
    partly = DriftMonitor.of_reference(reference).add(
        replace(_rows(40, 1), vectors=None, answers=None)
    )
    assert partly.levels["inputs"] == 0
    assert partly.watches["classes"].detector.rows == 40
    assert NEW_REFERENCE_ROWS > 0


def test_a_state_of_another_form_is_refused(reference: Reference) -> None:
    said = DriftMonitor.of_reference(reference).to_json()
    for broken in ({}, {**said, "format": 99}, {**said, "sides": {}}):
        with pytest.raises(ValueError, match=r"\w"):
            DriftMonitor.from_json(broken, reference)
    with pytest.raises(Defect, match="at least 1"):
        DriftMonitor.of_reference(reference, 0)


def test_a_state_of_another_reference_is_refused(reference: Reference) -> None:
    """Other statistics or classes: its evidence is of other tests."""
    said = DriftMonitor.of_reference(reference).add(_rows(100, 1)).to_json()
    rows = reference.rows
    more = replace(rows, numbers=rows.numbers | {"words": np.arange(150.0)})
    assert DriftMonitor.from_json(said, reference).rows == 100
    assert rows.answers is not None
    three = replace(rows, answers=np.arange(150) % 3)
    for other, classes in ((more, reference.classes), (three, ("a", "b", "c"))):
        with pytest.raises(ValueError, match="another reference"):
            DriftMonitor.from_json(said, replace(reference, rows=other, classes=classes))
