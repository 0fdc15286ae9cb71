"""``POST /predict`` and ``POST /explain``: predictions for the rows of a request, and explanations
of predictions."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from starlette.responses import Response

from holdfast.core.tasks import TAGGING_TASKS
from holdfast.plugins.service.records import EngineFacts, RowPrediction, RowPredictions, Served
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.settings import Serving
from holdfast.plugins.service.web.endpoint import (
    Call,
    Endpoint,
    ErrorBody,
    RequestSchema,
    ResponseSchema,
    as_json,
)
from holdfast.plugins.service.web.faults import Fault, bad_request
from holdfast.plugins.store.records import Row, new_id, user_mark

MAX_USER_LENGTH = 500
ROW_FIELDS = ("texts", "text", "rows", "row")
FIELDS = (*ROW_FIELDS, "user")
EXAMPLE = {"texts": '{"texts": ["…"]}', "rows": '{"rows": [{…}]}'}


class RowsAsked(RequestSchema):
    """Rows to predict: `text` or `texts` for a model with one text column, `row` or `rows` with the
    columns of its training data; exactly one of the four."""

    text: str | None = None
    texts: list[str] | None = None
    row: dict[str, Any] | None = None
    rows: list[dict[str, Any]] | None = None


class PredictBody(RowsAsked):
    """The request of `/predict`; `user` is the user it is for, and is stored as a hash."""

    user: str | None = Field(default=None, min_length=1, max_length=MAX_USER_LENGTH)


class PredictionSchema(ResponseSchema):
    """The prediction for one row; null where the model leaves it to an annotator, with the reason
    in `because`."""

    prediction: Any
    confidence: float | None
    probabilities: dict[str, float] | None = None
    because: str | None = None


class PredictAnswer(ResponseSchema):
    """`id` is the request id for feedback, `model` the model that predicted."""

    id: str
    model: str
    predictions: list[PredictionSchema]


class ExplainAnswer(ResponseSchema):
    """The explanation of each prediction; see `holdfast explain --json`."""

    model: str
    explanation: dict[str, Any]


async def predict(service: Service, call: Call) -> Response:
    """Predict the rows; recording follows after the response is sent."""
    body = known_body(call, "/predict", FIELDS)
    user = body.get("user")
    if user is not None:
        if not isinstance(user, str) or not 0 < len(user) <= MAX_USER_LENGTH:
            rule = f"must be a text of 1 to {MAX_USER_LENGTH} characters"
            raise bad_request("user", rule, user, "Name the user, or leave it out.")
        user = user_mark(user)
    rows = rows_of(body, service.facts, service.settings)
    request, predictions = await answer_rows(service, call, rows, user)
    predictions_json = [_prediction_json(one) for one in predictions.answers]
    return as_json({"id": request, "model": predictions.model, "predictions": predictions_json})


async def explain(service: Service, call: Call) -> Response:
    """Explain the predictions of the rows; nothing is stored."""
    body, settings = known_body(call, "/explain", FIELDS), service.settings
    rows = rows_of(body, service.facts, settings, max_rows=settings.max_explained)
    model = service.facts.model
    with call.cancelled_on_hangup():
        async with asyncio.timeout(settings.timeout_s):
            explanation = await service.explanations.explain(service.shown, rows)
    return as_json({"model": model, "explanation": explanation})


def known_body(call: Call, path: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object of the body, which may have only these fields."""
    body = call.json()
    if unknown := [name for name in body if name not in fields]:
        remedy = f"Known: {', '.join(fields)}."
        rule = f"has fields that {path} does not know"
        raise bad_request("the body", rule, unknown[:5], remedy)
    return body


async def answer_rows(
    service: Service, call: Call, rows: tuple[Row, ...], user: str | None
) -> tuple[str, RowPredictions]:
    """The id of the request and its predictions; ``call.after`` records them."""
    at = time.time()
    with call.cancelled_on_hangup():
        predictions = await service.answer(rows, call.started + service.settings.timeout_s, user)
    seconds, size = time.monotonic() - call.started, len(call.body)
    served = Served(new_id(at), at, rows, predictions, user)
    call.after = lambda: service.finish_request(served, seconds, size)
    return served.request, predictions


