"""Answers as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

JSON = "application/json"
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode
# No page of another site is told what type a stranger's text could pass for, and nobody keeps it.
GUARDS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. Raises ``ValueError`` for NaN and infinities, which are no JSON."""
    return as_text(json_bytes(value), JSON, status, headers)


def json_bytes(value: Any) -> bytes:
    """A JSON document. Raises ``ValueError`` for NaN and infinities, which are no JSON."""
    return _encode(value).encode("utf-8", "replace")


def as_text(
    text: str | bytes, media: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Any other answer."""
    return Response(text, status, {**GUARDS, **(headers or {})}, media)
