"""``RunningService``: a service on a socket, from the first connection to the last response.

The port is bound before the model is loaded, so that a health check sees a process that is alive
and not ready. The first signal ends the service gracefully: no new request is accepted, open ones
are answered, and answered ones are stored. A second signal ends it at once.
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
from holdfast.plugins.service.live.router import EngineRouter
from holdfast.plugins.service.records import ServiceEngine, ServiceObserver
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.application import Application
from holdfast.plugins.service.web.connection import (
    BoundedServer,
    ConnectionLimits,
    bounded_connection,
)
from holdfast.training.machine.signals import ending_signals

BACKLOG = 2048
# File descriptors reserved for other uses than connections.
RESERVED_FILES = 64
ENDED, INTERRUPTED = 0, Interrupted.exit_code
# Extra time for open requests after the request timeout [s].
GRACE_S = 5.0

Load = Callable[[], tuple[EngineRouter, Sequence[ServiceObserver]]]


@dataclass(frozen=True, slots=True)
class Address:
    """The address that a service listens on."""

    sock: socket.socket

    @property
    def url(self) -> str:
        """The URL on this machine."""
        host, port = self.sock.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


def listen(host: str, port: int) -> Address:
    """Bind the port (0: the system chooses one). Raises ``RecipeError`` where the port is in use or
    not permitted, or the host is not an address of this machine."""
    option = f"--port {port}"
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise RecipeError(
            f"--host {host}", "is not a valid host", None, "E.g. 127.0.0.1, ::1 or 0.0.0.0."
        ) from error
    family, socket_type, proto, _, address = addresses[0]
    sock = socket.socket(family, socket_type, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_error(option, host, error) from error
    sock.setblocking(False)
    return Address(sock)


def _bind_error(option: str, host: str, error: OSError) -> RecipeError | MachineError:
    match error.errno:
        case errno.EADDRINUSE:
            remedy = "Give another --port; 0 chooses a free one."
            return RecipeError(option, f"is in use on {host} by another program", None, remedy)
        case errno.EACCES:
            rule = "is not permitted: ports below 1024 need administrator rights"
            return RecipeError(option, rule, None, "Give a --port of 1024 or above.")
        case errno.EADDRNOTAVAIL:
            rule = "is not an address of this machine"
            return RecipeError(f"--host {host}", rule, None, "E.g. 127.0.0.1 or 0.0.0.0.")
    reason = os.strerror(error.errno or 0).lower()
    return MachineError(option, f"cannot be listened on: {reason}", None, "Give another --port.")


def connection_limit(requested: int) -> int:
    """The requested number of connections, or fewer (with a decision) where the process may not
    open enough files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Twice as many are open while the surplus is refused.
    limit = requested if soft == resource.RLIM_INFINITY else max(1, (soft - RESERVED_FILES) // 2)
    if requested <= limit:
        return requested
    because = f"this process may open {soft:,} files (ulimit -n), up to two for each connection"
    notify(Decision("connections", f"{limit:,}", because))
    return limit


class _Server(BoundedServer):
    """uvicorn's server without its signal handlers: ``RunningService`` handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class RunningService:
    """One service, one socket, one loop. In a separate thread ``load`` loads the model, which is
    then warmed up. Then requests are answered, ``on_ready`` is called, and ``after_load`` runs in a
    daemon thread that nothing waits for."""

    def __init__(
        self,
        service: Service,
        application: Application,
        address: Address,
        load: Load,
        on_ready: Callable[[ServiceEngine], None] = lambda _: None,
        after_load: Callable[[], None] = lambda: None,
    ) -> None:
        self.service, self.address = service, address
        self._load, self._on_ready, self._after_load = load, on_ready, after_load
        settings = service.settings
        bounds = ConnectionLimits(
            settings.max_connections,
            settings.read_s,
            lambda fault: service.counters.count_refusal(fault.reason),
        )
        self._server = _Server(
            uvicorn.Config(
                application,
                http=bounded_connection(bounds),
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
        self._exit_code = ENDED
        self._signal: int | None = None

    def run(self) -> int:
        """Serve until a signal; return the exit code. Raises what loading the model raises."""
        config = self._server.config
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            try:
                return runner.run(self._main())
            finally:
                self.service.close()

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        old_handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, *ending_signals())}
        for number in old_handlers:
            loop.add_signal_handler(number, self._on_signal, number)
        serving = asyncio.create_task(self._server.serve(sockets=[self.address.sock]))
        loading = asyncio.create_task(self._load_model())
        try:
            await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_EXCEPTION)
            if loading.done() and loading.exception() is not None:
                self._server.should_exit = True
                await serving
                await loading
            await serving
            if (chats := self.service.chats) is not None:
                await asyncio.to_thread(chats.drain)
            if (engine := self.service.loaded_engine) is not None:
                await engine.drain()
        finally:
            for number, old_handler in old_handlers.items():
                loop.remove_signal_handler(number)
                if old_handler is not None:
                    signal.signal(number, old_handler)
        return self._exit_code

    async def _load_model(self) -> None:
        engine, observers = await asyncio.to_thread(self._load)
        if engine.facts.task in DECODER_TASKS:
            # Open requests are answered, and generation takes time.
            max_answer_s = max(
                self.service.settings.chat_timeout_s, self.service.settings.timeout_s
            )
            self._server.config.timeout_graceful_shutdown = int(max_answer_s + GRACE_S) + 1
        await asyncio.to_thread(self.service.load, engine, observers)
        self._on_ready(engine)
        threading.Thread(target=self._after_load, name="afterwards", daemon=True).start()

    def _on_signal(self, number: int) -> None:
        if self._signal is not None:
            self.service.log("stopped at once by a second signal")
            os._exit(INTERRUPTED)
        self._signal = number
        self._exit_code = INTERRUPTED if number == signal.SIGINT else ENDED
        self.service.draining = True
        if self.service.loaded_engine is None:
            # A model that is loading cannot be stopped, and no request was accepted yet.
            os._exit(self._exit_code)
        drain_s = self.service.settings.drain_s
        more = f"requests are accepted for another {drain_s:g} s, then " if drain_s else ""
        self.service.log(f"stopping: {more}answering the requests that were accepted")
        asyncio.get_running_loop().call_later(drain_s, self._stop)

    def _stop(self) -> None:
        self.service.stopping = self._server.should_exit = True
