"""The service's own state: ``/health/…``, ``/model``, ``/metrics``, the observers' summaries, the
page to try the model (``/``) and the OpenAPI document (``/openapi.json``)."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

from starlette.responses import Response

from holdfast.plugins.service.metrics import TYPE
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import (
    JSON,
    Call,
    Endpoint,
    ErrorBody,
    ResponseSchema,
    as_json,
    as_text,
)
from holdfast.plugins.service.web.faults import Fault

PAGE = Path(__file__).parent / "page.html"
# The subjects of observers, and what to do where there is no observer.
SUBJECTS = {
    "drift": "Monitoring starts soon after the service is ready; otherwise see its log.",
    "comparison": "Start the service with --challenger RUN.",
}


class Health(ResponseSchema):
    """Whether the service is alive, or ready."""

    live: bool | None = None
    ready: bool | None = None
    because: str | None = None


class ModelWords(ResponseSchema):
    """The served model: its input columns, its classes, its precision and the reason for it."""

    model: str
    task: str
    columns: list[str]
    classes: list[str] | None
    precision: str
    because: str


class OpenApi(ResponseSchema):
    """An OpenAPI document."""

    openapi: str
    paths: dict[str, Any]


class ObserverWords(ResponseSchema):
    """The summary of each observer of this subject."""

    observers: dict[str, dict[str, Any]]


async def live(service: Service, call: Call) -> Response:
    """Reports that the process answers."""
    return as_json({"live": True})


async def ready(service: Service, call: Call) -> Response:
    """Whether requests should be sent here; 503 while the model loads and during shutdown."""
    if service.ready:
        return as_json({"ready": True})
    because = "the service is shutting down" if service.draining else "the model is loading"
    return as_json({"ready": False, "because": because}, 503, {"Retry-After": "1"})


async def model(service: Service, call: Call) -> Response:
    """The facts of the served model."""
    facts = service.facts
    return as_json(
        {
            "model": facts.model,
            "task": facts.task,
            "columns": list(facts.columns),
            "classes": None if facts.classes is None else list(facts.classes),
            "precision": facts.precision,
            "because": facts.because,
        }
    )


async def metrics(service: Service, call: Call) -> Response:
    """All metrics, for Prometheus."""
    return as_text(service.counters.text(), TYPE)


async def observed(subject: str, service: Service, call: Call) -> Response:
    """The summary of each observer of this subject."""
    summaries = service.observer_summaries().items()
    if matching := {name: dict(summary) for name, summary in summaries if name.startswith(subject)}:
        return as_json({"observers": matching})
    rule = "is not monitored by this service"
    raise Fault(404, subject, rule, None, SUBJECTS[subject], reason="not watched")


@cache
def page() -> tuple[str, str]:
    """The page and its content security policy: only its own script and style, named by their
    hashes, may run, and nothing is loaded from or sent to another host."""
    text = PAGE.read_text("utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return text, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def try_it(service: Service, call: Call) -> Response:
    """The page; it contains nothing of the model, and asks for the token where one is needed."""
    text, policy = page()
    headers = {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    }
    return as_text(text, "text/html; charset=utf-8", headers=headers)


async def openapi(service: Service, call: Call) -> Response:
    """The OpenAPI document of all endpoints."""
    return as_text(call.describe(), JSON)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/health/live",
        live,
        "Check that the process is alive",
        response_schema=Health,
        without_token=True,
    ),
    Endpoint(
        "GET",
        "/health/ready",
        ready,
        "Check that requests are answered",
        response_schema=Health,
        other_statuses=((503, "Not ready"),),
        without_token=True,
    ),
    Endpoint(
        "GET",
        "/model",
        model,
        "Describe the served model",
        response_schema=ModelWords,
        error_schema=ErrorBody,
    ),
    Endpoint("GET", "/metrics", metrics, "Metrics for Prometheus", media="text/plain"),
    *(
        Endpoint(
            "GET",
            f"/{subject}",
            partial(observed, subject),
            f"Summary of the {subject}",
            response_schema=ObserverWords,
            other_statuses=((404, "It is not monitored"),),
            error_schema=ErrorBody,
        )
        for subject in SUBJECTS
    ),
)
PAGES = (
    Endpoint("GET", "/", try_it, "A page to try the model", media="text/html", without_token=True),
    Endpoint(
        "GET",
        "/openapi.json",
        openapi,
        "This OpenAPI document",
        response_schema=OpenApi,
        error_schema=ErrorBody,
    ),
)
