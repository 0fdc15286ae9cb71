"""``BoundedConnection``: uvicorn's HTTP/1.1 connection with the limits that it lacks.

uvicorn waits forever for headers or a body that never come, accepts headers of any length, and
waits forever for a client that does not read. Here each connection records since when it waits for
bytes, and ``BoundedServer`` ends those that took too long: checking all of them twice a second
costs less than a timer per request. A client that is refused while sending still gets the response:
closing a connection with unread bytes resets it and loses the response, so the rest is read and
discarded for a moment first.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from holdfast.plugins.service.web.faults import Fault, error_body_for

MAX_HEAD_BYTES = 32_768  # bytes; Apache and nginx take 8 kB a line and as much in all
# Pipelined requests without a response: no usual client sends two, and each connection has one
# request served before the others.
MAX_PIPELINED = 16
# Health checks are answered however many connections are open.
ALWAYS_ANSWERED = b"/health/"
LINGER_S, LINGER_BYTES = 2.0, 32 * 2**20
# A client that closed its half and one that was killed look alike: both sent FIN. After this time
# [s] it is sent 100 Continue, which every client knows how to ignore; if the client is gone, its
# machine reports that at once.
CLIENT_CHECK_S = 0.05
# Interval between two checks of all connections [s].
SWEEP_S = 0.5
CONTINUE_RESPONSE = b"HTTP/1.1 100 Continue\r\n\r\n"
WIRE = "holdfast.wire"
HEAD_END = re.compile(rb"\r?\n\r?\n")
UPGRADE, IGNORED = re.compile(rb"(?<=\n)upgrade(?=[ \t]*:)", re.IGNORECASE), b"ignored-upgrade"
_ARRIVALS = itertools.count()
_ORIGIN_END = re.compile(rb"[/?#]")

HEAD = Fault(
    431,
    "the head",
    f"of this request is longer than {MAX_HEAD_BYTES:,} bytes",
    None,
    "Send shorter headers, and rows in the body.",
    reason="head",
)
SLOW = Fault(
    408,
    "this request",
    "did not arrive in time",
    None,
    "Send headers and body at once, or start the service with --set serve.read_s=SECONDS.",
    reason="slow",
)
BROKEN = Fault(
    400,
    "this request",
    "is not HTTP/1.1",
    None,
    "Check the request line, the headers and Content-Length.",
    reason="not HTTP",
)
NO_HOST = Fault(
    400,
    "Host",
    "must occur exactly once in an HTTP/1.1 request (RFC 9112, 3.2)",
    None,
    "Send the name of this service, e.g. Host: localhost.",
    reason="host",
)
FOREIGN = Fault(
    400,
    "the request line",
    "has another host than Host, or no path",
    None,
    "Request only the path, e.g. GET /health/live.",
    reason="host",
)
CODED = Fault(
    400,
    "Transfer-Encoding",
    "is not supported: a compressed body can expand to any size",
    None,
    "Send the body uncompressed, with Content-Length or Transfer-Encoding: chunked.",
    reason="media type",
)
UPGRADED = Fault(
    400,
    "Upgrade",
    "is not supported in a request that was sent before the response to the one before it",
    None,
    "Send the request again on a new connection, or without Upgrade.",
    reason="not HTTP",
)
CROWDED = Fault(
    503,
    "this service",
    "has reached its limit of connections",
    None,
    "Retry after the seconds in Retry-After, and keep connections open between requests.",
    reason="connections",
    retry_after_s=1,
)


async def _crowded(scope: Any, receive: Any, send: Any) -> None:
    """The application of a surplus connection: it answers before the body is read."""
    body = json.dumps(error_body_for(str(scope["path"]))(CROWDED))
    headers = {**CROWDED.headers, "Connection": "close"}
    await Response(body, CROWDED.status, headers, "application/json")(scope, receive, send)


class _LingeringTransport:
    """A transport whose ``close`` gives a client that is still sending the time to read."""

    def __init__(self, transport: Any, wire: BoundedConnection) -> None:
        self._transport, self._wire = transport, wire
        for name in ("write", "is_closing", "pause_reading", "resume_reading", "get_extra_info"):
            setattr(self, name, getattr(transport, name))

    def close(self) -> None:
        self._wire.linger()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedConnection(HttpToolsProtocol):
    """One connection. ``bounded_connection`` sets ``limits``."""

    limits: ConnectionLimits

    def connection_made(self, transport: Any) -> None:
        self.raw = transport
        self.loop_time = self.loop.time
        # The loop's clock does not advance while it accepts many connections at once.
        self.arrival_number = next(_ARRIVALS)
        # Since when it waits for bytes of a request; ``None`` while one is being answered.
        self.waits_since: float | None = self.loop_time()
        self.head_bytes = 0
        self.in_head = True
        self.lingering_since: float | None = None
        self.discarded_bytes = 0
        self.unsent: tuple[int, float] = (0, 0.0)
        # Called where the client hangs up during a response: see ``Call.cancelled_on_hangup``.
        self.give_up: Callable[[], None] | None = None
        # The request being answered; ``cycle`` is the one that was parsed last.
        self.answering_cycle: Any = None
        # Received, but not yet parsed: the last line of a head, from its preceding line feed on.
        self.unfinished_line = b""
        # The fault in the headers that are being parsed.
        self.fault_in_head: Fault | None = None
        super().connection_made(_LingeringTransport(transport, self))  # type: ignore[arg-type]
        if len(self.connections) <= 2 * self.limits.max_connections:
            return
        open_connections = [
            c
            for c in self.connections
            if isinstance(c, BoundedConnection) and not c.raw.is_closing()
        ]
        if len(open_connections) > 2 * self.limits.max_connections:
            # Close the connection that has waited longest without a complete request: the new one
            # may have a request, and the silent client may reconnect.
            self.limits.on_refused(CROWDED)
            waiting = [one for one in open_connections if one.waits_since is not None]
            min(waiting, key=lambda one: (one.waits_since or 0.0, one.arrival_number)).raw.abort()

    def data_received(self, data: bytes) -> None:
        if self.lingering_since is not None:
            self.discarded_bytes += len(data)
            if self.discarded_bytes > LINGER_BYTES:
                self.raw.abort()
            return
        if self.waits_since is None and self.in_head:
            self.waits_since = self.loop_time()
        if self.in_head:
            # A part of this may be the body; it is not long: at most 256 kB arrive at once.
            self.head_bytes += len(data)
            data = self._without_upgrade(data)
        if data:
            super().data_received(data)
        if self.in_head and self.head_bytes > MAX_HEAD_BYTES and self.lingering_since is None:
            self.refuse(HEAD)

    def _without_upgrade(self, data: bytes) -> bytes:
        """The bytes of a head, and what follows it, without an offer to change the protocol, which
        a server may ignore (RFC 9110, 7.8). The parser would skip the body of such a request; the
        HTTP clients of Java and ``curl --http2`` make the offer with every one."""
        data = self.unfinished_line + data
        end = HEAD_END.search(data)
        at = data.rfind(b"\n") if end is None else end.end()
        if at < 0:
            # In the first line.
            return data
        head, rest = data[:at], data[at:]
        self.unfinished_line = b"" if end is not None else rest
        return UPGRADE.sub(IGNORED, head) + (rest if end is not None else b"")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_head = True
        scope: Any = self.scope
        scope[WIRE] = self

    def on_headers_complete(self) -> None:
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > MAX_HEAD_BYTES or len(self.pipeline) >= MAX_PIPELINED:
            raise _HeadRefused
        self.fault_in_head = head_fault(self.parser.get_http_version(), self.url, self.headers)
        if self.fault_in_head is None and self.parser.should_upgrade():
            self.fault_in_head = UPGRADED
        if self.fault_in_head is not None:
            raise _HeadRefused
        self.in_head = False
        self.head_bytes = 0
        if self._is_surplus() and not self.url.startswith(ALWAYS_ANSWERED):
            self.limits.on_refused(CROWDED)
            self.app = _crowded
        super().on_headers_complete()

    def _is_surplus(self) -> bool:
        """Whether more connections are open than the limit admits. One that was refused no longer
        counts, even before it is closed: otherwise all that arrive at once would be refused."""
        if len(self.connections) <= self.limits.max_connections:
            return False
        refused = sum(getattr(one, "app", None) is _crowded for one in self.connections)
        return len(self.connections) - refused > self.limits.max_connections

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.waits_since = None
        self.in_head = True

    def send_400_response(self, msg: str) -> None:
        long = self.in_head and self.head_bytes > MAX_HEAD_BYTES
        if self.busy:
            # A response to an earlier request is being sent: a second one would be taken for it.
            self.waits_since = None
            self.cycle.keep_alive = False
            self.raw.pause_reading()
            return
        self.refuse(HEAD if long else self.fault_in_head or BROKEN)

    def refuse(self, fault: Fault) -> None:
        """Send an error without the application, and close."""
        self.limits.on_refused(fault)
        if not self.raw.is_closing():
            path = "" if self.in_head else self.url.decode("latin-1")
            body = json.dumps(error_body_for(path)(fault)).encode()
            head = STATUS_LINE[fault.status]
            head += b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            self.raw.write(head + b"connection: close\r\n\r\n" + body)
        self.linger()

    def linger(self) -> None:
        """Close once the response was read; while the client still sends, after a moment."""
        if self.lingering_since is not None or self.raw.is_closing():
            return
        unfinished = self.waits_since is not None and (self.head_bytes or not self.in_head)
        if not unfinished or not self.raw.can_write_eof():
            self.raw.close()
            return
        self.lingering_since = self.loop_time()
        self.flow.resume_reading()
        self.raw.write_eof()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has sent everything may have closed its half: it still reads the
        response."""
        if self.lingering_since is not None or not self.busy:
            self.raw.close()
            return False
        self.cycle.keep_alive = False
        self.loop.call_later(CLIENT_CHECK_S, self._probe_client)
        return True

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.answering_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if (one := self.answering_cycle) is not None and not one.response_complete:
            # With a pipelined request, uvicorn would notify only that one.
            one.disconnected = True
            one.message_event.set()
        if self.give_up is not None:
            self.give_up()

    @property
    def _client_silent(self) -> bool:
        """Whether a client that closed its half waits for the first bytes of its response, or is
        gone."""
        return self.busy and not self.raw.is_closing() and not self.answering_cycle.response_started

    def _probe_client(self) -> None:
        # HTTP/1.0 has no interim responses.
        if self._client_silent and self.answering_cycle.scope["http_version"] == "1.1":
            self.raw.write(CONTINUE_RESPONSE)
            self._check_client(CLIENT_CHECK_S)

    def _check_client(self, after_s: float) -> None:
        if not self._client_silent:
            return
        # The loop does not read after EOF, so it would not notice.
        with socket.socket(fileno=os.dup(self.raw.get_extra_info("socket").fileno())) as sock:
            gone = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if gone:
            self.raw.abort()
        else:
            self.loop.call_later(after_s, self._check_client, min(1.0, 2 * after_s))

    @property
    def busy(self) -> bool:
        """Whether a complete request still waits for its response."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def close_if_overdue(self, now: float) -> None:
        """End this connection if it waited too long for bytes, or for the client to read."""
        if self.lingering_since is not None:
            if now - self.lingering_since > LINGER_S:
                self.raw.abort()
            return
        left = self.raw.get_write_buffer_size()
        if not left:
            self.unsent = (0, now)
        elif left != self.unsent[0]:
            self.unsent = (left, now)
        elif now - self.unsent[1] > self.limits.read_s:
            self.limits.on_refused(SLOW)
            self.raw.abort()
            return
        if self.waits_since is None or now - self.waits_since <= self.limits.read_s or self.busy:
            return
        if self.in_head and not self.head_bytes:
            # It never sent a byte.
            self.raw.close()
        elif self.cycle is not None and self.cycle.response_started:
            self.limits.on_refused(SLOW)
            self.raw.abort()
        else:
            self.refuse(SLOW)


class _HeadRefused(Exception):
    """Raised within the parser, which then calls ``send_400_response``."""


def head_fault(version: str, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Fault | None:
    """A violation of RFC 9112 in the headers that another program on the way may read differently:
    the host (3.2), a host in the request line (3.2.2), a coding in addition to chunks (6.1)."""
    hosts = [value.strip().lower() for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return NO_HOST
    if not url.startswith(b"/") and url != b"*":
        scheme, _, rest = url.lower().partition(b"://")
        if scheme not in (b"http", b"https") or [_ORIGIN_END.split(rest, 1)[0]] != hosts:
            return FOREIGN
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    return CODED if codings not in ([], [b"chunked"]) else None


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits that the connections of one server share: how many, and for how long;
    ``on_refused`` is called with faults of connections that were refused before the application."""

    max_connections: int
    read_s: float
    on_refused: Callable[[Fault], None]


def bounded_connection(limits: ConnectionLimits) -> type[BoundedConnection]:
    """The connection class of a server."""
    return type("BoundWire", (BoundedConnection,), {"limits": limits})


class BoundedServer(uvicorn.Server):
    """uvicorn's server, which ends overdue connections."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until it should exit and every connection has ended."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            await super().serve(sockets)
        finally:
            sweeping.cancel()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            for one in list(self.server_state.connections):
                if isinstance(one, BoundedConnection):
                    one.close_if_overdue(now)
