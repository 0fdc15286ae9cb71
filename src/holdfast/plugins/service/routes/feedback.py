"""``POST /feedback``: what is right for a row, or what came of a request."""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.responses import Response

from holdfast.contract.run_folder import RECIPE
from holdfast.plugins.labelling.rule import LabelRule, rule_of
from holdfast.plugins.service.routes.predict import known
from holdfast.plugins.service.row_privacy import masked_row
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import Call, Endpoint
from holdfast.plugins.service.web.faults import Fault, bad
from holdfast.plugins.service.web.replies import as_json
from holdfast.plugins.service.web.schemas import ErrorBody, FeedbackAnswer, FeedbackBody
from holdfast.plugins.store.records import Feedback, RequestOutcome, Row, StoredRequest, Suggestion
from holdfast.plugins.store.store import Store
from holdfast.recipe import read_recipe

FIELDS = tuple(FeedbackBody.model_fields)
LONGEST_ID, LONGEST_WHO = 64, 200
NOBODY = "unknown"
SUGGESTIONS: dict[bool | None, Suggestion] = {None: "unknown", True: "seen", False: "hidden"}
DRAWN = ("uniform", "unlike", "chosen", "volunteered")


async def feedback(service: Service, call: Call) -> Response:
    """Write it down before it is confirmed: 503 where the store cannot be written."""
    body = call.json()
    if unknown := [name for name in body if name not in FIELDS]:
        raise bad("the body", "names what /feedback does not know", unknown[:5], known(FIELDS))
    store = _store(service)
    request, index, who = _id(body), _index(body), _who(body)
    if (body.get("label") is None) == (body.get("outcome") is None):
        rule = "must name a label or an outcome, one of them"
        raise bad("the body", rule, None, 'Send {"id": …, "index": 0, "label": …, "who": …}.')
    asked, row, written = await _found(service, store, request, index)
    rows, model, of = asked.rows, asked.model, None if written else asked
    if index >= rows:
        rule = f"is beyond the request, which had {rows:,} rows, numbered from 0"
        raise bad("index", rule, index, "Name the place of the row in its request.")
    at = time.time()
    if body.get("label") is None:
        value = body["outcome"]
        if not isinstance(value, (bool, int, float)):
            raise bad("outcome", "is no number", value, "Send 1 or 0, or an amount.")
        try:
            amount = float(value)
        except OverflowError:
            rule = "is beyond every number that can be held"
            raise bad("outcome", rule, None, "Send 1 or 0, or an amount.") from None
        outcome = await asyncio.to_thread(
            store.add_outcome, RequestOutcome(request, amount, at), of
        )
        _show(service, outcome)
        number = outcome.id
    else:
        suggestion, drawn = SUGGESTIONS[_seen(body)], _drawn(body)
        label = await asyncio.to_thread(lambda: _rule(service).check(body["label"], row))
        label_given = Feedback(request, index, label, who, at, model, "endpoint")
        label_given = replace(label_given, suggestion=suggestion, drawn=drawn)
        if not service.settings.keep_labelled:
            row = None
        if row is not None:
            kept = await asyncio.to_thread(masked_row, row) if service.settings.mask else row
            label_given = replace(label_given, row=kept, expires_at=service.expiry(at))
        label_given = await asyncio.to_thread(store.add_feedback, label_given, of)
        _show(service, label_given)
        number = label_given.id
    return as_json({"id": request, "index": index, "number": number, "row": row is not None})


def _show(service: Service, item: Feedback | RequestOutcome) -> None:
    if service.watching is not None:
        service.watching.put(item)


def _store(service: Service) -> Store:
    if service.store is None:
        raise Fault(
            400,
            "/feedback",
            "needs a store, and this service has none",
            None,
            "Start it with --store FILE or URL.",
            reason="no store",
        )
    return service.store


async def _found(
    service: Service, store: Store, request: str, index: int
) -> tuple[StoredRequest, Row | None, bool]:
    """The request, its row where it is still known, and whether it is surely in the store."""
    if (one := service.remembered(request)) is not None:
        row = one.rows[index] if index < len(one.rows) else None
        return one.asked, row, False
    stored = await asyncio.to_thread(store.request, request)
    if stored is None:
        raise Fault(
            404,
            "id",
            "names no request that was answered here",
            request,
            "Send the id of an answer of /predict.",
            reason="unknown id",
        )
    return stored, None, True


def _id(body: dict[str, Any]) -> str:
    value = body.get("id")
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID:
        raise bad("id", "must be the id of an answer", value, "Send the id that /predict gave.")
    # As OpenAI's clients have it of a conversation.
    return value.removeprefix("chatcmpl-").removeprefix("cmpl-")


def _index(body: dict[str, Any]) -> int:
    value = body.get("index", 0)
    if type(value) is not int or value < 0:
        raise bad("index", "must be a whole number from 0", value, "Name the place of the row.")
    return value


def _who(body: dict[str, Any]) -> str:
    value = body.get("who")
    if value is None:
        return NOBODY
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_WHO:
        rule = f"must be a text of 1 to {LONGEST_WHO} characters"
        raise bad("who", rule, value, "Name who says so.")
    return value


def _seen(body: dict[str, Any]) -> bool | None:
    value = body.get("seen")
    if value is not None and not isinstance(value, bool):
        raise bad("seen", "must be true or false", value, "Whether the answer was seen before.")
    return value


def _drawn(body: dict[str, Any]) -> Any:
    value = body.get("drawn")
    if value is not None and value not in DRAWN:
        raise bad("drawn", f"must be one of {', '.join(DRAWN)}", value, "How the row was chosen.")
    return value or "volunteered"


@functools.cache
def _label_kind(run: Path) -> str | None:
    """What the labels of the run are, where its recipe tells."""
    path = run / RECIPE
    return read_recipe(path).data.label_kind if path.exists() else None


def _rule(service: Service) -> LabelRule:
    facts = service.facts
    kind = _label_kind(facts.run)
    return rule_of(facts.task, facts.classes, kind, new=service.settings.new_classes)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/feedback",
        feedback,
        "What is right for a row, or what came of a request",
        FeedbackBody,
        FeedbackAnswer,
        also=((404, "No such request"),),
        wrong=ErrorBody,
    ),
)
