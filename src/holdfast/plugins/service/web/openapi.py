"""The OpenAPI 3.1 document, made of the endpoints and their schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
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
