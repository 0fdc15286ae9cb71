"""``POST /predict``."""

from __future__ import annotations

import time
from typing import Any

from starlette.responses import Response

from holdfast.plugins.service.records import RowPrediction, RowPredictions, Served
from holdfast.plugins.service.routes.rows import WAYS, rows_of
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import Call, Endpoint
from holdfast.plugins.service.web.faults import bad
from holdfast.plugins.service.web.replies import as_json
from holdfast.plugins.service.web.schemas import ErrorBody, PredictAnswer, PredictBody
from holdfast.plugins.store.records import Row, new_id, user_mark

LONGEST_USER = 500
FIELDS = (*WAYS, "user")


async def predict(service: Service, call: Call) -> Response:
    """Answer the rows; what goes on afterwards is seen to once the answer is out."""
    body = call.json()
    if unknown := [name for name in body if name not in FIELDS]:
        raise bad("the body", "names what /predict does not know", unknown[:5], known(FIELDS))
    user = user_of(body)
    rows = rows_of(body, service.facts, service.settings)
    request, answered = await asked(service, call, rows, user)
    said = [one_said(one) for one in answered.answers]
    return as_json({"id": request, "model": answered.model, "predictions": said})


async def asked(
    service: Service, call: Call, rows: tuple[Row, ...], user: str | None
) -> tuple[str, RowPredictions]:
    """The answers and the name of the request, with all that is to be done afterwards."""
    at = time.time()
    with call.while_there():
        answered = await service.answer(rows, call.started + service.settings.timeout_s, user)
    seconds, size = time.monotonic() - call.started, len(call.body)
    served = Served(new_id(at), at, rows, answered, user)
    call.after = lambda: service.afterwards(served, seconds, size)
    return served.request, answered


def one_said(answer: RowPrediction) -> dict[str, Any]:
    """An answer as JSON."""
    found: dict[str, Any] = {"prediction": answer.prediction, "confidence": answer.confidence}
    if answer.probabilities is not None:
        found["probabilities"] = dict(answer.probabilities)
    if answer.because is not None:
        found["because"] = answer.because
    return found


def user_of(body: dict[str, Any]) -> str | None:
    """The hash of the user, where one is named."""
    user = body.get("user")
    if user is None:
        return None
    if not isinstance(user, str) or not 0 < len(user) <= LONGEST_USER:
        rule = f"must be a text of 1 to {LONGEST_USER} characters"
        raise bad("user", rule, user, "Name who it is for, or leave it out.")
    return user_mark(user)


def known(fields: tuple[str, ...]) -> str:
    """The remedy for an unknown field."""
    return f"Known: {', '.join(fields)}."


ENDPOINTS = (
    Endpoint(
        "POST",
        "/predict",
        predict,
        "Answers for one row or many",
        PredictBody,
        PredictAnswer,
        wrong=ErrorBody,
    ),
)
