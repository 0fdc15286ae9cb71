"""The OpenAPI document names every endpoint, and real answers are as it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in import Onlooker

from holdfast.plugins.service.web import application

Make = Callable[..., Any]

REQUESTS = (
    ("POST", "/predict", "/predict", {"texts": ["ab", ""]}),
    ("POST", "/predict", "/predict", {"texts": 3}),
    ("GET", "/health/live", "/health/live", None),
    ("GET", "/health/ready", "/health/ready", None),
    ("GET", "/model", "/model", None),
    ("GET", "/metrics", "/metrics", None),
    ("GET", "/drift", "/drift", None),
    ("GET", "/comparison", "/comparison", None),
    ("GET", "/v2", "/v2", None),
    ("GET", "/v2/health/live", "/v2/health/live", None),
    ("GET", "/v2/health/ready", "/v2/health/ready", None),
    ("GET", "/v2/models/{name}", "/v2/models/reviews", None),
    ("GET", "/v2/models/{name}", "/v2/models/none", None),
    ("GET", "/v2/models/{name}/ready", "/v2/models/reviews/ready", None),
    (
        "POST",
        "/v2/models/{name}/infer",
        "/v2/models/reviews/infer",
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]},
    ),
    ("POST", "/v2/models/{name}/infer", "/v2/models/reviews/infer", {"inputs": 3}),
    ("POST", "/v1/chat/completions", "/v1/chat/completions", {"messages": []}),
    ("POST", "/v1/completions", "/v1/completions", {"prompt": ""}),
    ("GET", "/v1/models", "/v1/models", None),
    ("GET", "/v1/models/{name}", "/v1/models/reviews", None),
    ("GET", "/openapi.json", "/openapi.json", None),
    ("GET", "/", "/", None),
)


def validator(document: dict[str, Any], path: str, method: str, status: int) -> Any:
    answer = document["paths"][path][method.lower()]["responses"][str(status)]
    content = answer.get("content", {})
    if "application/json" not in content:
        return None
    schema = content["application/json"]["schema"] | {"components": document["components"]}
    return jsonschema.Draft202012Validator(schema)


def test_every_endpoint_is_described_and_its_answers_are_as_described(serving_of: Make) -> None:
    client = serving_of(observers=[Onlooker()], store=True)
    document = client.get("/openapi.json").json()
    described = {(m.upper(), p) for p, ways in document["paths"].items() for m in ways}
    assert described == {(one.method, one.path) for one in client.app.endpoints}
    request = client.post("/predict", json={"texts": ["ab"]}).json()["id"]
    client.service.observer_thread.wait_until_idle(5)
    feedback = {"id": request, "label": "good"}
    calls = [
        *REQUESTS,
        ("POST", "/feedback", "/feedback", feedback),
        ("POST", "/feedback", "/feedback", {**feedback, "id": "none"}),
    ]
    for method, path, where, body in calls:
        answer = client.request(method, where, json=body)
        checked = validator(document, path, method, answer.status_code)
        if checked is not None:
            checked.validate(answer.json())
    seen = {(method, path) for method, path, *_ in calls}
    left = {(m, p) for m, p in described - seen if "{version}" not in p and p != "/explain"}
    assert left == set()


def test_the_document_is_made_once(serving_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made, document = [], application.openapi_document

    def counted(*given: Any) -> Any:
        made.append(given)
        return document(*given)

    monkeypatch.setattr(application, "openapi_document", counted)
    client = serving_of()
    first, second = (client.get("/openapi.json").content for _ in range(2))
    assert first == second
    assert len(made) == 1


def test_references_lead_somewhere_and_the_token_is_told(serving_of: Make) -> None:
    known = {"authorization": "Bearer a-token-of-some-length"}
    client = serving_of(token="a-token-of-some-length")
    document = client.get("/openapi.json", headers=known).json()
    schemas = document["components"]["schemas"]

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert value["$ref"].removeprefix("#/components/schemas/") in schemas
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(document)
    assert document["paths"]["/predict"]["post"]["security"] == [{"token": []}]
    assert "security" not in document["paths"]["/health/live"]["get"]
    names = [one["operationId"] for ways in document["paths"].values() for one in ways.values()]
    assert len(names) == len(set(names))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "text",
        "texts",
        "row",
        "rows",
        "user",
        "inputs",
        "id",
        "index",
        "label",
        "outcome",
        "who",
        "seen",
        "outputs",
        "name",
        "shape",
        "data",
        "datatype",
    ]
)


@pytest.mark.slow
@given(
    st.sampled_from(["/predict", "/feedback", "/v2/models/reviews/infer"]),
    st.dictionaries(
        NAMES, JSON | st.lists(st.dictionaries(NAMES, JSON, max_size=4), max_size=2), max_size=4
    ),
)
@settings(max_examples=200)
def test_whatever_is_sent_is_answered_or_refused_as_described(
    serving_of: Make, path: str, body: Any
) -> None:
    client = _once(serving_of)
    answer = client.post(path, json=body)
    assert answer.status_code in (200, 400, 404), answer.text
    document = _document(client)
    key = path.replace("reviews", "{name}")
    validator(document, key, "post", answer.status_code).validate(answer.json())


_KEPT: dict[int, Any] = {}


def _once(make: Make) -> Any:
    if id(make) not in _KEPT:
        _KEPT.clear()
        _KEPT[id(make)] = make(store=True)
    return _KEPT[id(make)]


def _document(client: Any) -> Any:
    if not hasattr(client, "document"):
        client.document = client.get("/openapi.json").json()
    return client.document
