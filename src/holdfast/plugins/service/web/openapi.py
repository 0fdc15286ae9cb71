"""The OpenAPI 3.1 document, made of the endpoints and the schemas of what goes in and out. Tests
hold real answers to them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from holdfast._version import __version__
from holdfast.plugins.service.web.endpoint import Endpoint

REFS = "#/components/schemas/{model}"
REFUSALS = {
    400: "The request is at fault: what, which rule, the value found, what to do",
    401: "The token is missing or wrong",
    403: "Another site's page, or a foreign name of this service",
    405: "Another method",
    408: "It did not arrive in time",
    413: "The body is too long",
    415: "Not JSON, or packed",
    500: "A defect of Holdfast; its number stands in the log",
    503: "Full, loading or ending: ask again after Retry-After",
}
BODY_ONLY = (408, 413, 415)


def document(endpoints: Iterable[Endpoint], token: bool) -> dict[str, Any]:
    """All endpoints; ``token``: whether one is asked for."""
    paths: dict[str, Any] = {}
    models: dict[type[BaseModel], None] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, token)
        models |= dict.fromkeys(m for m in (one.takes, one.gives, one.wrong) if m is not None)
    _, schemas = models_json_schema([(m, "validation") for m in models], ref_template=REFS)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": __version__,
            "description": "A fine-tuned model: answers, reasons, feedback and health.",
        },
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }
    if token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found


def _operation(one: Endpoint, token: bool) -> dict[str, Any]:
    way = re.sub(r"\W+", "_", f"{one.method.lower()}_{one.path}").strip("_")
    found: dict[str, Any] = {"summary": one.summary, "operationId": way}
    if names := re.findall(r"{(\w+)", one.path):
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if one.takes is not None:
        found["requestBody"] = {"required": True, "content": _json(one.takes)}
    answers: dict[str, Any] = {"200": {"description": "Answered"}}
    if one.gives is not None:
        answers["200"]["content"] = _json(one.gives)
    elif one.media is not None:
        answers["200"]["content"] = {one.media: {"schema": {"type": "string"}}}
    wrong = {} if one.wrong is None else {"content": _json(one.wrong)}
    for status, why in REFUSALS.items():
        if one.takes is None and status in (400, *BODY_ONLY):
            continue
        if status == 401 and (one.open or not token):
            continue
        answers[str(status)] = {"description": why, **wrong}
    for status, why in one.also:
        own = {"content": _json(one.gives)} if status == 503 and one.gives else wrong
        answers[str(status)] = {"description": why, **own}
    found["responses"] = answers
    if token and not one.open:
        found["security"] = [{"token": []}]
    return found


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFS.format(model=model.__name__)}}}


class Body(BaseModel):
    """An answer: fields may be added."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class RequestSchema(BaseModel):
    """A question: no field is unknown."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorParts(Body):
    """What is wrong, which rule it breaks, what was found, and what to do."""

    what: str
    rule: str
    value: str | None
    do: str


class ErrorBody(Body):
    """An answer that is none."""

    error: ErrorParts


class RowsAsked(RequestSchema):
    """Rows: `text` or `texts` for a model of one text, `row` or `rows` by the columns of its
    training data; one of the four."""

    text: str | None = None
    texts: list[str] | None = None
    row: dict[str, Any] | None = None
    rows: list[dict[str, Any]] | None = None


class PredictBody(RowsAsked):
    """What `/predict` takes; `user` is who it is for, and is stored as a hash."""

    user: str | None = Field(default=None, min_length=1, max_length=500)


class PredictionSchema(Body):
    """What is said of one row; null where the model leaves it to a person, with `because`."""

    prediction: Any
    confidence: float | None
    probabilities: dict[str, float] | None = None
    because: str | None = None


class PredictAnswer(Body):
    """`id` is what feedback names, `model` who answered."""

    id: str
    model: str
    predictions: list[PredictionSchema]


class ExplainAnswer(Body):
    """What carries each answer; see `holdfast explain --json`."""

    model: str
    explanation: dict[str, Any]


class FeedbackBody(RequestSchema):
    """What is right for row `index` of request `id`, who says so, whether the model's answer had
    been `seen` before, and how the row came to be labelled (`drawn`: "uniform" where chance alone
    chose it, or every row has a label; "unlike" where chance chose it of those that two models
    answer differently); or what came of the request outside (`outcome`)."""

    id: str = Field(min_length=1, max_length=64)
    index: int = Field(default=0, ge=0)
    label: Any = None
    outcome: float | bool | None = None
    who: str | None = Field(default=None, min_length=1, max_length=200)
    seen: bool | None = None
    drawn: Literal["uniform", "unlike", "chosen", "volunteered"] | None = None


class FeedbackAnswer(Body):
    """It is on the disk; `number` is its place among all. `row` says whether its row is kept with
    it, so that a newer model can learn from it."""

    id: str
    index: int
    number: int | None
    row: bool


class Health(Body):
    """Whether it lives, or is ready."""

    live: bool | None = None
    ready: bool | None = None
    because: str | None = None


class ModelWords(Body):
    """What answers: the columns that it reads, its classes, and why it computes as it does."""

    model: str
    task: str
    columns: list[str]
    classes: list[str] | None
    precision: str
    because: str


class OpenApi(Body):
    """An OpenAPI document."""

    openapi: str
    paths: dict[str, Any]


class ObserverWords(Body):
    """What each observer of this subject says."""

    observers: dict[str, dict[str, Any]]


class TensorAsked(Body):
    """A tensor: `shape` counts its `data`, row after row."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class OutputAsked(Body):
    """A tensor that is asked for."""

    name: str


class InferBody(Body):
    """What `infer` of the Open Inference Protocol takes."""

    inputs: list[TensorAsked]
    outputs: list[OutputAsked] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


class InferAnswer(Body):
    """What it gives."""

    model_name: str
    model_version: str
    id: str
    outputs: list[TensorAsked]


class TensorFacts(Body):
    """A tensor of a model; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelFacts(Body):
    """What is known of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


class ServerFacts(Body):
    """What is known of the server."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(Body):
    """Whether a model answers."""

    name: str
    ready: bool


class InferenceError(Body):
    """An error in the shape of the Open Inference Protocol."""

    error: str
