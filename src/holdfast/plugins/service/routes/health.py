"""``/health/live``, ``/health/ready``, ``/metrics``, and what the observers say."""

from __future__ import annotations

from starlette.responses import Response

from holdfast.plugins.service.metrics import TYPE
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import Call, Endpoint, as_json, as_text
from holdfast.plugins.service.web.faults import Fault
from holdfast.plugins.service.web.schemas import ErrorBody, Health, ModelWords, ObserverWords

SUBJECTS = ("drift", "comparison")


async def live(service: Service, call: Call) -> Response:
    """The process answers."""
    return as_json({"live": True})


async def ready(service: Service, call: Call) -> Response:
    """A request would be answered; 503 while the model loads, and once the service ends."""
    if service.ready:
        return as_json({"ready": True})
    because = "it shuts down" if service.draining else "the model is loading"
    return as_json({"ready": False, "because": because}, 503, {"Retry-After": "1"})


async def model(service: Service, call: Call) -> Response:
    """What is known of the model that answers."""
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
    """All numbers, for Prometheus."""
    return as_text(service.measured.text(), TYPE)


def _said(subject: str) -> Endpoint:
    async def said(service: Service, call: Call) -> Response:
        found = {
            name: dict(words) for name, words in service.said().items() if name.startswith(subject)
        }
        if not found:
            remedy = {
                "drift": "It begins soon after the service is ready; else its log says why.",
                "comparison": "Start the service with --challenger RUN.",
            }[subject]
            raise Fault(
                404, subject, "is watched by nobody here", None, remedy, reason="not watched"
            )
        return as_json({"observers": found})

    return Endpoint(
        "GET",
        f"/{subject}",
        said,
        f"What is known of the {subject}",
        gives=ObserverWords,
        also=((404, "Nobody watches it"),),
        wrong=ErrorBody,
    )


ENDPOINTS = (
    Endpoint("GET", "/health/live", live, "Whether the process lives", gives=Health, open=True),
    Endpoint(
        "GET",
        "/health/ready",
        ready,
        "Whether requests are answered",
        gives=Health,
        also=((503, "Not ready"),),
        open=True,
    ),
    Endpoint("GET", "/model", model, "What answers", gives=ModelWords, wrong=ErrorBody),
    Endpoint("GET", "/metrics", metrics, "Numbers for Prometheus", media="text/plain"),
    *map(_said, SUBJECTS),
)
