from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.plugins.live.arms import Arms, in_challenger
from holdfast.plugins.live.shadow import Shadow
from holdfast.plugins.service.live.comparison import (
    LATEST,
    VERDICT,
    ComparisonState,
    exclusion_reason,
    update_comparison,
)
from holdfast.plugins.service.live.router import ComparisonSetup
from holdfast.plugins.store.records import (
    Feedback,
    RequestOutcome,
    StoredPrediction,
    StoredRequest,
    new_id,
)
from holdfast.plugins.store.store import Store, open_store
from holdfast.plugins.store.tables import outcomes

A, B = "shown@1", "challenger@2"
SETUP = ComparisonSetup(A, B, "text-classification", margin=0.02, lag_s=5)
AB = replace(SETUP, way="ab", window_s=100, most=1.0, lag_s=5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = open_store(str(tmp_path / "store.db"))
    yield found
    found.close()


def asked(store: Store, at: float, pairs: list[tuple[Any, Any]], shadow: bool = True) -> str:
    """A request whose rows the shown model and the challenger answered so."""
    name = new_id(at)
    said = tuple(StoredPrediction(i, A, one) for i, (one, _) in enumerate(pairs))
    if shadow:
        said += tuple(StoredPrediction(i, B, two, shown=False) for i, (_, two) in enumerate(pairs))
    store.add_requests([StoredRequest(name, at, A, len(pairs), 0.01, None, said)])
    return name


def label(store: Store, request: str, index: int, right: Any, at: float, **more: Any) -> None:
    given: dict[str, Any] = {"drawn": "uniform", "suggestion": "hidden", **more}
    store.add_feedback(Feedback(request, index, right, "me", at, A, "page", **given))


def shadow_of(found: ComparisonState) -> Shadow:
    assert isinstance(found.evidence, Shadow)
    return found.evidence


def test_rows_and_labels_of_the_store_become_the_evidence_in_their_order(store: Store) -> None:
    rng, wins, losses, neither = np.random.default_rng(0), 0, 0, 0
    rows, names = [], []
    for i in range(60):
        pairs = [("ab"[int(rng.integers(2))], "ab"[int(rng.integers(2))]) for _ in range(3)]
        names.append(asked(store, 1000.0 + i, pairs))
        rows.append(pairs)
    for name, pairs in zip(names, rows, strict=True):
        for index, (one, two) in enumerate(pairs):
            right = "abc"[int(rng.integers(3))]
            label(store, name, index, right, 1100)
            wins += two == right != one
            losses += one == right != two
            neither += one != two and right == "c"
    found = shadow_of(update_comparison(store, SETUP, 2000))
    assert found.rows == 180
    assert found.unlike == sum(one != two for pairs in rows for one, two in pairs)
    assert (found.wins, found.losses, found.neither) == (wins, losses, neither)
    assert found.alike == 180 - found.unlike
    assert not found.apart
    plain = Shadow(0.02).add_rows(180, found.unlike)
    assert found.peaks != plain.peaks


def test_looks_at_any_time_by_any_replica_come_to_the_same(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    other = open_store(str(tmp_path / "store.db"))
    now = 1000.0
    for i in range(40):
        now += 1
        name = asked(store, now, [("a", "b"), ("a", "a"), ("b", "a")])
        for index in (0, 2):
            label(store, name, index, "ab"[int(rng.integers(2))], now + 1)
        if i % 7 == 0:
            update_comparison(store if i % 2 else other, SETUP, now)
    after = update_comparison(other, SETUP, now + 10)
    anew = open_store(str(tmp_path / "anew.db"))
    for request in store.requests(limit=100):
        anew.add_requests([request])
    for one in store.feedback():
        anew.add_feedback(one)
    once = update_comparison(anew, SETUP, now + 10)
    assert shadow_of(after).rows == 120
    # A share that is known from more rows raises some evidence a little, and lowers none.
    for name in ("rows", "unlike", "wins", "losses", "neither", "alike", "apart"):
        assert getattr(shadow_of(after), name) == getattr(shadow_of(once), name)
    assert shadow_of(after).peaks[:2] == pytest.approx(shadow_of(once).peaks[:2])
    assert update_comparison(store, SETUP, now + 20) == after
    assert ComparisonState.of(after.to_json()) == after
    anew.close()
    other.close()


def test_what_is_young_waits_for_the_next_look(store: Store) -> None:
    name = asked(store, 1000.0, [("a", "b")])
    label(store, name, 0, "b", 1002)
    assert shadow_of(update_comparison(store, SETUP, 1004)).rows == 0
    assert shadow_of(update_comparison(store, SETUP, 1006)).rows == 1
    assert shadow_of(update_comparison(store, SETUP, 1006)).wins == 0
    assert shadow_of(update_comparison(store, SETUP, 1008)).wins == 1


def test_labels_that_depend_on_the_shown_answer_stand_apart(store: Store) -> None:
    names = [asked(store, 1000.0 + i, [("a", "b")]) for i in range(5)]
    label(store, names[0], 0, "b", 1010, drawn="volunteered", suggestion="unknown")
    label(store, names[1], 0, "a", 1010, suggestion="seen")
    label(store, names[2], 0, "b", 1010, drawn="unlike")
    label(store, names[2], 0, "a", 1011)
    found = update_comparison(store, SETUP, 1100)
    assert (shadow_of(found).wins, shadow_of(found).losses) == (1, 0)
    apart = {one["because"]: one for one in found.summary()["apart"]}
    assert len(apart) == 3
    assert apart["a second label of a row that already counts"]["shown_right"] == 1
    (wish,) = [one for name, one in apart.items() if "by the annotator" in name]
    assert wish["challenger_right"] == 1


def test_labels_count_only_where_chance_drew_the_row_and_the_answer_was_hidden() -> None:
    def why(drawn: str, suggestion: str, source: str = "page") -> str | None:
        return exclusion_reason(
            Feedback("r", 0, "a", "me", 0.0, None, source, drawn, suggestion)  # type: ignore[arg-type]
        )

    assert why("uniform", "hidden") is None
    assert why("unlike", "hidden") is None
    reasons = [
        why("volunteered", "hidden"),
        why("chosen", "hidden"),
        why("uniform", "seen"),
        why("uniform", "unknown"),
        why("uniform", "hidden", "model"),
    ]
    assert None not in reasons
    assert len(set(reasons)) == 5


def test_rows_that_the_challenger_was_not_asked_count_nowhere(store: Store) -> None:
    name = asked(store, 1000.0, [("a", "b")], shadow=False)
    asked(store, 1001.0, [("a", "b")])
    label(store, name, 0, "b", 1002)
    found = update_comparison(store, SETUP, 1100)
    assert shadow_of(found).rows == 1
    assert shadow_of(found).labels == 0
    assert found.summary()["labels_without_both_answers"] == 1


def test_a_verdict_is_written_down_once_and_another_setup_begins_anew(store: Store) -> None:
    for i in range(60):
        name = asked(store, 1000.0 + i, [("a", "b")])
        label(store, name, 0, "b", 1000.0 + i)
    found = update_comparison(store, SETUP, 2000)
    assert found.summary()["verdict"] == "better"
    update_comparison(store, SETUP, 2001)
    (event,) = store.events(VERDICT)
    assert event.body["verdict"] == "better"
    assert "only the challenger is correct on" in event.body["because"]
    latest = store.state(LATEST)
    assert latest is not None
    assert latest["challenger"] == B
    assert latest["next"] == "promote"
    tight = update_comparison(store, replace(SETUP, budget=5), 2002)
    assert shadow_of(tight).labels == 5
    assert (store.state(LATEST) or {})["budget_spent"]


def test_a_deleted_label_is_not_counted_later(store: Store) -> None:
    name = asked(store, 1000.0, [("a", "b")])
    label(store, name, 0, "b", 1001)
    store.delete(1002, by="request", value=name)
    assert shadow_of(update_comparison(store, SETUP, 1100)).rows == 0


def came(store: Store, user: str, at: float, *values: tuple[float, float]) -> None:
    """A request of a user, and outcomes of it, each when and how much."""
    name = new_id(at)
    model = B if in_challenger(user, AB.secret, AB.share) else A
    store.add_requests(
        [StoredRequest(name, at, model, 1, 0.01, user, (StoredPrediction(0, model, "a"),))]
    )
    for when, value in values:
        store.add_outcome(RequestOutcome(name, value, when))


def arms_of(found: ComparisonState) -> Arms:
    assert isinstance(found.evidence, Arms)
    return found.evidence


def test_users_are_compared_when_their_time_is_over_by_what_came_within_it(store: Store) -> None:
    update_comparison(store, AB, 1000.0)
    came(store, "u1", 1001.0, (1010.0, 1.0))
    came(store, "u1", 1050.0, (1060.0, 0.0))
    came(store, "u2", 1002.0, (1102.5, 1.0))
    came(store, "u3", 1090.0, (1095.0, 1.0))
    found = update_comparison(store, AB, 1120.0)
    assert sum(arms_of(found).entered) == 3
    assert arms_of(found).sums.rows == 2
    # u2's came half a second after its hundred.
    assert sum(arms_of(found).sums.totals) == 1.0
    assert found.summary()["late_outcomes"] == 1
    assert update_comparison(store, AB, 1121.0) == found
    later = update_comparison(store, AB, 1200.0)
    assert arms_of(later).sums.rows == 3
    assert sum(arms_of(later).sums.totals) == 2.0


def test_users_of_before_count_from_their_next_request(store: Store) -> None:
    came(store, "old", 500.0, (501.0, 1.0))
    update_comparison(store, AB, 1000.0)
    assert sum(arms_of(update_comparison(store, AB, 1500.0)).entered) == 0
    came(store, "old", 1600.0)
    found = arms_of(update_comparison(store, AB, 1800.0))
    assert sum(found.entered) == found.sums.rows == 1
    assert sum(found.sums.totals) == 0.0


def test_arms_of_the_store_are_those_of_a_plain_loop(store: Store) -> None:
    rng = np.random.default_rng(5)
    update_comparison(store, AB, 1000.0)
    expected: dict[bool, list[float]] = {True: [], False: []}
    for part in (range(400), range(400, 700)):
        requests, rows = [], []
        for i in part:
            user, at = f"user-{i}", 1001.0 + i / 10
            mine = in_challenger(user, AB.secret, 0.5)
            value = float(rng.random() < (0.6 if mine else 0.2))
            expected[mine].append(value)
            requests.append(StoredRequest(new_id(at), at, B if mine else A, 1, 0.01, user))
            rows.append({"request": requests[-1].id, "value": value, "at": at + 1})
        store.add_requests(requests)
        # All at once: one by one each would wait for the disk.
        with store._writing() as connection:
            connection.execute(outcomes.insert(), rows)
        update_comparison(store, AB, 1130.0)
    found = update_comparison(store, AB, 1300.0)
    arms = arms_of(found)
    assert arms.sums.users == (len(expected[False]), len(expected[True]))
    assert arms.means == pytest.approx((np.mean(expected[False]), np.mean(expected[True])))
    assert arms.decided == "better"
    assert ComparisonState.of(found.to_json()) == found
    whole = found.summary()
    assert whole["arms"]["challenger"]["users"] == len(expected[True])
    assert not whole["ratio"]["skewed"]


def test_users_whom_an_absent_challenger_did_not_answer_are_not_its_own(store: Store) -> None:
    """A server that ran without it for a while: the arms are no fair draw, and it is said."""
    update_comparison(store, AB, 1000.0)
    made = [new_id(1001.0 + i / 10) for i in range(900)]
    store.add_requests(
        [
            StoredRequest(name, 1001.0 + i / 10, "c@3" if i >= 800 else A, 1, 0.01, f"user-{i}")
            for i, name in enumerate(made)
        ]
    )
    found = update_comparison(store, AB, 1400.0)
    arms = arms_of(found)
    assert arms.entered == (800, 0)
    assert arms.sums.users[1] == 0
    assert arms.skewed
    assert found.summary()["verdict"] == "undecided"


def test_in_postgresql_it_is_the_same(postgres: str, store: Store) -> None:
    other = open_store(postgres)
    try:
        found = []
        for where in (store, other):
            update_comparison(where, AB, 1000.0)
            for i in range(8):
                came(where, f"u{i}", 1001.0 + i, (1005.0 + i, float(i % 2)))
            arms = arms_of(update_comparison(where, AB, 1300.0))
            # Names of requests are drawn: what comes of them is the same.
            name = asked(where, 1400.0, [("a", "b"), (["O"], ["O"]), (None, 1.5)])
            label(where, name, 0, "b", 1401)
            found.append((arms, shadow_of(update_comparison(where, SETUP, 1500.0))))
        assert found[0] == found[1]
        assert found[0][1].unlike == 2
        assert found[0][1].wins == 1
    finally:
        other.close()
