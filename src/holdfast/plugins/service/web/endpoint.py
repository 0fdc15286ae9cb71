"""``Endpoint`` describes an endpoint, ``Call`` is one request to it; ``as_json`` and ``as_text``
make responses.

A body is limited in size and must be strict JSON (RFC 8259, and RFC 7493 on names). Python's own
parser accepts NaN, numbers outside the range of a float, the last of several equal names and lone
surrogates. Each would change its value on the way to the model or the store; all are refused.

The OpenAPI description is made from an endpoint's schemas. Responses are not validated against them
at run time; a test checks real responses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.types import Receive

from holdfast.core.shapes import check_size
from holdfast.plugins.service.web.faults import Fault, bad_request, default_body

if TYPE_CHECKING:
    from holdfast.plugins.service.service import Service


Handler = Callable[["Service", "Call"], Awaitable[Response]]
JSON = "application/json"
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode
# Browsers must not guess a content type, and nothing is cached.
SAFETY_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
BODY = "the body"
REMEDY = 'Send JSON such as {"texts": ["…"]}.'
# Only escapes can produce these: UTF-8 has no surrogates, and JSON no raw control characters.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_NUL = "\\u0000"
# Bytes of each body that are free of the shared budget.
FREE_BYTES = 65_536
MEDIA_TYPES = ("application/json", "application/x-www-form-urlencoded")


@dataclass(slots=True)
class Call:
    """One complete request: ``started`` is of ``time.monotonic``, ``describe`` returns the OpenAPI
    document, ``after`` is called once the response was sent (also where the client did not wait for
    it), ``wire`` is the connection, where it is known."""

    headers: dict[bytes, bytes]
    body: bytes
    params: Mapping[str, str]
    started: float
    describe: Callable[[], bytes] = bytes
    after: Callable[[], None] | None = None
    wire: Any = None
    _parsed: dict[str, Any] | None = field(default=None, repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; raises ``Fault`` 400."""
        if self._parsed is None:
            self._parsed = read_json(self.body)
        return self._parsed

    @contextlib.contextmanager
    def cancelled_on_hangup(self) -> Iterator[None]:
        """A context that is cancelled where the client hangs up: it raises ``ClientGone``."""
        task = asyncio.current_task()
        if self.wire is None or task is None:
            yield
            return
        left = False

        def give_up() -> None:
            nonlocal left
            left = True
            task.cancel()

        self.wire.give_up = give_up
        try:
            yield
        except asyncio.CancelledError:
            if not left or task.uncancel():
                raise
            raise ClientGone from None
        finally:
            self.wire.give_up = None


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """``path`` may contain ``{names}``; the counters use it as written here, never the requested
    path. ``without_token``: no token is required. ``request_schema`` and ``response_schema`` are
    the schemas of JSON bodies (``media``: the response has this type and is not JSON);
    ``other_statuses`` have the schema of their bodies; ``error_body`` makes the body of an error,
    ``error_schema`` is its schema."""

    method: str
    path: str
    handle: Handler
    summary: str
    request_schema: type[BaseModel] | None = None
    response_schema: type[BaseModel] | None = None
    media: str | None = None
    other_statuses: tuple[tuple[int, str], ...] = ()
    without_token: bool = False
    error_body: Callable[[Fault], Any] = default_body
    error_schema: type[BaseModel] | None = None


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response. Raises ``ValueError`` for NaN and infinities, which JSON does not have."""
    return as_text(json_bytes(value), JSON, status, headers)


def json_bytes(value: Any) -> bytes:
    """A JSON document. Raises ``ValueError`` for NaN and infinities, which JSON does not have."""
    return _encode(value).encode("utf-8", "replace")


def as_text(
    text: str | bytes, media: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A response of any other type."""
    return Response(text, status, {**SAFETY_HEADERS, **(headers or {})}, media)


class ClientGone(Exception):
    """The client hung up."""


def check_headers(headers: dict[bytes, bytes], max_bytes: int) -> None:
    """Refuse what can be refused before a byte of the body is read.

    curl and urllib send ``application/x-www-form-urlencoded`` with any body by default; another
    site's form is refused by its ``Origin``.
    """
    media_type = (
        headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    )
    if media_type and media_type not in MEDIA_TYPES and not media_type.endswith("+json"):
        rule = "is not supported by this endpoint"
        remedy = "Send JSON, with Content-Type: application/json."
        raise Fault(
            415, "Content-Type", rule, media_type, remedy, reason="media type", closing=True
        )
    coding = headers.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        raise Fault(
            415,
            "Content-Encoding",
            "is not supported: a compressed body can expand to any size",
            coding.decode("latin-1"),
            "Send the body uncompressed.",
            reason="media type",
            headers={"Accept-Encoding": "identity"},
            closing=True,
        )
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length[:20]) > max_bytes:
        raise too_long(int(length[:20]), max_bytes)


