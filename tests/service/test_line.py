"""Who is answered next: shares, bounds and who is dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.plugins.service.engine.request_queue import (
    Pace,
    QueueLimits,
    RequestQueue,
    WaitingRequest,
)
from holdfast.plugins.service.engine.texts import plan_passes
from holdfast.plugins.service.records import DeadlineExceeded, QueueFull

FAST = 1e-9


def waiting(name: str, costs: Sequence[int], deadline: float = math.inf) -> WaitingRequest:
    return WaitingRequest(name, list(costs), deadline=deadline)


def taken(line: RequestQueue, most: int, now: float = 0.0) -> list[tuple[str, int]]:
    turn = line.next_turn(now, most)
    assert turn is not None
    found = [(one.parsed, place) for one, places in turn.parts for place in places]
    assert turn.rows == len(found)
    return found


def test_rows_are_taken_in_their_order_and_once() -> None:
    line = RequestQueue()
    line.add(waiting("a", [5, 5, 5]), 0.0, FAST)
    assert taken(line, 10) == [("a", 0), ("a", 1)]
    assert (line.rows, line.tokens, len(line)) == (1, 5, 1)
    assert taken(line, 10) == [("a", 2)]
    assert line.next_turn(0.0, 10) is None
    assert (line.rows, line.tokens, len(line)) == (0, 0, 0)


def test_a_row_longer_than_a_turn_is_one_by_itself() -> None:
    line = RequestQueue()
    line.add(waiting("a", [50, 3]), 0.0, FAST)
    assert taken(line, 10) == [("a", 0)]
    assert taken(line, 10) == [("a", 1)]


def test_a_small_request_does_not_wait_for_a_large_one() -> None:
    line = RequestQueue()
    line.add(waiting("large", [10] * 1000), 0.0, FAST)
    taken(line, 100)
    line.add(waiting("small", [10]), 0.0, FAST)
    assert ("small", 0) in taken(line, 100)


def test_a_large_request_goes_on_however_many_small_ones_arrive() -> None:
    """More come than there is room for, so that forty wait always, as many as are let in."""
    line = RequestQueue()
    line.add(waiting("large", [10] * 100), 0.0, FAST)
    got, turns = 0, 0
    while got < 100 and turns < 1000:
        while len(line) < 40:
            line.add(waiting("small", [10]), 0.0, FAST)
        got += sum(name == "large" for name, _ in taken(line, 100))
        turns += 1
    # A fortieth of ten rows a turn.
    assert 200 < turns < 600


def test_equal_requests_go_on_side_by_side() -> None:
    line = RequestQueue()
    for name in "ab":
        line.add(waiting(name, [10] * 50), 0.0, FAST)
    counts = {"a": 0, "b": 0}
    for _ in range(5):
        for name, _ in taken(line, 60):
            counts[name] += 1
        assert abs(counts["a"] - counts["b"]) <= 1


def test_who_is_gone_or_late_costs_no_time() -> None:
    line = RequestQueue()
    gone, late = waiting("gone", [5]), waiting("late", [5, 5], deadline=3.0)
    for one in (gone, late, waiting("there", [5], deadline=9.0)):
        line.add(one, 0.0, FAST)
    gone.abandoned = True
    assert taken(line, 100, now=3.0) == [("there", 0)]
    assert line.dropped == {"gone": 1, "late": 1}
    assert (line.rows, line.tokens) == (0, 0)


def test_what_is_left_of_a_request_that_is_gone_is_dropped() -> None:
    line = RequestQueue()
    one = waiting("a", [5] * 10)
    line.add(one, 0.0, FAST)
    taken(line, 15)
    one.abandoned = True
    assert line.next_turn(0.0, 15) is None
    assert (line.rows, line.tokens, line.dropped["gone"]) == (0, 0, 1)


def test_more_rows_or_tokens_than_may_wait_are_refused_at_once() -> None:
    line = RequestQueue(QueueLimits(rows=10, tokens=100, max_wait_s=1e9))
    # One alone may be as large as it likes.
    line.add(waiting("a", [1] * 11), 0.0, FAST)
    with pytest.raises(QueueFull, match="11 rows are waiting"):
        line.add(waiting("b", [1]), 0.0, FAST)
    other = RequestQueue(QueueLimits(rows=10, tokens=100, max_wait_s=1e9))
    other.add(waiting("a", [101]), 0.0, FAST)
    with pytest.raises(QueueFull, match="101 tokens are waiting"):
        other.add(waiting("b", [1]), 0.0, FAST)


def test_a_request_that_would_wait_too_long_is_refused_and_told_when_to_come() -> None:
    line = RequestQueue(QueueLimits(max_wait_s=2.0))
    for number in range(3):
        line.add(waiting(str(number), [100]), 0.0, 0.01)
    with pytest.raises(QueueFull, match=r"3\.0 s; the limit is 2 s") as full:
        line.add(waiting("3", [100]), 0.0, 0.01)
    assert full.value.retry_after == 1.0
    # A shorter one is before the others' ends.
    line.add(waiting("4", [10]), 0.0, 0.01)
    with pytest.raises(QueueFull, match="after its deadline"):
        line.add(waiting("5", [10], deadline=7.15), 7.0, 0.01)
    # To come again would not help this one, whoever else waits.
    with pytest.raises(DeadlineExceeded):
        line.add(waiting("6", [10], deadline=7.05), 7.0, 0.01)
    assert len(line) == 4


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 120),
)
def test_every_row_is_taken_once_whoever_goes(
    requests: list[tuple[list[int], bool]], most: int
) -> None:
    line = RequestQueue()
    made = []
    for number, (costs, leaves) in enumerate(requests):
        one = waiting(str(number), costs)
        line.add(one, 0.0, FAST)
        made.append((one, leaves))
    seen: dict[str, list[int]] = {}
    first = True
    while (turn := line.next_turn(0.0, most)) is not None:
        assert turn.tokens <= most or turn.rows == 1
        for one, places in turn.parts:
            seen.setdefault(one.parsed, []).extend(places)
        if first:
            for one, leaves in made:
                one.abandoned = leaves
            first = False
        assert line.rows == sum(len(one.costs) - one.taken for one, _ in line_left(line))
    for one, leaves in made:
        got = seen.get(one.parsed, [])
        assert got == list(range(len(got)))
        assert leaves or len(got) == len(one.costs)
    assert (line.rows, line.tokens, len(line)) == (0, 0, 0)


def line_left(line: RequestQueue) -> list[tuple[WaitingRequest, None]]:
    return [(one, None) for _, _, one in line._heap]


def every_division(lengths: list[int], overhead: float) -> float:
    """The least cost over all divisions of the sorted rows into runs of neighbours."""
    ordered = sorted(lengths)
    best = [0.0]
    for end in range(1, len(ordered) + 1):
        width = ordered[end - 1]
        best.append(min(best[i] + overhead + width * (end - i) for i in range(end)))
    return best[-1]


@settings(max_examples=100)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.floats(0, 100))
def test_passes_cost_the_least_that_neighbours_can(lengths: list[int], overhead: float) -> None:
    made = plan_passes(lengths, overhead)
    assert sorted(np.concatenate(made).tolist()) == list(range(len(lengths)))
    found = np.asarray(lengths)
    cost = sum(overhead + float(found[one].max()) * len(one) for one in made)
    assert cost == pytest.approx(every_division(lengths, overhead))


def test_a_pace_follows_the_last_turns_by_their_tokens() -> None:
    pace = Pace(half_life_tokens=100)
    assert pace.seconds == 0
    pace.add(50, 0.5)
    assert pace.seconds == pytest.approx(0.01)
    pace.add(1000, 1.0)
    assert pace.seconds == pytest.approx(0.001, rel=0.02)
    pace.add(1, 1.0)
    assert pace.seconds < 0.02
