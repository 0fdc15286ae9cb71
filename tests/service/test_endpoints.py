"""Every endpoint, asked in one process: what it answers, what it refuses, what it leaves behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from stand_in import CLASSES, FACTS, Onlooker, StandIn

Make = Callable[..., Any]
TOKEN = "a-token-of-some-length"


def error(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()["error"]
    assert set(found) == {"what", "rule", "value", "do"}
    assert found["do"]
    return dict(found)


def test_rows_are_answered_in_their_order_with_null_below_the_threshold(serving_of: Make) -> None:
    answer = serving_of().post("/predict", json={"texts": ["ab", "abc", ""], "user": "ann"}).json()
    assert [one["prediction"] for one in answer["predictions"]] == ["good", "bad", None]
    assert answer["predictions"][2]["because"] == "below the threshold 0.6"
    assert answer["predictions"][0]["probabilities"] == {"bad": 1 - 0.9, "good": 0.9}
    assert len(answer["id"]) == 32


def test_one_text_one_row_and_many_rows_are_the_same_question(serving_of: Make) -> None:
    client = serving_of()
    asked = [
        {"text": "ab"},
        {"texts": ["ab"]},
        {"row": {"text": "ab"}},
        {"rows": [{"text": "ab", "other": 3}]},
    ]
    answers = [client.post("/predict", json=one).json()["predictions"] for one in asked]
    assert answers == [answers[0]] * 4


def test_thousands_of_rows_are_one_request(serving_of: Make) -> None:
    texts = ["x" * (k % 7) for k in range(5000)]
    answer = serving_of().post("/predict", json={"texts": texts}).json()
    said = [one["prediction"] for one in answer["predictions"]]
    assert said == [None if not t else "good" if len(t) % 2 == 0 else "bad" for t in texts]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({}, "the body"),
        ({"texts": []}, "texts"),
        ({"texts": "ab"}, "texts"),
        ({"texts": ["ab", 3]}, "texts[1]"),
        ({"texts": [None]}, "texts[0]"),
        ({"texts": ["a"], "rows": [{"text": "a"}]}, "the body"),
        ({"rows": ["ab"]}, "rows[0]"),
        ({"rows": [{"txt": "ab"}]}, "rows[0]"),
        ({"text": "ab", "usr": "ann"}, "the body"),
        ({"text": "ab", "user": ""}, "user"),
        ({"text": "ab", "user": 3}, "user"),
        ({"text": "ab", "user": "u" * 501}, "user"),
        ({"texts": ["ab"] * 11}, "texts"),
        ({"text": "x" * 101}, "texts[0]"),
        ({"rows": [{"text": "x" * 101}]}, "rows[0].text"),
        ({"text": "a row that cannot be read"}, "row 0"),
    ],
)
def test_what_cannot_be_answered_is_400_and_says_where(
    serving_of: Make, body: Any, what: str
) -> None:
    client = serving_of(settings=["serve.max_rows=10", "serve.max_characters=100"])
    assert error(client.post("/predict", json=body), 400)["what"] == what


def test_a_missing_column_is_named_with_what_stands_in_its_place(serving_of: Make) -> None:
    found = error(serving_of().post("/predict", json={"row": {"txt": "ab"}}), 400)
    assert "'text'" in found["rule"]
    assert found["do"] == "Rename 'txt' to 'text'."


def test_a_model_of_pairs_takes_rows_and_no_texts(serving_of: Make) -> None:
    client = serving_of(StandIn(replace(FACTS, columns=("premise", "hypothesis"))))
    assert "premise" in error(client.post("/predict", json={"text": "ab"}), 400)["do"]
    row = {"premise": "ab", "hypothesis": "c"}
    assert client.post("/predict", json={"row": row}).status_code == 200
    assert error(client.post("/predict", json={"row": {"premise": "ab"}}), 400)


def test_a_model_of_tokens_takes_lists_and_names_its_task(serving_of: Make) -> None:
    facts = replace(FACTS, task="token-classification", columns=("tokens",), classes=None)
    client = serving_of(StandIn(facts))
    assert (
        "token-classification" in error(client.post("/predict", json={"text": "ab"}), 400)["rule"]
    )
    answer = client.post("/predict", json={"rows": [{"tokens": ["a", "b"]}]}).json()
    assert answer["predictions"][0]["prediction"] == ["O", "O"]


@pytest.mark.slow
def test_full_late_loading_and_ending_are_503_with_a_time_to_come_back(serving_of: Make) -> None:
    engine = StandIn()
    client = serving_of(engine, settings=["serve.timeout_s=0.5"])
    engine.full = True
    answer = client.post("/predict", json={"text": "ab"})
    assert error(answer, 503)
    assert answer.headers["retry-after"] == "4"
    engine.full, engine.wait = False, 1.0
    assert "in time" in error(client.post("/predict", json={"text": "ab"}), 503)["rule"]
    engine.wait = 0.0
    client.service.draining = True
    assert client.post("/predict", json={"text": "ab"}).status_code == 200
    assert client.get("/health/ready").status_code == 503
    assert client.get("/v2/health/ready").status_code == 503
    client.service.stopping = True
    assert "shutting down" in error(client.post("/predict", json={"text": "ab"}), 503)["rule"]
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").json() == {
        "ready": False,
        "because": "the service is shutting down",
    }
    early = serving_of(begun=False)
    assert early.get("/health/live").status_code == 200
    assert early.get("/health/ready").status_code == 503
    assert early.get("/v2/health/ready").status_code == 503
    assert "loading" in error(early.post("/predict", json={"text": "ab"}), 503)["rule"]
    assert b"holdfast_ready 0.0" in early.get("/metrics").content


def test_a_defect_is_500_and_neither_its_words_nor_the_text_get_out(serving_of: Make) -> None:
    client = serving_of()
    found = error(client.post("/predict", json={"text": "a defect"}), 500)
    (line,) = client.said
    assert found["value"].strip("'") in line
    assert "stand_in.py" in line
    assert "secret text" not in line + str(found)
    assert "Traceback" not in str(found)


def test_paths_methods_and_types_that_are_not_there(serving_of: Make) -> None:
    client = serving_of()
    error(client.get("/nope"), 404)
    error(client.get("/predict/"), 404)
    error(client.get("/../etc/passwd"), 404)
    answer = client.get("/predict")
    error(answer, 405)
    assert answer.headers["allow"] == "POST"
    error(client.post("/predict", content=b"text=a", headers={"content-type": "text/plain"}), 415)
    error(client.post("/predict", content=b"x" * 17_000_000), 413)
    assert "error" in client.get("/v2/none").json()
    assert isinstance(client.get("/v2/none").json()["error"], str)
    assert client.get("/v1/none").json()["error"]["type"] == "invalid_request_error"


def test_head_is_answered_as_get_without_a_body(serving_of: Make) -> None:
    answer = serving_of().head("/health/live")
    assert (answer.status_code, answer.content) == (200, b"")


def test_with_a_token_only_health_and_the_bare_page_are_open(serving_of: Make) -> None:
    client = serving_of(token=TOKEN)
    paths = {one.path: one for one in client.app.endpoints}
    for path, one in paths.items():
        where = path.replace("{name}", "reviews").replace("{version}", "1")
        answer = client.request(one.method, where, json={})
        assert (answer.status_code == 401) is (not one.without_token), path
        assert TOKEN not in answer.text
    opened = {path for path, one in paths.items() if one.without_token}
    assert opened == {"/", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
    known = {"authorization": f"Bearer {TOKEN}"}
    assert client.post("/predict", json={"text": "ab"}, headers=known).status_code == 200


def test_v2_answers_as_predict_does(serving_of: Make) -> None:
    client = serving_of()
    plain = client.post("/predict", json={"texts": ["ab", "abc", ""]}).json()["predictions"]
    body = {
        "id": "mine",
        "inputs": [
            {"name": "any", "shape": [3, 1], "datatype": "BYTES", "data": ["ab", "abc", ""]}
        ],
    }
    for path in ("/v2/models/reviews/infer", "/v2/models/reviews/versions/1/infer"):
        answer = client.post(path, json=body).json()
        made = {one["name"]: one for one in answer["outputs"]}
        assert made["label"]["data"] == ["good", "bad", ""]
        assert made["answered"]["data"] == [True, True, False]
        flat = [one["probabilities"][name] for one in plain for name in CLASSES]
        assert made["probabilities"]["data"] == flat
        assert made["probabilities"]["shape"] == [3, 2]
        assert (answer["model_name"], answer["id"]) == ("reviews", "mine")
    body["outputs"] = [{"name": "label"}]
    (only,) = client.post("/v2/models/reviews/infer", json=body).json()["outputs"]
    assert only["name"] == "label"


TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [1]}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "WORDS", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [-1], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [0], "datatype": "BYTES", "data": []}]},
        {"inputs": [{"name": "text", "shape": [2, 0], "datatype": "BYTES", "data": []}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": "a"}]},
        {"inputs": [{"shape": [1], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{**TENSOR, "parameters": 1}]},
        {"inputs": [{**TENSOR, "parameters": ["binary_data_size"]}]},
        {"inputs": [{**TENSOR, "parameters": {"binary_data_size": 3}}]},
        {
            "inputs": [
                {"name": "a", "shape": [1], "datatype": "BYTES", "data": ["a"]},
                {"name": "b", "shape": [1], "datatype": "BYTES", "data": ["a"]},
            ]
        },
        {"outputs": [{"name": "logits"}]},
        {"id": 3},
    ],
)
def test_tensors_that_do_not_fit_are_400_in_the_protocols_shape(
    serving_of: Make, change: Any
) -> None:
    body = {"inputs": [TENSOR]}
    answer = serving_of().post("/v2/models/reviews/infer", json=body | change)
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)


def test_other_models_and_versions_are_404(serving_of: Make) -> None:
    client = serving_of()
    assert client.get("/v2/models/other").status_code == 404
    assert client.get("/v2/models/reviews/versions/2").status_code == 404
    assert client.get("/v2/models/reviews/versions/1/ready").json()["ready"] is True


def test_labels_are_on_the_disk_with_their_row_before_they_are_confirmed(serving_of: Make) -> None:
    client = serving_of(store=True)
    request = client.post("/predict", json={"texts": ["ab", "abc"]}).json()["id"]
    sent = {"id": request, "index": 1, "label": "good", "who": "ann", "seen": True}
    answer = client.post("/feedback", json=sent)
    assert answer.json()["number"] == 1
    (kept,) = client.service.store.feedback()
    assert (kept.request, kept.index, kept.label, kept.who) == (request, 1, "good", "ann")
    assert (kept.model, kept.suggestion, kept.row) == (FACTS.model, "seen", {"text": "abc"})
    outcome = client.post("/feedback", json={"id": request, "outcome": 1})
    assert outcome.status_code == 200
    (came,) = client.service.store.outcomes()
    assert (came.request, came.value) == (request, 1.0)


@pytest.mark.parametrize(
    ("change", "status", "what"),
    [
        ({"id": "0" * 32}, 404, "id"),
        ({"id": 3}, 400, "id"),
        ({"index": 2}, 400, "index"),
        ({"index": -1}, 400, "index"),
        ({"index": True}, 400, "index"),
        ({"label": "goood"}, 400, "label"),
        ({"label": True}, 400, "label"),
        ({"label": {"a": 1}}, 400, "label"),
        ({"label": None}, 400, "the body"),
        ({"outcome": 1}, 400, "the body"),
        ({"label": None, "outcome": "yes"}, 400, "outcome"),
        ({"label": None, "outcome": 10**400}, 400, "outcome"),
        ({"who": ""}, 400, "who"),
        ({"seen": "no"}, 400, "seen"),
        ({"whom": "ann"}, 400, "the body"),
    ],
)
def test_labels_that_mean_nothing_are_refused(
    serving_of: Make, change: Any, status: int, what: str
) -> None:
    client = serving_of(store=True)
    request = client.post("/predict", json={"texts": ["ab", "abc"]}).json()["id"]
    body = {"id": request, "index": 0, "label": "good", "who": "ann"} | change
    assert error(client.post("/feedback", json=body), status)["what"] == what
    assert client.service.store.feedback() == []


def test_labels_need_a_store(serving_of: Make) -> None:
    assert (
        "--store"
        in error(serving_of().post("/feedback", json={"id": "a", "label": "good"}), 400)["do"]
    )


def test_requests_are_written_without_their_texts_and_users_as_marks(serving_of: Make) -> None:
    client = serving_of(store=True)
    request = client.post("/predict", json={"text": "a secret", "user": "ann@b.example"}).json()[
        "id"
    ]
    store = client.service.store
    found = _until(lambda: store.request(request))
    assert found.predictions[0].prediction == "good"
    assert found.texts == ()
    assert found.user is not None
    assert "ann" not in found.user
    again = client.post("/predict", json={"text": "b", "user": "ann@b.example"}).json()["id"]
    assert _until(lambda: store.request(again)).user == found.user


def test_texts_are_kept_where_that_is_asked_for_until_their_time(serving_of: Make) -> None:
    client = serving_of(store=True, settings=["serve.log_texts=true", "serve.retention_days=2"])
    request = client.post("/predict", json={"text": "ab"}).json()["id"]
    found = _until(lambda: client.service.store.request(request))
    (kept,) = found.texts
    assert kept.row == {"text": "ab"}
    assert kept.expires_at == pytest.approx(found.at + 2 * 86_400)


def _until(found: Callable[[], Any]) -> Any:
    for _ in range(500):
        if (value := found()) is not None:
            return value
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_observers_see_answers_and_labels_and_are_asked(serving_of: Make) -> None:
    watcher = Onlooker()
    client = serving_of(observers=[watcher], store=True)
    request = client.post("/predict", json={"texts": ["ab", "abc"]}).json()["id"]
    client.post("/feedback", json={"id": request, "label": "good", "who": "ann"})
    client.post("/feedback", json={"id": request, "index": 1, "label": "bad", "who": "ann"})
    _until(lambda: watcher.saw[2:] or None)
    served, label, other = watcher.saw
    assert served.rows == ({"text": "ab"}, {"text": "abc"})
    assert (served.request, label.label, other.label) == (request, "good", "bad")
    said = _until(lambda: _said(client, 3))
    assert said["words"] == "none"
    text = client.get("/metrics").text
    assert "holdfast_drift_requests 3.0" in text
    assert "holdfast_drift_alarm 0.0" in text
    _until(lambda: client.service.store.events("drift alarm") or None)
    assert error(client.get("/comparison"), 404)
    client.service.observer_thread.close(5)
    assert client.service.store.state(f"observer: drift {FACTS.model}") == {"n": 3}


def _said(client: Any, requests: int) -> Any:
    found = client.get("/drift")
    words = found.json()["observers"]["drift"] if found.status_code == 200 else {}
    return words if words.get("requests") == requests else None


def test_a_defect_of_an_observer_switches_it_off_and_costs_no_answer(serving_of: Make) -> None:
    broken, whole = Onlooker("broken"), Onlooker("drift")
    broken.broken = True
    client = serving_of(observers=[broken, whole])
    for _ in range(3):
        assert client.post("/predict", json={"text": "ab"}).status_code == 200
    _until(lambda: whole.saw[2:] or None)
    assert [one.name for one in client.service.observer_thread.observers] == ["drift"]
    assert "holdfast_observers_defects_total 1.0" in client.get("/metrics").text


def test_numbers_are_counted_by_endpoint_and_never_by_what_was_asked(serving_of: Make) -> None:
    client = serving_of()
    client.post("/predict", json={"texts": ["ab", ""]})
    client.post("/predict", json={"texts": 3})
    for k in range(5):
        client.get(f"/none/{k}")
    text = client.get("/metrics").text
    assert 'holdfast_requests_total{endpoint="/predict",status="200"} 1.0' in text
    assert 'holdfast_requests_total{endpoint="/predict",status="400"} 1.0' in text
    assert 'holdfast_requests_total{endpoint="unknown",status="404"} 5.0' in text
    assert 'holdfast_refused_total{reason="path"} 5.0' in text
    assert "holdfast_rows_left_to_a_person_total 1.0" in text
    assert "holdfast_request_rows_sum 2.0" in text
    assert 'precision="float32"' in text
    assert "/none" not in text


def test_the_page_runs_its_own_script_and_nothing_else(serving_of: Make) -> None:
    import base64
    import hashlib
    import re

    answer = serving_of().get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag in ("script", "style"):
        (found,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.S)
        digest = base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"""(src|href)=["'](?!data:)""", answer.text)
    assert not re.search(r"\son\w+=|\sstyle=|innerHTML|https?://", answer.text)
    assert json.dumps(FACTS.model) not in answer.text
