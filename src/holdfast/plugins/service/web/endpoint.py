"""``Endpoint``: one thing that a service can be asked, ``Call``, one time that it is, and the
answer as bytes (``as_json``, ``as_text``).

The schemas of an endpoint are what its OpenAPI description is made of. They are not run over every
answer: a test holds real answers to them, and a row costs no check that its reader does not need.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from holdfast.plugins.service.web.body import Gone, read_json
from holdfast.plugins.service.web.faults import Fault, plain

if TYPE_CHECKING:
    from pydantic import BaseModel

    from holdfast.plugins.service.service import Service

Handle = Callable[["Service", "Call"], Awaitable[Response]]
JSON = "application/json"
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode
# No page of another site is told what type a stranger's text could pass for, and nobody keeps it.
GUARDS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


@dataclass(slots=True)
class Call:
    """One request, read whole: ``started`` is of ``time.monotonic``, ``describe``
    gives the OpenAPI document, ``after`` is called once the answer is out (also where the client
    did not wait for it), ``wire`` is the connection, where it is known."""

    headers: dict[bytes, bytes]
    body: bytes
    params: Mapping[str, str]
    started: float
    describe: Callable[[], bytes] = bytes
    after: Callable[[], None] | None = None
    wire: Any = None
    _read: dict[str, Any] | None = field(default=None, repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; raises ``Fault`` 400."""
        if self._read is None:
            self._read = read_json(self.body)
        return self._read

    @contextlib.contextmanager
    def while_there(self) -> Iterator[None]:
        """What is done in here ends where the client hangs up: it raises ``Gone``."""
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
            raise Gone from None
        finally:
            self.wire.give_up = None


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """``path`` may hold ``{names}``; its counters are called by it as it is written here, never as
    it was asked. ``open``: asked without a token. ``takes`` and ``gives`` are the schemas of JSON
    bodies (``media``: what it gives is of this type, and no JSON); ``also`` further statuses with
    the schema of their bodies; ``refuses`` makes the body of an error, ``wrong`` is its schema."""

    method: str
    path: str
    handle: Handle
    summary: str
    takes: type[BaseModel] | None = None
    gives: type[BaseModel] | None = None
    media: str | None = None
    also: tuple[tuple[int, str], ...] = ()
    open: bool = False
    refuses: Callable[[Fault], Any] = plain
    wrong: type[BaseModel] | None = None


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
