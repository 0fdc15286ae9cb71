"""Labelling: one row for one person at a time, the answer hidden until asked, all of it undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import DataError
from holdfast.plugins.dashboard.labels import task_view
from holdfast.plugins.labelling.sampling import EVEN_SHARE, order_keys
from holdfast.plugins.service.labelling import Labelling, LabelTask
from holdfast.plugins.service.promotion import record_start
from holdfast.plugins.store.records import Feedback, StoredPrediction, StoredRequest, StoredText
from holdfast.plugins.store.store import Store, open_store

MODEL = "reviews-1@0123456789ab"
N = 60


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def asked(k: int, vectors: bool = True, **more: Any) -> StoredRequest:
    rng = np.random.default_rng(k)
    p = float(rng.uniform(0.5, 1))
    vector = rng.standard_normal(8).astype("<f2").tobytes() if vectors else None
    said = StoredPrediction(0, MODEL, "good", p, {"good": p, "bad": 1 - p})
    said = StoredPrediction(**{**{n: getattr(said, n) for n in said.__slots__}, **more})
    kept = StoredText(0, {"text": f"text {k}", "title": "a title"}, vector, None)
    return StoredRequest(f"{k:032d}", 1e9 + k, MODEL, 1, 0.01, None, (said,), (kept,))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(str(tmp_path / "store.db"))
    made.add_requests([asked(k) for k in range(N)])
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(store: Store, clock: Clock) -> Labelling:
    return Labelling(store, clock=clock)


def taken(item: LabelTask | None) -> LabelTask:
    assert item is not None
    return item


def test_a_row_comes_without_the_answer_and_with_its_classes(desk: Labelling) -> None:
    item = taken(desk.next_item("ann"))
    assert item.row["text"].startswith("text ")
    assert item.rule.classes == ("good", "bad")
    assert item.drawn == "uniform"
    assert "good" not in str(item.row)
    # Whoever asks again before he has answered gets the same.
    assert taken(desk.next_item("ann")).request == item.request


def test_the_classes_are_those_of_the_served_model_and_not_of_its_predictions(
    store: Store, desk: Labelling, tmp_path: Path
) -> None:
    facts = {"task": "token-classification", "label_kind": None, "columns": ["words"]}
    record_start(store, MODEL, {**facts, "classes": ["O", "B-PER", "B-LOC"]}, tmp_path)
    row = {"id": 7, "words": ["New York", "rains"]}
    said = StoredPrediction(0, MODEL, ["B-PER", "B-PER"], 0.9)
    store.add_requests(
        [StoredRequest("z" * 32, 2e9, MODEL, 1, 0.01, None, (said,), (StoredText(0, row),))]
    )
    desk.next_item("ann")
    item = desk.item("z" * 32, 0, "ann")
    shown = task_view(item)
    assert [name for name, _ in shown["choices"]] == ["O", "B-PER", "B-LOC"]
    assert shown["tokens"] == ["New York", "rains"]
    with pytest.raises(DataError, match="the row has 2 tokens"):
        desk.answer(item.request, item.index, "ann", ["B-LOC"])
    assert desk.answer(item.request, item.index, "ann", ["B-LOC", "O"]).label == ["B-LOC", "O"]


def test_labels_know_who_when_which_model_how_drawn_and_what_was_seen(
    desk: Labelling, store: Store, clock: Clock
) -> None:
    first = taken(desk.next_item("ann"))
    made = desk.answer(first.request, 0, "ann", " GOOD")
    assert (made.label, made.who, made.at, made.model) == ("good", "ann", clock.now, MODEL)
    assert (made.source, made.drawn, made.suggestion) == ("page", "uniform", "hidden")
    assert made.row == first.row
    second = taken(desk.next_item("ann"))
    assert second.request != first.request
    assert second.drawn == "chosen"
    assert desk.suggestion(second.request, 0, "ann").prediction == "good"
    assert desk.answer(second.request, 0, "ann", "bad").suggestion == "seen"
    assert store.claims(clock.now) == []


def test_a_label_that_is_no_class_is_refused_and_the_row_stays(desk: Labelling) -> None:
    item = taken(desk.next_item("ann"))
    with pytest.raises(DataError, match="Did you mean 'good'"):
        desk.answer(item.request, 0, "ann", "goood")
    assert taken(desk.next_item("ann")).request == item.request
    for who in ("", " ", "x" * 300, "a\x00b"):
        with pytest.raises(DataError, match="annotator"):
            desk.next_item(who)


def test_people_at_once_in_two_processes_never_have_the_same_row(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    other = open_store(str(tmp_path / "store.db"))
    desks = [Labelling(store, clock=clock), Labelling(other, clock=clock)]
    done: list[tuple[str, str]] = []

    def work(k: int) -> None:
        desk, who = desks[k % 2], f"p{k}"
        while (item := desk.next_item(who)) is not None:
            desk.answer(item.request, item.index, who, "bad")
            done.append((item.request, who))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert sorted(id for id, _ in done) == [f"{k:032d}" for k in range(N)]
    assert len({who for _, who in done}) > 1
    other.close()


def test_a_row_that_is_taken_comes_free_when_its_time_is_over(
    desk: Labelling, clock: Clock
) -> None:
    item = taken(desk.next_item("ann"))
    assert taken(desk.next_item("bob")).request != item.request
    clock.now += 601
    assert taken(desk.next_item("eve")).request == item.request


def test_who_has_seen_the_answer_has_seen_it_when_his_time_is_over_too(
    desk: Labelling, clock: Clock
) -> None:
    """Of a row drawn evenly, an answer that was seen would judge the model by its own word."""
    for seen, said in ((True, "seen"), (False, "hidden")):
        item = taken(desk.next_item("ann"))
        if seen:
            desk.suggestion(item.request, 0, "ann")
        clock.now += 601
        assert desk.answer(item.request, 0, "ann", "good").suggestion == said


def test_who_skips_does_not_get_it_again_and_others_do(desk: Labelling) -> None:
    item = taken(desk.next_item("ann"))
    desk.skip(item.request, 0, "ann")
    assert taken(desk.next_item("ann")).request != item.request
    assert taken(desk.next_item("bob")).request == item.request
    assert desk.progress().skipped == 1


def test_undo_takes_back_the_last_label_or_skip_and_leaves_no_trace_of_it(
    desk: Labelling, store: Store, clock: Clock
) -> None:
    assert desk.undo("ann") is None
    first = taken(desk.next_item("ann"))
    desk.suggestion(first.request, 0, "ann")
    desk.answer(first.request, 0, "ann", "bad")
    clock.now += 1
    second = taken(desk.next_item("ann"))
    desk.skip(second.request, 0, "ann")
    assert taken(desk.undo("ann")).request == second.request
    clock.now += 1
    assert taken(desk.undo("ann")).request == first.request
    assert store.feedback() == []
    # What was seen stays seen.
    assert desk.answer(first.request, 0, "ann", "good").suggestion == "seen"
    assert desk.undo("bob") is None


def test_the_number_of_how_right_the_model_is_comes_from_evenly_drawn_rows_alone(
    desk: Labelling, store: Store
) -> None:
    # Everybody volunteers the rows that are wrong; the model says "good" each time.
    wrong = {f"{k:032d}" for k in range(0, N, 3)}
    for id in wrong:
        store.add_feedback(Feedback(id, 0, "bad", "user", 1.0))
    while (item := desk.next_item("ann")) is not None:
        desk.answer(item.request, 0, "ann", "bad" if item.request in wrong else "good")
    found = desk.progress()
    place = order_keys([(f"{k:032d}", 0) for k in range(N)])
    even = [k for k in range(N) if place[k] < EVEN_SHARE]
    right = np.mean([f"{k:032d}" not in wrong for k in even])
    assert found.by_draw["uniform"] == len(even)
    assert found.accuracy[MODEL].value == pytest.approx(right)
    assert found.labelled == N


def test_what_the_model_left_to_people_is_neither_right_nor_wrong(
    tmp_path: Path, clock: Clock
) -> None:
    store = open_store(str(tmp_path / "left.db"))
    store.add_requests([asked(k, prediction=None, because="below") for k in range(N)])
    desk = Labelling(store, clock=clock)
    while (item := desk.next_item("ann")) is not None:
        desk.answer(item.request, 0, "ann", "good")
    assert desk.progress().accuracy == {}
    store.close()


def test_copies_are_not_chosen_twice_and_rows_without_vectors_have_a_queue(
    tmp_path: Path, clock: Clock
) -> None:
    store = open_store(str(tmp_path / "copies.db"))
    calls = [asked(k, vectors=False) for k in range(N)]
    # Another client names the columns in another order.
    turned = [
        replace(text, row=dict(reversed([*text.row.items()])))
        for one in calls
        for text in one.texts
    ]
    copies = [
        StoredRequest(f"{N + k:032d}", 2e9, MODEL, 1, 0.0, None, one.predictions, (text,))
        for k, (one, text) in enumerate(zip(calls, turned, strict=True))
    ]
    store.add_requests([*calls, *copies])
    desk = Labelling(store, clock=clock)
    chosen: list[str] = []
    while (item := desk.next_item("ann")) is not None:
        if item.drawn == "chosen":
            chosen.append(str(item.row["text"]))
        desk.answer(item.request, 0, "ann", "good")
    assert len(chosen) == len(set(chosen)) > 20
    store.close()


def test_a_row_that_was_deleted_meanwhile_is_gone_and_nothing_is_left_to_label(
    desk: Labelling, store: Store, clock: Clock
) -> None:
    item = taken(desk.next_item("ann"))
    store.delete(clock.now, by="request", value=item.request)
    with pytest.raises(DataError, match="no longer exists"):
        desk.answer(item.request, 0, "ann", "good")
    with pytest.raises(DataError, match="no longer exists"):
        desk.suggestion(item.request, 0, "ann")
    assert taken(desk.next_item("ann")).request != item.request
    for k in range(N):
        store.delete(clock.now, by="request", value=f"{k:032d}")
    clock.now += 61
    assert desk.next_item("ann") is None
    assert desk.progress().rows == 0


@pytest.mark.parametrize(
    ("prediction", "label", "kind"),
    [(["O", "B"], ["O", "O"], "tags"), (1.5, 2, "number"), ("a text", "another", "text")],
)
def test_every_kind_of_label_has_a_queue(
    tmp_path: Path, clock: Clock, prediction: Any, label: Any, kind: str
) -> None:
    store = open_store(str(tmp_path / "kinds.db"))
    more = {"prediction": prediction, "probabilities": None, "confidence": None}
    store.add_requests([asked(k, **more) for k in range(N)])
    desk = Labelling(store, clock=clock)
    item = taken(desk.next_item("ann"))
    assert item.rule.label_type == kind
    assert desk.answer(item.request, 0, "ann", label).label == label
    if kind == "text":
        item = taken(desk.next_item("ann"))
        made = desk.answer(item.request, 0, "ann", "write to jo@example.com")
        assert made.label == "write to [EMAIL]"
    store.close()


def test_rows_on_which_two_compared_models_differ_are_drawn_evenly_and_never_chosen(
    desk: Labelling, store: Store
) -> None:
    other = "challenger@1"
    differing = {f"{k:032d}" for k in range(0, N, 2)}
    for k in range(N):
        name = f"{k:032d}"
        answer = "bad" if name in differing else "good"
        store.add_predictions(name, [StoredPrediction(0, other, answer, 0.8, None, None, False)])
    latest = {"way": "shadow", "verdict": "undecided", "shown": MODEL, "challenger": other}
    store.save_state("comparison", latest, 1e9)
    ways: dict[str, set[str]] = {"uniform": set(), "unlike": set(), "chosen": set()}
    while (item := desk.next_item("ann")) is not None:
        made = desk.answer(item.request, item.index, "ann", "good")
        assert made.drawn == item.drawn
        ways[item.drawn].add(item.request)
    place = {name: float(order_keys([(name, 0)])[0]) for name in differing}
    assert ways["unlike"] == {name for name, at in place.items() if EVEN_SHARE <= at < 0.6}
    assert len(ways["unlike"]) > 5
    assert not ways["unlike"] & ways["chosen"]
    assert {name for name, at in place.items() if at < EVEN_SHARE} <= ways["uniform"]


def test_with_a_verdict_nothing_is_drawn_for_the_comparison(desk: Labelling, store: Store) -> None:
    latest = {"way": "shadow", "verdict": "better", "shown": MODEL, "challenger": "c@1"}
    store.save_state("comparison", latest, 1e9)
    for k in range(N):
        store.add_predictions(
            f"{k:032d}", [StoredPrediction(0, "c@1", "bad", 0.8, None, None, False)]
        )
    drawn = set()
    while (item := desk.next_item("ann")) is not None:
        drawn.add(desk.answer(item.request, item.index, "ann", "good").drawn)
    assert drawn == {"uniform", "chosen"}