def too_long(length: int | None, max_bytes: int) -> Fault:
    """413, after which the connection is closed."""
    rule = f"is longer than the limit of {max_bytes:,} bytes"
    remedy = "Send fewer rows per request, or start the service with --set serve.max_body_mb=N."
    return Fault(413, BODY, rule, length, remedy, reason="body", closing=True)


class BodyBudget:
    """The bytes of all bodies that are arriving, at most ``max_bytes`` beyond the first
    ``FREE_BYTES`` of each: many long bodies sent slowly cannot block a short one."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.held_bytes = max_bytes, 0

    @contextlib.contextmanager
    def reserve(self) -> Iterator[Callable[[int], None]]:
        """A context for one body. It yields a function that takes the body's length so far and
        raises ``Fault`` 503 where all bodies together are too long."""
        reserved = 0

        def grow_to(length: int) -> None:
            nonlocal reserved
            more = max(0, length - FREE_BYTES) - reserved
            if self.held_bytes + more > self.max_bytes:
                rule = f"accepts {self.max_bytes:,} bytes of request bodies at a time"
                raise Fault(
                    503,
                    "this service",
                    f"{rule}, and this limit is reached",
                    None,
                    "Retry after the seconds in Retry-After, or start the service with "
                    "--set serve.max_bodies_mb=N.",
                    reason="bodies",
                    retry_after_s=1,
                    closing=True,
                )
            reserved += more
            self.held_bytes += more

        try:
            yield grow_to
        finally:
            self.held_bytes -= reserved


async def read_body(receive: Receive, max_bytes: int, budget: BodyBudget) -> bytes:
    """The complete body. Raises ``Fault`` 413 as soon as it is too long, 503 where all arriving
    bodies are; ``ClientGone`` where the client hung up."""
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= max_bytes:
        return body
    parts, length = [body], len(body)
    with budget.reserve() as grow_to:
        while length <= max_bytes:
            if not message.get("more_body", False):
                return b"".join(parts)
            grow_to(length)
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGone
            parts.append(message.get("body", b""))
            length += len(parts[-1])
    raise too_long(None, max_bytes)


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object in the body. Raises ``Fault`` 400 for anything else."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        rule = f"is not UTF-8: byte {error.start} is invalid"
        raise bad_request(BODY, rule, body[error.start : error.start + 4], REMEDY) from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_refuse_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise bad_request(BODY, "is nested too deeply", None, REMEDY) from None
    except json.JSONDecodeError as error:
        rule = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise bad_request(BODY, rule, None, REMEDY) from None
    except ValueError as error:
        rule = f"is not accepted as JSON: {str(error)[:200]}"
        raise bad_request(BODY, rule, None, REMEDY) from None
    if not isinstance(value, dict):
        raise bad_request(BODY, "must be a JSON object", value, REMEDY)
    try:
        check_size(value)
    except ValueError as error:
        raise bad_request(BODY, str(error), None, "Send a flatter, smaller document.") from None
    if _NUL in text and "\0" in (raw := _all_texts(value)):
        place = raw.index("\0")
        rule = "contains a NUL character"
        raise bad_request(BODY, rule, raw[max(0, place - 20) : place + 20], "Remove it.")
    if _HALF.search(text):
        try:
            _all_texts(value).encode()
        except UnicodeEncodeError as error:
            rule = "contains half of a character (a lone surrogate)"
            escape = f"\\u{ord(error.object[error.start]):04x}"
            raise bad_request(BODY, rule, escape, "Send complete characters.") from None
    return value


def _all_texts(value: Any) -> str:
    """All strings of a value, its keys too, joined."""
    texts: list[str] = []
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            texts.append(one)
        elif isinstance(one, list):
            stack += one
        elif isinstance(one, dict):
            texts += one
            stack += one.values()
    return " ".join(texts)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the name {name[:40]!r} occurs twice in one object")
        result[name] = value
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is outside the range of a float")
    return value


class ResponseSchema(BaseModel):
    """A response; fields may be added."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class RequestSchema(BaseModel):
    """A request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorParts(ResponseSchema):
    """What is wrong, which rule it breaks, what was found, and what to do."""

    what: str
    rule: str
    value: str | None
    do: str


class ErrorBody(ResponseSchema):
    """An error response."""

    error: ErrorParts
