"""``POST /feedback``: the correct label of a row, or the outcome of a request."""

from __future__ import annotations

import asyncio
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import Field
from starlette.responses import Response

from holdfast.contract.run_folder import RECIPE
from holdfast.plugins.labelling.labels import label_rule
from holdfast.plugins.service.observers import masked_feedback
from holdfast.plugins.service.routes.predict import known_body
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import (
    Call,
    Endpoint,
    ErrorBody,
    RequestSchema,
    ResponseSchema,
    as_json,
)
from holdfast.plugins.service.web.faults import Fault, bad_request
from holdfast.plugins.store.records import (
    Drawn,
    Feedback,
    RequestOutcome,
    Row,
    StoredRequest,
    Suggestion,
    request_id,
)
from holdfast.recipe import read_recipe

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

MAX_ID_LENGTH, MAX_NAME_LENGTH = 64, 200
UNKNOWN_ANNOTATOR = "unknown"
SUGGESTIONS: dict[bool | None, Suggestion] = {None: "unknown", True: "seen", False: "hidden"}
DRAW_METHODS = get_args(Drawn)


class FeedbackBody(RequestSchema):
    """The correct label of row `index` of request `id`, the annotator (`who`), whether the
    annotator had `seen` the model's prediction, and how the row was selected (`drawn`: "uniform" if
    it was drawn at random from all rows, or every row is labelled; "unlike" if it was drawn at
    random from the rows on which two models differ). Or the outcome of the request outside the
    service (`outcome`)."""

    id: str = Field(min_length=1, max_length=MAX_ID_LENGTH)
    index: int = Field(default=0, ge=0)
    label: Any = None
    outcome: float | bool | None = None
    who: str | None = Field(default=None, min_length=1, max_length=MAX_NAME_LENGTH)
    seen: bool | None = None
    drawn: Drawn | None = None


class FeedbackAnswer(ResponseSchema):
    """The label is stored; `number` is its position among all labels. `row` says whether the row's
    text is stored with it, so that an update can train on it."""

    id: str
    index: int
    number: int | None
    row: bool


FIELDS = tuple(FeedbackBody.model_fields)


async def feedback(service: Service, call: Call) -> Response:
    """Store it before confirming: 503 where the store cannot be written."""
    body = known_body(call, "/feedback", FIELDS)
    if service.store is None:
        rule = "needs a store, and this service has none"
        remedy = "Start it with --store FILE or URL."
        raise Fault(400, "/feedback", rule, None, remedy, reason="no store")
    request, index, annotator = _row_and_annotator(body)
    if (body.get("label") is None) == (body.get("outcome") is None):
        rule = "must have either a label or an outcome"
        raise bad_request(
            "the body", rule, None, 'Send {"id": …, "index": 0, "label": …, "who": …}.'
        )
    stored, row, to_store = await _stored_request(service, service.store, request, index)
    if index >= stored.rows:
        rule = f"is out of range: the request had {stored.rows:,} rows, numbered from 0"
        raise bad_request("index", rule, index, "Give the position of the row in its request.")
    at = time.time()
    item: Feedback | RequestOutcome
    if body.get("label") is None:
        outcome = RequestOutcome(request, _outcome_value(body["outcome"]), at)
        item = await asyncio.to_thread(service.store.add_outcome, outcome, to_store)
    else:
        suggestion, drawn = _circumstances(body)
        label, label_type = await asyncio.to_thread(_checked_label, service, body["label"], row)
        if not service.settings.keep_labelled:
            row = None
        item = Feedback(
            request,
            index,
            label,
            annotator,
            at,
            stored.model,
            "endpoint",
            drawn,
            suggestion,
            row,
            None if row is None else service.settings.expiry(at),
        )
        if service.settings.mask:
            item = await asyncio.to_thread(masked_feedback, item, label_type)
        item = await asyncio.to_thread(service.store.add_feedback, item, to_store)
    if service.observer_thread is not None and isinstance(item, Feedback):
        service.observer_thread.notify(item)
    return as_json({"id": request, "index": index, "number": item.id, "row": row is not None})


def _row_and_annotator(body: dict[str, Any]) -> tuple[str, int, str]:
    """The request, the index of its row, and the annotator."""
    request, index, annotator = body.get("id"), body.get("index", 0), body.get("who")
    if not isinstance(request, str) or not 0 < len(request) <= MAX_ID_LENGTH:
        raise bad_request(
            "id", "must be a request id", request, "Send the id that /predict returned."
        )
    if type(index) is not int or index < 0:
        raise bad_request(
            "index", "must be a whole number from 0", index, "Give the position of the row."
        )
    if annotator is not None and (
        not isinstance(annotator, str) or not 0 < len(annotator) <= MAX_NAME_LENGTH
    ):
        rule = f"must be a text of 1 to {MAX_NAME_LENGTH} characters"
        raise bad_request("who", rule, annotator, "Name the annotator.")
    return request_id(request), index, UNKNOWN_ANNOTATOR if annotator is None else annotator


def _circumstances(body: dict[str, Any]) -> tuple[Suggestion, Any]:
    """Whether the annotator had seen the prediction, and how the row was drawn."""
    seen, drawn = body.get("seen"), body.get("drawn")
    if seen is not None and not isinstance(seen, bool):
        raise bad_request(
            "seen",
            "must be true or false",
            seen,
            "Say whether the annotator had seen the prediction.",
        )
    if drawn is not None and drawn not in DRAW_METHODS:
        raise bad_request(
            "drawn",
            f"must be one of {', '.join(DRAW_METHODS)}",
            drawn,
            "Say how the row was selected.",
        )
    return SUGGESTIONS[seen], drawn or "volunteered"


def _outcome_value(value: Any) -> float:
    if not isinstance(value, (bool, int, float)):
        raise bad_request("outcome", "is not a number", value, "Send 1 or 0, or an amount.")
    try:
        return float(value)
    except OverflowError:
        rule = "is outside the range of a float"
        raise bad_request("outcome", rule, None, "Send 1 or 0, or an amount.") from None


async def _stored_request(
    service: Service, store: Store, request: str, index: int
) -> tuple[StoredRequest, Row | None, StoredRequest | None]:
    """The request, its row where it is still in memory, and the request to store where the store
    may not have it yet."""
    if (recent := service.recent_request(request)) is not None:
        return (
            recent.record,
            recent.rows[index] if index < len(recent.rows) else None,
            recent.record,
        )
    stored = await asyncio.to_thread(store.request, request)
    if stored is None:
        rule, remedy = (
            "is not the id of a request to this service",
            "Send the id that /predict returned.",
        )
        raise Fault(404, "id", rule, request, remedy, reason="unknown id")
    return stored, None, None


def _checked_label(service: Service, label: Any, row: Row | None) -> tuple[Any, str]:
    """The label as it is stored, and its type."""
    facts = service.facts
    label_type, new = _label_type(facts.run), service.settings.new_classes
    column = next(iter(facts.columns), None)
    rule = label_rule(facts.task, facts.classes, label_type, allow_new=new, column=column)
    return rule.check(label, row), rule.label_type


@functools.cache
def _label_type(run: Path) -> str | None:
    """The label type in the run's recipe, where it has one."""
    path = run / RECIPE
    return read_recipe(path).data.label_kind if path.exists() else None


ENDPOINTS = (
    Endpoint(
        "POST",
        "/feedback",
        feedback,
        "Send the correct label of a row, or the outcome of a request",
        FeedbackBody,
        FeedbackAnswer,
        other_statuses=((404, "The request does not exist"),),
        error_schema=ErrorBody,
    ),
)
