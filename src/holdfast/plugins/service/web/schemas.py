"""What goes in and out, as schemas: the OpenAPI document is made of these, and tests hold real
answers to them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


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
