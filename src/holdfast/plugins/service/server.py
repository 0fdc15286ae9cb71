"""``Running``: a service on a socket, from the first connection to the last answer.

The port is taken first and the model loaded then, so that a health check sees a process that lives
and is not ready. A signal to end is heard once: nothing new is taken, what was taken is answered,
what was answered is written. A second one ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import uvicorn

from holdfast.core.decisions import notify
from holdfast.core.errors import Interrupted, MachineError, RecipeError
from holdfast.core.records import Decision
from holdfast.core.tasks import DECODER_TASKS
from holdfast.plugins.service.records import ServiceEngine, ServiceObserver
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.application import Application
from holdfast.plugins.service.web.wire import ConnectionBounds, WireServer, wire_of
from holdfast.training.machine.signals import ending_signals

BACKLOG = 2048
# Files that the process holds beside its connections.
OTHER_FILES = 64
ENDED, INTERRUPTED = 0, Interrupted.exit_code
# Beyond the time of a request, for what was taken to be answered [s].
GRACE_S = 5.0

Load = Callable[[], tuple[ServiceEngine, Sequence[ServiceObserver]]]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens."""

    sock: socket.socket

    @property
    def url(self) -> str:
        """How it is asked from this machine."""
        host, port = self.sock.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


def listen(host: str, port: int) -> Address:
    """Take the port (0: the system chooses one). Raises ``RecipeError`` where it is taken, may not
    be had, or the host is none of this machine's."""
    what = f"--port {port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise RecipeError(
            f"--host {host}", "names no host", None, "E.g. 127.0.0.1, ::1 or 0.0.0.0."
        ) from error
    family, kind, proto, _, address = found[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _unbound(what, host, error) from error
    sock.setblocking(False)
    return Address(sock)


def _unbound(what: str, host: str, error: OSError) -> RecipeError | MachineError:
    match error.errno:
        case errno.EADDRINUSE:
            remedy = "Name another --port; 0 takes a free one."
            return RecipeError(what, f"is taken on {host} by another program", None, remedy)
        case errno.EACCES:
            rule = "may be taken by the administrator alone, as all below 1024"
            return RecipeError(what, rule, None, "Name a --port from 1024 on.")
        case errno.EADDRNOTAVAIL:
            rule = "is no address of this machine"
            return RecipeError(f"--host {host}", rule, None, "E.g. 127.0.0.1 or 0.0.0.0.")
    said = os.strerror(error.errno or 0).lower()
    return MachineError(what, f"cannot be listened on: {said}", None, "Name another.")


def connections_within(asked: int) -> int:
    """As many connections as the process may hold files for; said where they are fewer."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Twice as many are held for the moment in which they are refused.
    most = asked if soft == resource.RLIM_INFINITY else max(1, (soft - OTHER_FILES) // 2)
    if asked <= most:
        return asked
    because = f"this process may hold {soft:,} files (ulimit -n), two for each connection at worst"
    notify(Decision("connections", f"{most:,}", because))
    return most


class _Server(WireServer):
    """uvicorn's server without its own signals: ``Running`` hears them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Running:
    """One service, one socket, one loop. In a thread beside, ``load`` brings the model, which is
    warmed; then requests are answered, ``loaded`` is told, and ``afterwards`` does what nobody has
    to wait for, in a thread that is left alone when the service ends."""

    def __init__(
        self,
        service: Service,
        application: Application,
        place: Address,
        load: Load,
        loaded: Callable[[ServiceEngine], None] = lambda _: None,
        afterwards: Callable[[], None] = lambda: None,
    ) -> None:
        self.service, self.place = service, place
        self._load, self._loaded, self._afterwards = load, loaded, afterwards
        settings = service.settings
        bounds = ConnectionBounds(
            settings.max_connections,
            settings.read_s,
            lambda fault: service.measured.refused(fault.reason),
        )
        self._server = _Server(
            uvicorn.Config(
                application,
                http=wire_of(bounds),
                ws="none",
                lifespan="off",
                loop="auto",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(max(1, settings.idle_s)),
                timeout_graceful_shutdown=int(settings.timeout_s + GRACE_S) + 1,
                backlog=BACKLOG,
            )
        )
        self._code = ENDED
        self._asked: int | None = None

    def run(self) -> int:
        """Until a signal; the exit code. Raises what loading the model raises."""
        config = self._server.config
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            try:
                return runner.run(self._main())
            finally:
                self.service.close()

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        heard = {n: signal.getsignal(n) for n in (signal.SIGINT, *ending_signals())}
        for number in heard:
            loop.add_signal_handler(number, self._end, number)
        serving = asyncio.create_task(self._server.serve(sockets=[self.place.sock]))
        loading = asyncio.create_task(self._begin())
        try:
            await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_EXCEPTION)
            if loading.done() and loading.exception() is not None:
                self._server.should_exit = True
                await serving
                await loading
            await serving
            if (chats := self.service.chats) is not None:
                await asyncio.to_thread(chats.drain)
            if (engine := self.service.held) is not None:
                await engine.drain()
        finally:
            for number, before in heard.items():
                loop.remove_signal_handler(number)
                if before is not None:
                    signal.signal(number, before)
        return self._code

    async def _begin(self) -> None:
        engine, observers = await asyncio.to_thread(self._load)
        if engine.facts.task in DECODER_TASKS:
            # What was taken is answered, and an answer that is written takes its time.
            longest = max(self.service.settings.chat_timeout_s, self.service.settings.timeout_s)
            self._server.config.timeout_graceful_shutdown = int(longest + GRACE_S) + 1
        await asyncio.to_thread(self.service.load, engine, observers)
        self._loaded(engine)
        threading.Thread(target=self._afterwards, name="afterwards", daemon=True).start()

    def _end(self, number: int) -> None:
        if self._asked is not None:
            self.service.log("ended at once by a second signal")
            os._exit(INTERRUPTED)
        self._asked = number
        self._code = INTERRUPTED if number == signal.SIGINT else ENDED
        self.service.draining = True
        if self.service.held is None:
            # A model that is loading cannot be stopped, and nothing was taken yet.
            os._exit(self._code)
        self.service.log("ending: answering what was taken")
        wait = self.service.settings.drain_s
        asyncio.get_running_loop().call_later(wait, self._stop)

    def _stop(self) -> None:
        self._server.should_exit = True
