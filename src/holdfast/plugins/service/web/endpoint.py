"""``Endpoint``: one thing that a service can be asked, and ``Call``, one time that it is.

The schemas of an endpoint are what its OpenAPI description is made of. They are not run over every
answer: a test holds real answers to them, and a row costs no check that its reader does not need.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.plugins.service.web.body import Gone, read_json
from holdfast.plugins.service.web.faults import Fault, plain

if TYPE_CHECKING:
    from pydantic import BaseModel
    from starlette.responses import Response

    from holdfast.plugins.service.service import Service

Handle = Callable[["Service", "Call"], Awaitable["Response"]]


@dataclass(slots=True)
class Call:
    """One request, read whole: ``started`` is of ``time.monotonic``, ``describe``
    gives the OpenAPI document, ``after`` is called once the answer is out (also where the client
    did not wait for it), ``wire`` is the connection, where it is known."""

    method: str
    path: str
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
    """``path`` may hold ``{names}``. ``open``: asked without a token. ``takes`` and ``gives`` are
    the schemas of JSON bodies (``media``: what it gives is of this type, and no JSON); ``also``
    further statuses with the schema of their bodies; ``refuses`` makes the body of an error.
    """

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

    @property
    def name(self) -> str:
        """What its counters are called by: the path as it is written here, never as it was
        asked."""
        return self.path
