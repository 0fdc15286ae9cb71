"""``Fault``: an error response with the same parts as an error on the command line.

The four parts of an error are those of ``core/errors.py``. The status tells the cause: 4xx the
request, 503 a temporary state (retry), 500 a defect of Holdfast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from holdfast.core.errors import (
    DataError,
    Defect,
    HoldfastError,
    MachineError,
    ModelError,
    RecipeError,
    StoreError,
)
from holdfast.core.printable import bounded_repr, printable

MAX_LENGTH = 400
RETRY_AFTER_S = 1.0


@dataclass(eq=False, repr=False)
class Fault(Exception):
    """What, rule, value and remedy with the status of the response.

    ``retry_after_s``: seconds until a retry makes sense (``Retry-After``). ``reason`` is one word
    for the counter. ``closing``: nothing more is read from this connection.
    """

    status: int
    what: str
    rule: str
    value: object = None
    remedy: str = ""
    _: KW_ONLY
    reason: str
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    closing: bool = False

    def __post_init__(self) -> None:
        super().__init__(self.what, self.rule)
        if self.retry_after_s is not None:
            seconds = str(max(1, math.ceil(self.retry_after_s)))
            self.headers = {**self.headers, "Retry-After": seconds}

    def parts(self) -> dict[str, Any]:
        """``what``, ``rule``, ``value`` (a text as Python writes it, or null) and ``do``."""
        return {
            "what": printable(self.what, MAX_LENGTH),
            "rule": printable(self.rule, MAX_LENGTH),
            "value": None if self.value is None else bounded_repr(self.value),
            "do": printable(self.remedy, MAX_LENGTH),
        }

    def sentence(self) -> str:
        """The complete error in one line."""
        found_value = "" if self.value is None else f" (found: {bounded_repr(self.value)})"
        remedy = f". {self.remedy}" if self.remedy else ""
        return printable(f"{self.what}: {self.rule}{found_value}{remedy}", 4 * MAX_LENGTH)


def default_body(fault: Fault) -> dict[str, Any]:
    """The error body of Holdfast's own endpoints."""
    return {"error": fault.parts()}


def inference_body(fault: Fault) -> dict[str, Any]:
    """The same in the shape of the Open Inference Protocol."""
    return {"error": fault.sentence()}


def openai_body(fault: Fault) -> dict[str, Any]:
    """The same in the shape of OpenAI's protocol."""
    error_type = "invalid_request_error" if fault.status < 500 else "server_error"
    return {
        "error": {
            "message": fault.sentence(),
            "type": error_type,
            "param": None,
            "code": fault.reason,
        }
    }


def error_body_for(path: str) -> Callable[[Fault], dict[str, Any]]:
    """The shape of an error where no endpoint answers, by the prefix of the path."""
    return next((shape for begin, shape in BODY_BY_PREFIX if path.startswith(begin)), default_body)


BODY_BY_PREFIX = (("/v1/", openai_body), ("/v2", inference_body))


def bad_request(what: str, rule: str, value: object = None, remedy: str = "") -> Fault:
    """400: the request is at fault."""
    return Fault(400, what, rule, value, remedy, reason="bad request")


def queue_full(retry_after_s: float = RETRY_AFTER_S) -> Fault:
    """503: the queue is full."""
    rule = "has reached its limit of waiting rows"
    remedy = "Retry after the seconds in Retry-After."
    return Fault(
        503, "this service", rule, None, remedy, reason="full", retry_after_s=retry_after_s
    )


def fault_from_error(error: HoldfastError) -> Fault | None:
    """The error response for an error of Holdfast; ``None`` for a defect."""
    parts = (error.what, error.rule, error.value, error.remedy)
    if isinstance(error, MachineError):
        return Fault(503, *parts, reason="machine", retry_after_s=10 * RETRY_AFTER_S)
    if isinstance(error, (DataError, RecipeError, ModelError)):
        return Fault(400, *parts, reason="bad request")
    if isinstance(error, Defect) or error.exit_code != 2:
        return None
    reason = "store" if isinstance(error, StoreError) else "unavailable"
    return Fault(503, *parts, reason=reason, retry_after_s=10 * RETRY_AFTER_S)
