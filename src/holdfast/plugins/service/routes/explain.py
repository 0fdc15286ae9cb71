"""``POST /explain``: why the model says what it says of a few rows."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from holdfast.plugins.service.routes.predict import FIELDS, known
from holdfast.plugins.service.routes.rows import rows_of
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import Call, Endpoint
from holdfast.plugins.service.web.faults import bad
from holdfast.plugins.service.web.replies import as_json
from holdfast.plugins.service.web.schemas import ErrorBody, ExplainAnswer, PredictBody


async def explain(service: Service, call: Call) -> Response:
    """Reasons for the answers to the rows; nothing is written down of it."""
    body, settings = call.json(), service.settings
    if unknown := [name for name in body if name not in FIELDS]:
        raise bad("the body", "names what /explain does not know", unknown[:5], known(FIELDS))
    rows = rows_of(body, service.facts, settings, most=settings.max_explained)
    model = service.facts.model
    with call.while_there():
        async with asyncio.timeout(settings.timeout_s):
            found = await service.explaining.explain(service.shown, rows)
    return as_json({"model": model, "explanation": found})


ENDPOINTS = (
    Endpoint(
        "POST",
        "/explain",
        explain,
        "Why the model says what it says of a few rows",
        PredictBody,
        ExplainAnswer,
        wrong=ErrorBody,
    ),
)
