"""A service as its store tells it, and rows labelled on a page: what is shown, what is written."""

from __future__ import annotations

import math
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.plugins.dashboard.service_view import columns, service_view, traffic_by_part
from holdfast.plugins.store.records import (
    Event,
    StoredPrediction,
    StoredRequest,
    StoredText,
    new_id,
)
from holdfast.plugins.store.store import Store, open_store

NOW = 1_800_000_000.0
ORIGIN = {"origin": "http://127.0.0.1:8081"}
CLASSES = ("bad", "good")


def fill(store: Store, n: int = 40, texts: bool = True) -> list[StoredRequest]:
    """Requests of the last hours, each with a row whose text is kept."""
    rng = random.Random(0)
    made = []
    for place in range(n):
        at = NOW - 3_600 + 60 * place
        sure = 0.5 + rng.random() / 2
        said = StoredPrediction(0, "m@1", "good", sure, {"good": sure, "bad": 1 - sure})
        kept = StoredText(0, {"text": f"<b>row {place}</b> of {rng.random()}"})
        id = new_id(at)
        made.append(
            StoredRequest(id, at, "m@1", 1, 0.01 * (1 + place % 4), None, (said,), (kept,) * texts)
        )
    store.add_requests(made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(str(tmp_path / "store.db"))
    yield made
    made.close()


@pytest.fixture
def client(store: Store, shelf: Path, open_client: Callable[..., Any]) -> Iterator[Any]:
    with open_client(shelf, store) as made:
        made.dashboard.clock = lambda: NOW
        yield made


def test_parts_of_time_are_counted_as_a_plain_loop_counts_them() -> None:
    rng = np.random.default_rng(0)
    at, rows, seconds = 100 + 50 * rng.random(400), rng.integers(1, 9, 400), rng.random(400)
    found = traffic_by_part(at, rows, seconds, 100.0, 50.0, 7)
    for place in range(7):
        low, high = 100 + 50 * place / 7, 100 + 50 * (place + 1) / 7
        mine = [i for i in range(400) if low <= at[i] < high]
        assert found.requests[place] == len(mine)
        assert found.rows[place] == sum(int(rows[i]) for i in mine)
        assert math.isclose(found.median_s[place], np.median([seconds[i] for i in mine]))
    empty = traffic_by_part(np.array([]), np.array([]), np.array([]), 0.0, 1.0, 3)
    assert empty.requests == (0, 0, 0)
    assert all(value != value for value in empty.median_s)


def test_a_store_without_anything_is_a_page_all_the_same(client: Any) -> None:
    for span in ("hour", "day", "week", "month", "nonsense"):
        page = client.get(f"/service?span={span}")
        assert page.status_code == 200
        assert "There were no requests" in page.text


def test_without_a_store_the_pages_say_how_to_have_one(asked: Any) -> None:
    for address in ("/service", "/label"):
        assert "--store service.db" in asked.get(address).text
    assert asked.post("/label", data={"action": "store"}, headers=ORIGIN).status_code == 200


def test_the_service_page_tells_what_the_store_knows(client: Any, store: Store) -> None:
    fill(store)
    because = "the challenger is better: of 40 labelled rows it alone has 30 right"
    store.save_state(
        "comparison",
        {
            "at": NOW,
            "way": "shadow",
            "verdict": "better",
            "because": because,
            "next": "promote",
            "difference": {"value": 0.05, "low": 0.01, "high": 0.09},
            "labels": 40,
            "challenger": "new@2",
        },
        NOW,
    )
    store.save_state("said: other", {"because": "all is well", "seen": 7}, NOW)
    estimated = {"accuracy_estimated": 0.83, "accuracy_low": 0.78, "accuracy_high": 0.88}
    store.save_state("said: drift", {"rows": 900, "alarms": 1, **estimated}, NOW)
    store.append(Event("drift", NOW, {"side": "inputs", "because": "rows are <i>new</i>"}))
    terms = [
        {"word": "refund", "now": 0.31, "then": 0.02, "z": 9.1},
        {"word": "<u>late</u>", "now": 0.2, "then": 0.0, "z": 5.0},
    ]
    examples = [{"row": "r/0", "text": "I want <b>my</b> money back"}, {"row": "r/1"}]
    harm = {"labels": 1_080, "wrong": 30, "allowed": 0.01}
    store.append(Event("harm", NOW + 1, harm))
    store.append(Event("drift regime", NOW, {"terms": terms, "examples": examples}))
    for place, value in enumerate((0.9, 0.88, 0.7)):
        body = {"metric": "accuracy", "n": 100, "value": value, "low": value - 0.05}
        body |= {"promised": 0.85, "alarm": place == 2, "because": f"test {place}"}
        store.append(Event("retest", NOW + place, body))
    store.append(Event("promotion", NOW, {"from": "m@1", "to": "new@2", "who": "ada"}))
    store.append(Event("deletion", NOW, {"by": "user", "gone": {"texts": 3}}))
    page = client.get("/service")
    text = page.text
    assert page.status_code == 200
    assert because[1:] in text
    assert "+5.0 points (+1.0 to +9.0)" in text
    assert "holdfast promote" in text
    assert "rows are &lt;i&gt;new&lt;/i&gt;" in text
    assert "refund" in text
    assert "31.0\u00a0%" in text
    assert "83.0\u00a0% (78.0–88.0)" in text
    assert "I want &lt;b&gt;my&lt;/b&gt; money back" in text
    assert "2 alarms" in text
    assert "30 of 1,080 labelled rows that were drawn uniformly are wrong" in text
    assert "all is well" in text
    assert "&lt;u&gt;late" in text
    assert "test 2" in text
    assert "gone texts 3" in text
    assert "new@2" in text
    assert re.search(r'class="figure">40<', text)
    assert text.count('class="column"') >= 1
    assert "40.0\u00a0ms" in text


def test_a_metric_is_drawn_over_time_from_its_second_retest_on(store: Store) -> None:
    def retest(at: float, value: float) -> None:
        store.append(Event("retest", at, {"metric": "accuracy", "n": 100, "value": value}))

    retest(NOW, 0.9)
    assert service_view(store, NOW)["trend"] == ""
    retest(NOW + 1, 0.8)
    assert "Re-tests" in service_view(store, NOW)["trend"]


def test_the_numbers_of_a_column_chart_stand_level_with_their_lines() -> None:
    drawn = columns("traffic", "Requests", (NOW, NOW + 60), (3, 8))
    for axes in ET.fromstring(f"<all>{drawn}</all>").iter("g"):
        lines = [float(line.attrib["y1"]) for line in axes.findall("line")]
        numbers = [float(one.attrib["y"]) for one in axes.findall("text[@text-anchor]")]
        assert len(numbers) > 1
        # A text is placed by its baseline, and its digits are about 9 high.
        assert [below - line for below, line in zip(numbers, lines, strict=True)] == pytest.approx(
            [4.5] * len(lines), abs=1.5
        )


def test_a_store_that_is_gone_is_a_page_that_says_so(
    client: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.core.errors import StoreError

    def gone(*_: Any, **__: Any) -> Any:
        raise StoreError("the store", "cannot be used as a store", None, "Check that it is there.")

    monkeypatch.setattr(store, "_read", gone)
    page = client.get("/service")
    assert page.status_code == 503
    assert "Check that it is there." in page.text


def name(client: Any, who: str = "Ada") -> None:
    answer = client.post("/label", data={"action": "name", "who": who}, headers=ORIGIN)
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def shown_task(page: str) -> dict[str, str]:
    found = dict(re.findall(r'name="(request|index)" value="([^"]*)"', page))
    text = re.search(r'<div class="user" dir="auto">(.*?)</div>', page, re.DOTALL)
    return found | {"text": text[1] if text else ""}


def test_a_row_is_labelled_skipped_taken_back_and_shown(client: Any, store: Store) -> None:
    fill(store)
    assert "Your name" in client.get("/label").text
    name(client)
    page = client.get("/label").text
    first = shown_task(page)
    assert "&lt;b&gt;row" in first["text"]
    assert "The model predicts" not in page
    # Nothing of the answer is in the page, not even hidden.
    assert "0.5" not in re.sub(r"<div class=\"user\".*?</div>", "", page, flags=re.DOTALL)
    assert page.count('type="radio"') == 2

    def do(action: str, part: bool = True, **more: str) -> Any:
        given = {"action": action, **{k: first[k] for k in ("request", "index")}, **more}
        return client.post("/label" + "?part=task" * part, data=given, headers=ORIGIN)

    second = shown_task(do("store", label="bad").text)
    assert second["request"] != first["request"]
    (label,) = store.feedback()
    assert (label.request, label.label, label.who) == (first["request"], "bad", "Ada")
    assert (label.source, label.suggestion, label.model) == ("page", "hidden", "m@1")
    assert label.drawn in ("uniform", "chosen")
    back = do("undo").text
    assert shown_task(back)["request"] == first["request"]
    assert store.feedback() == []
    seen = do("suggest").text
    assert shown_task(seen)["request"] == first["request"]
    assert re.search(r"The model predicts: .*good", seen)
    do("store", label="good")
    assert store.feedback()[0].suggestion == "seen"
    first = shown_task(client.get("/label").text)
    third = shown_task(do("skip").text)
    assert third["request"] not in (first["request"], label.request)
    wrong = do("store", label="neither")
    assert 'role="alert"' in wrong.text
    assert len(store.feedback()) == 1
    # A form without a script: what was stored is not stored again by loading the page anew.
    first = shown_task(client.get("/label").text)
    plain = do("store", part=False, label="bad")
    assert (plain.status_code, plain.headers["location"]) == (
        303,
        f"{client.dashboard.access.base}/label",
    )
    assert len(store.feedback()) == 2


def test_a_picture_is_shown_and_nothing_that_only_begins_like_one() -> None:
    from holdfast.plugins.dashboard.labels import image_uri

    whole = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"
    assert image_uri(whole) == f"data:image/png;base64,{whole}"
    for other in (whole + '" onerror="x', "iVBORw0KGgo<b>", "text", "", 7, None, whole + "\n"):
        assert image_uri(other) == ""


def test_a_page_of_the_service_renews_itself(client: Any, store: Store) -> None:
    fill(store, 3)
    part = client.get("/service?part=view&span=week").text
    assert "<html" not in part
    assert re.search(r'class="figure">3<', part)


def test_several_pages_share_one_look_at_the_store(
    client: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.plugins.dashboard.resources.LEAST_S", 3_600.0)
    first = client.get("/service").text
    fill(store, 7)
    assert client.get("/service").text == first
    assert re.search(r'class="figure">7<', client.get("/service?span=week").text)


def test_two_people_never_have_the_same_row(
    client: Any, store: Store, shelf: Path, open_client: Callable[..., Any]
) -> None:
    fill(store, 12)
    name(client)
    with open_client(shelf, store) as other:
        other.dashboard.clock = lambda: NOW
        name(other, "Björn")
        mine, his = (shown_task(one.get("/label").text) for one in (client, other))
        assert mine["request"] != his["request"]


def test_nothing_left_is_said(client: Any, store: Store) -> None:
    fill(store, 3, texts=False)
    name(client)
    page = client.get("/label").text
    assert "No rows are left to label" in page
    assert "--set serve.log_texts=true" in page


def test_an_answer_that_was_seen_stays_where_no_label_was_chosen(client: Any, store: Store) -> None:
    fill(store, 3)
    name(client)
    task = shown_task(client.get("/label").text)
    given = {"request": task["request"], "index": task["index"], "shown": "1"}
    seen = client.post("/label?part=task", data=given | {"action": "suggest"}, headers=ORIGIN).text
    assert 'name="shown" value="1"' in seen
    again = client.post("/label?part=task", data=given | {"action": "store"}, headers=ORIGIN).text
    assert "Choose one" in again
    assert "The model predicts" in again


def test_too_few_even_rows_say_how_many_are_needed(client: Any, store: Store) -> None:
    fill(store)
    name(client)
    task = shown_task(client.get("/label").text)
    given = {"request": task["request"], "index": task["index"], "label": "bad"}
    page = client.post("/label?part=task", data=given | {"action": "store"}, headers=ORIGIN).text
    assert "not yet known: 1 of the 10 uniformly drawn rows it needs are labelled" in page


@pytest.mark.parametrize(
    ("classes", "keys"),
    [
        (("bad", "good"), ["1", "2"]),
        (("0", "1"), ["0", "1"]),
        (("1", "2", "10"), ["1", "2", ""]),
        (tuple(f"c{place}" for place in range(11)), [*map(str, range(1, 10)), "", ""]),
    ],
)
def test_a_class_that_is_a_digit_has_that_key(classes: tuple[str, ...], keys: list[str]) -> None:
    from holdfast.plugins.dashboard.labels import choices_with_keys

    assert [key for _, key in choices_with_keys(classes)] == keys


@pytest.mark.parametrize("who", ["", "   ", "a\u202eb", "x" * 300])
def test_a_name_that_is_none_is_asked_for_again(client: Any, store: Store, who: str) -> None:
    fill(store, 3)
    client.post("/label", data={"action": "name", "who": who}, headers=ORIGIN)
    assert "Your name" in client.get("/label").text


@pytest.mark.parametrize("address", ["/label", "/feedback?run=fine"])
def test_no_label_comes_from_another_page_or_without_the_cookie(
    client: Any, store: Store, address: str
) -> None:
    made = fill(store)
    given = {"action": "store", "request": made[0].id, "index": "0", "label": "bad", "who": "Eve"}
    for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}):
        assert client.post(address, data=given, headers=headers).status_code == 403
    client.cookies.clear()
    assert client.post(address, data=given, headers=ORIGIN).status_code == 401
    assert store.feedback() == []


@pytest.mark.parametrize(
    "given",
    [
        {"action": "store", "request": "x", "index": "0", "label": "bad"},
        {"action": "store", "request": "", "index": "-1"},
        {"action": "store", "index": "9" * 40},
        {"action": "suggest", "request": "x' OR 1=1 --", "index": "0"},
        {"action": "skip", "request": "", "index": "x"},
        {"action": "undo"},
        {"action": "nonsense"},
    ],
)
def test_forms_that_somebody_made_up_change_nothing(
    client: Any, store: Store, given: dict[str, str]
) -> None:
    fill(store, 5)
    name(client)
    assert client.post("/label?part=task", data=given, headers=ORIGIN).status_code == 200
    assert store.feedback() == []


def test_a_tried_row_is_corrected_into_the_store(
    finished_run: Path, store: Store, open_client: Callable[..., Any]
) -> None:
    with open_client(finished_run.parent, store) as client:
        run = f"run={finished_run.name}"
        answer = client.post(
            f"/try?{run}&part=answer", data={"f.text": "w1 good w2", "why": "1"}, headers=ORIGIN
        )
        assert answer.status_code == 200
        classes = re.findall(r'<option value="([^"]*)"', answer.text)
        assert len(classes) == 2
        assert 'class="reading' in answer.text
        kept = re.search(r'name="answer" value="([^"]*)"', answer.text)
        assert kept is not None
        given = {"answer": kept[1], "label": classes[0], "who": "Ada"}
        assert client.post(f"/feedback?{run}", data=given, headers=ORIGIN).status_code == 303
        (label,) = store.feedback()
        assert (label.label, label.who, label.source) == (classes[0], "Ada", "page")
        assert (label.drawn, label.suggestion) == ("volunteered", "seen")
        assert label.row == {"text": "w1 good w2"}
        assert label.model is not None
        assert label.model.startswith(f"{finished_run.name}@")
        for bad in ({"label": "neither"}, {"who": " "}, {"answer": "x"}):
            refused = client.post(f"/feedback?{run}", data=given | bad, headers=ORIGIN)
            assert refused.status_code == 400
        assert len(store.feedback()) == 1
