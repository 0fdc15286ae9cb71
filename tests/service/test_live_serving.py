from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stand_in import FACTS, StandIn

from holdfast.core.errors import RecipeError
from holdfast.plugins.live.arms import in_challenger
from holdfast.plugins.service.live.comparison import update_comparison
from holdfast.plugins.service.live.observer import ROWS_PER_CALL, ComparisonObserver, ShadowRunner
from holdfast.plugins.service.live.router import ComparisonSetup, EngineRouter, refuse_incompatible
from holdfast.plugins.service.records import QueueFull, RowPrediction, RowPredictions, Served
from holdfast.plugins.store.records import Row, user_mark
from holdfast.plugins.store.store import Store, open_store

OTHER = replace(FACTS, model="other@89abcdef", run=Path("other"))
SETUP = ComparisonSetup(FACTS.model, OTHER.model, FACTS.task, lag_s=0)


class Contrary(StandIn):
    """Says the other class of a text that begins with an x."""

    def __init__(self, **more: Any) -> None:
        super().__init__(OTHER, **more)
        self.sizes: list[int] = []

    async def answer(self, rows: Sequence[Row], deadline: float | None = None) -> RowPredictions:
        self.sizes.append(len(rows))
        found = await super().answer(rows, deadline)
        turned = {"good": "bad", "bad": "good"}
        return replace(
            found,
            answers=tuple(
                RowPrediction(turned[one.prediction], one.confidence)
                if str(row["text"]).startswith("x")
                else one
                for row, one in zip(rows, found.answers, strict=True)
            ),
        )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = open_store(str(tmp_path / "live.db"))
    yield found
    found.close()


def until(there: Callable[[], Any], within_s: float = 100.0) -> Any:
    """What ``there`` says, once it says something."""
    end = time.monotonic() + within_s
    while not (found := there()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


def served(name: str, texts: Sequence[str]) -> Served:
    rows = tuple({"text": one} for one in texts)
    return Served(
        name, 0.0, rows, RowPredictions(tuple(RowPrediction("good") for _ in rows), FACTS.model)
    )


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        (replace(OTHER, task="seq2seq"), "another task"),
        (replace(OTHER, label_kind="several"), "another label type"),
        (replace(OTHER, classes=("bad", "best")), "other classes"),
        (replace(OTHER, columns=("text", "title")), "columns"),
        (FACTS, "is the served model itself"),
    ],
)
def test_a_challenger_that_cannot_stand_for_the_model_is_refused(other: Any, rule: str) -> None:
    with pytest.raises(RecipeError, match=rule):
        refuse_incompatible(FACTS, other)
    refuse_incompatible(FACTS, replace(OTHER, classes=("good", "bad")))


def test_the_challenger_answers_in_small_parts_and_only_while_nobody_waits(store: Store) -> None:
    challenger, busy = Contrary(), threading.Event()
    busy.set()
    shadowing = ShadowRunner(challenger, store, busy.is_set)
    try:
        shadowing.put(served("r1", ["x"] * (ROWS_PER_CALL + 3)))
        time.sleep(0.1)
        assert challenger.sizes == []
        busy.clear()
        until(lambda: shadowing.asked)
        assert challenger.sizes == [ROWS_PER_CALL, 3]
        assert shadowing.figures()["dropped"] == 0
    finally:
        shadowing.close()


def test_what_it_cannot_keep_up_with_is_left_out_whole_and_counted(store: Store) -> None:
    challenger = Contrary()
    shadowing = ShadowRunner(challenger, store, lambda: True, patience_s=0.2)
    try:
        shadowing.put(served("r1", ["x"] * 20))
        shadowing.put(served("r2", ["x"]))
        until(lambda: shadowing.dropped == 2)
        assert challenger.answered == 0
        assert shadowing.waiting == 0
    finally:
        shadowing.close()


def test_after_requests_that_waited_too_long_the_challenger_goes_on(store: Store) -> None:
    challenger = Contrary(wait=0.1)
    shadowing = ShadowRunner(challenger, store, lambda: False, patience_s=0.05)

    def answered_later() -> int:
        # More than one: on a loaded machine a request may wait too long again.
        shadowing.put(served("later", ["x"]))
        return shadowing.asked

    try:
        for name in ("slow", "waits behind it"):
            shadowing.put(served(name, ["x"]))
        until(lambda: shadowing.dropped == 2)
        challenger.wait = 0.0
        until(answered_later, 10.0)
    finally:
        shadowing.close()


def test_a_challenger_with_a_defect_is_told_once_and_costs_nobody_else(store: Store) -> None:
    said: list[str] = []
    shadowing = ShadowRunner(Contrary(), store, lambda: False, log=said.append)
    try:
        for i in range(3):
            shadowing.put(served(f"r{i}", ["a defect"]))
        shadowing.put(served("last", ["x"]))
        until(lambda: shadowing.asked)
        assert shadowing.failed == 3
        (line,) = said
        assert "secret" not in line
    finally:
        shadowing.close()