def _prediction_json(answer: RowPrediction) -> dict[str, Any]:
    result: dict[str, Any] = {"prediction": answer.prediction, "confidence": answer.confidence}
    if answer.probabilities is not None:
        result["probabilities"] = dict(answer.probabilities)
    if answer.because is not None:
        result["because"] = answer.because
    return result


def rows_of(
    body: Mapping[str, Any], facts: EngineFacts, settings: Serving, *, max_rows: int | None = None
) -> tuple[dict[str, Any], ...]:
    """The rows that a body gives as one of ``text``, ``texts``, ``row`` and ``rows``, checked as
    far as possible without the model.

    Raises ``Fault`` 400 where it gives none or several, a row lacks a column of the model or has a
    value of the wrong type, or there are too many rows.
    """
    fields = [name for name in ROW_FIELDS if body.get(name) is not None]
    if len(fields) != 1:
        rule = "has no rows" if not fields else "gives rows in more than one field"
        field_list = " or ".join(f'"{name}"' for name in ROW_FIELDS)
        raise bad_request("the body", rule, fields or list(body)[:10], f"Send one of {field_list}.")
    (name,) = fields
    values = [body[name]] if name in ("text", "row") else body[name]
    if not isinstance(values, list):
        raise bad_request(name, "must be a list", values, f"Send {EXAMPLE[name]}.")
    if not values:
        raise bad_request(name, "is empty", None, "Send at least one row.")
    max_rows = settings.max_rows if max_rows is None else max_rows
    if len(values) > max_rows:
        rule = f"has more rows than the limit of {max_rows:,}"
        raise bad_request(name, rule, len(values), "Send fewer rows per request.")
    if name in ("texts", "text"):
        return _rows_from_texts(values, facts, settings.max_characters)
    return tuple(_checked_row(row, place, facts, settings) for place, row in enumerate(values))


def _rows_from_texts(
    texts: Sequence[Any], facts: EngineFacts, max_characters: int
) -> tuple[dict[str, Any], ...]:
    column = facts.columns[0]
    if len(facts.columns) != 1:
        columns = ", ".join(facts.columns)
        rule = f"cannot be used with this model, which reads the columns {columns}"
        raise bad_request("texts", rule, None, 'Send {"rows": [{"' + column + '": …}]}.')
    if facts.task in TAGGING_TASKS:
        rule = f"cannot be used with the task {facts.task}, whose rows are lists of tokens"
        raise bad_request("texts", rule, None, f'Send {{"rows": [{{"{column}": ["…", "…"]}}]}}.')
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise bad_request(f"texts[{place}]", "is not a text", text, "Send one string per row.")
        if len(text) > max_characters:
            raise _too_long(f"texts[{place}]", len(text), max_characters)
    return tuple({column: text} for text in texts)


def _checked_row(row: Any, index: int, facts: EngineFacts, settings: Serving) -> dict[str, Any]:
    where = f"rows[{index}]"
    if not isinstance(row, dict):
        raise bad_request(where, "is not an object", row, "Send one object per row, by column.")
    for column in facts.columns:
        if column not in row:
            rule = f"has no column {column!r}, which the model needs"
            close = difflib.get_close_matches(column, list(row)[:100], n=1)
            remedy = (
                f"Rename {close[0]!r} to {column!r}." if close else "Add it; null means no text."
            )
            raise bad_request(where, rule, list(row)[:10], remedy)
        cell = row[column]
        if isinstance(cell, str) and len(cell) > settings.max_characters:
            raise _too_long(f"{where}.{column}", len(cell), settings.max_characters)
    return row


def _too_long(where: str, length: int, limit: int) -> Fault:
    rule = f"has more characters than the limit of {limit:,}"
    remedy = "Shorten it, or start the service with --set serve.max_characters=N."
    return bad_request(where, rule, length, remedy)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/predict",
        predict,
        "Predict one row or many",
        PredictBody,
        PredictAnswer,
        error_schema=ErrorBody,
    ),
    Endpoint(
        "POST",
        "/explain",
        explain,
        "Explain the predictions of a few rows",
        PredictBody,
        ExplainAnswer,
        error_schema=ErrorBody,
    ),
)
