"""The store keeps what it was given, in order, and lets go of what must go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.core.errors import DataError, StoreError
from holdfast.plugins.store.records import (
    Event,
    Feedback,
    RequestOutcome,
    StoredPrediction,
    StoredRequest,
    StoredText,
    new_id,
)
from holdfast.plugins.store.store import Store, open_store

MODEL = "reviews-1@0123456789ab"


def call(at: float, user: str | None = None, text: str = "fine") -> StoredRequest:
    said = StoredPrediction(0, MODEL, "good", 0.9, {"good": 0.9, "bad": 0.1})
    kept = StoredText(0, {"text": text}, b"\0\x3c", at + 60)
    return StoredRequest(new_id(at), at, MODEL, 1, 0.01, user, (said,), (kept,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store.db"))


def test_requests_come_back_as_they_were_in_order_of_time(store: Store) -> None:
    calls = [call(at) for at in (3.0, 1.0, 2.0)]
    store.add_requests(calls)
    assert store.requests() == sorted(calls, key=lambda one: one.at)
    assert store.requests(since=2.5) == [calls[0]]
    assert store.request(calls[1].id) == calls[1]
    assert store.request("none") is None


def test_names_of_requests_sort_by_time_and_do_not_repeat() -> None:
    names = [new_id(1e9 + k) for k in range(100)]
    assert names == sorted(names)
    assert len({new_id(1e9) for _ in range(1000)}) == 1000


def test_labels_outcomes_and_events_come_in_the_order_of_their_arrival(store: Store) -> None:
    labels = [store.add_feedback(Feedback("r", k, {"a": [k]}, "ann", 9.0 - k)) for k in range(3)]
    assert store.feedback() == labels
    assert store.feedback(after=labels[0].id or 0) == labels[1:]
    outcome = store.add_outcome(RequestOutcome("r", 1.5, 2.0))
    assert store.outcomes() == [outcome]
    alarm = store.append(Event("drift", 1.0, {"since": 0.5}))
    store.append(Event("promotion", 2.0))
    assert store.events("drift") == [alarm]
    assert [one.kind for one in store.events()] == ["drift", "promotion"]


def test_a_state_is_what_was_saved_last_also_for_the_next_process(tmp_path: Path) -> None:
    first = open_store(str(tmp_path / "store.db"))
    assert first.state("drift") is None
    first.save_state("drift", {"n": 1}, 1.0)
    first.save_state("drift", {"n": 2}, 2.0)
    first.close()
    assert open_store(str(tmp_path / "store.db")).state("drift") == {"n": 2}


def test_what_is_deleted_for_a_user_is_gone_and_names_nobody(store: Store) -> None:
    mine, other = call(1.0, "u1"), call(2.0, "u2")
    store.add_requests([mine, other])
    store.add_feedback(Feedback(mine.id, 0, "bad", "ann", 3.0))
    gone = store.delete(4.0, by="user", value="u1")
    tables = {"texts": 1, "answers": 1, "feedback": 1, "outcomes": 0, "claims": 0, "skips": 0}
    assert gone == {**tables, "requests": 1}
    assert store.requests() == [other]
    assert store.feedback() == []
    (event,) = store.events("deletion")
    assert event.body == {"by": "user", "gone": gone}


def test_texts_go_when_their_time_is_over_and_answers_stay(store: Store) -> None:
    asked = call(100.0)
    store.add_requests([asked])
    assert store.expire(159.0) == 0
    assert store.expire(160.0) == 1
    assert store.request(asked.id) == replace(asked, texts=())


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of ours\n" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt"):
        open_store(str(path))


def test_a_label_brings_the_request_that_is_not_written_yet_and_goes_with_its_user(
    store: Store,
) -> None:
    """A service that was killed has not written the request, and the label was confirmed."""
    asked = replace(call(1.0, "anna"), predictions=(), texts=())
    label = store.add_feedback(Feedback(asked.id, 0, "bad", "ann", 2.0), asked)
    store.add_outcome(RequestOutcome(asked.id, 1.0, 2.0), asked)
    assert [one.id for one in store.requests()] == [asked.id]
    assert store.feedback() == [label]
    gone = store.delete(3.0, by="user", value="anna")
    assert (gone["requests"], gone["feedback"], gone["outcomes"]) == (1, 1, 1)
    with pytest.raises(DataError, match="was deleted"):
        store.add_feedback(Feedback("later", 0, "bad", "ann", 4.0), replace(asked, id="later"))


def test_a_request_that_came_with_its_label_is_written_once(store: Store) -> None:
    whole = call(1.0, "anna")
    store.add_feedback(
        Feedback(whole.id, 0, "bad", "ann", 2.0), replace(whole, predictions=(), texts=())
    )
    store.add_requests([whole, call(2.0)])
    assert store.request(whole.id) == whole
    assert len(store.requests()) == 2