def test_an_arm_is_answered_by_its_model_and_nobody_without_a_name_is(store: Store) -> None:
    setup = replace(SETUP, way="ab", share=0.4)
    lineup = EngineRouter(StandIn(), StandIn(OTHER), setup)

    async def ask(user: str | None) -> str:
        return (await lineup.answer([{"text": "a"}], None, user)).model

    for user in map(str, range(40)):
        mine = OTHER if in_challenger(user, setup.secret, 0.4) else FACTS
        assert asyncio.run(ask(user)) == mine.model
    assert asyncio.run(ask(None)) == FACTS.model
    assert lineup.figures()["requests_without_user"] == 1
    shadow = EngineRouter(StandIn(), StandIn(OTHER), SETUP)
    assert asyncio.run(shadow.answer([{"text": "a"}], None, "0")).model == FACTS.model


class Slow(StandIn):
    """Reads a request before it takes it, and takes none when it was closed."""

    async def answer(self, rows: Sequence[Row], deadline: float | None = None) -> RowPredictions:
        await asyncio.sleep(0.03)
        if not self.ready:
            raise QueueFull(1.0, "it has ended")
        return await super().answer(rows, deadline)


def test_a_change_of_model_loses_no_request() -> None:
    """Requests go on while one model after the other takes over; each is answered by one of them,
    and a model ends only when its requests have their answers."""
    models = [Slow(replace(FACTS, model=f"m{i}@0"), wait=0.02) for i in range(4)]
    lineup, heard, asked = EngineRouter(models[0]), [], []

    async def ask() -> None:
        heard.append((await lineup.answer([{"text": "a"}])).model)

    def change() -> None:
        for before, model in itertools.pairwise(models):
            while before.answered < 5:
                time.sleep(0.01)
            for old in lineup.take_over(model):
                lineup.retire(old)
                assert not old.ready

    async def all_of_them() -> None:
        changing = asyncio.create_task(asyncio.to_thread(change))
        while not changing.done() or not models[-1].answered:
            asked.append(asyncio.create_task(ask()))
            await asyncio.sleep(0.002)
        await asyncio.gather(changing, *asked)

    asyncio.run(all_of_them())
    assert len(heard) == len(asked)
    assert set(heard) == {model.facts.model for model in models}
    assert sum(model.answered for model in models) == len(asked)


@pytest.mark.slow
def test_over_http_both_answer_one_is_shown_and_labels_make_evidence(
    serving_of: Callable[..., Any], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store.db"))
    challenger = Contrary()
    setup = replace(SETUP, lag_s=0.5)
    lineup = EngineRouter(StandIn(), challenger, setup)
    shadowing = ShadowRunner(challenger, store, lambda: lineup.busy)
    watcher = ComparisonObserver(setup, store, shadowing, update_interval_s=0.05)
    lineup.end_comparison = watcher.close
    client = serving_of(lineup, [watcher], store=True)
    for _ in range(30):
        made = client.post("/predict", json={"texts": ["xy", "ab"]}).json()
        assert [one["prediction"] for one in made["predictions"]] == ["good", "good"]
        # What is right of every row, whatever was answered.
        for index, right in enumerate(("bad", "good")):
            body = {"id": made["id"], "index": index, "label": right, "who": "truth"}
            more = {"seen": False, "drawn": "uniform"}
            assert client.post("/feedback", json=body | more).status_code == 200
    until(lambda: client.service.observer_summaries()["comparison"].get("labels") == 30)
    said = client.get("/comparison").json()["observers"]["comparison"]
    assert said["rows"] == 60
    assert said["unlike"] == 30
    assert said["counted"]["challenger_right"] == 30
    assert said["counted"]["shown_right"] == said["labels_without_both_answers"] == 0
    assert said["verdict"] == "better"
    assert said["agreement"]["value"] == 0.5
    assert "holdfast_comparison_unlike" in client.get("/metrics").text
    wrong = client.post("/feedback", json={"id": made["id"], "label": "bad", "drawn": "lots"})
    assert wrong.status_code == 400
    assert "uniform" in wrong.json()["error"]["rule"]
    store.close()


def test_over_http_users_stay_in_their_arm(serving_of: Callable[..., Any], tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store.db"))
    setup = replace(SETUP, way="ab", window_s=3600, most=1.0)
    lineup = EngineRouter(StandIn(), StandIn(OTHER), setup)
    client = serving_of(lineup, [], store=True)
    update_comparison(store, setup, time.time())
    for i in range(40):
        user = f"person {i % 20}"
        made = client.post("/predict", json={"texts": ["a"], "user": user}).json()
        mine = in_challenger(user_mark(user), setup.secret, 0.5)
        assert made["model"] == (OTHER.model if mine else FACTS.model)
        client.post("/feedback", json={"id": made["id"], "outcome": 1})
    until(lambda: len(store.outcomes()) == 40)
    assert update_comparison(store, setup, time.time()).summary()["users"] == 0
    said = update_comparison(store, setup, time.time() + 2 * setup.window_s).summary()
    assert said["users"] == 20
    assert said["ratio"]["shown"] + said["ratio"]["challenger"] == 20
    assert said["arms"]["challenger"]["mean"] == said["arms"]["shown"]["mean"] == 1.0
    store.close()


def test_conversations_are_not_compared_and_counted(store: Store) -> None:
    challenger = Contrary()
    shadowing = ShadowRunner(challenger, store, lambda: False)
    watcher = ComparisonObserver(SETUP, store, shadowing, update_interval_s=5)
    try:
        watcher.observe(replace(served("r1", ["x"]), conversation=True))
        watcher.observe(served("r2", ["x"]))
        until(lambda: shadowing.asked)
        assert challenger.sizes == [1]
        assert watcher.summary()["conversations_not_compared"] == 1
    finally:
        watcher.close()
