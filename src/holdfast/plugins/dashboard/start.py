"""Starting the dashboard: its place on this machine, its address, its end."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from holdfast.core.errors import MachineError, RunError
from holdfast.plugins.dashboard.access import Access
from holdfast.plugins.dashboard.app import application
from holdfast.plugins.dashboard.pages import warm
from holdfast.plugins.dashboard.resources import Dashboard
from holdfast.plugins.dashboard.runs import Runs
from holdfast.plugins.service.web.wire import ConnectionBounds, WireServer, wire_of

HOST = "127.0.0.1"
# What is read of the runs before the address is told; the rest is read while the page waits.
FIRST_S = 1.0
# Of one person's browsers, and the time [s] in which a request must come.
MOST_CONNECTIONS, READ_S = 64, 10.0


def run_dashboard(root: Path, port: int, store: str | None, tell: Callable[[str], None]) -> None:
    """Serve pages over the runs below ``root`` until somebody stops it; ``tell`` hears the address
    that opens it, and after each use the next one. Port 0 is any that is free.

    Raises ``RunError`` where ``root`` is no folder, ``MachineError`` where the port is taken,
    ``StoreError`` where the store cannot be opened.
    """
    if not root.is_dir():
        rule = "is not a folder" if root.exists() else "does not exist"
        raise RunError(str(root), rule, None, "Name the folder in which your runs are.")
    place = listening(port)
    with place:
        opened = None
        if store is not None:
            from holdfast.plugins.store.store import open_store

            opened = open_store(store)
        access = Access(place.getsockname()[1], tell)
        dashboard = Dashboard(Runs(root), access, opened)
        dashboard.runs.listed(FIRST_S)
        config = uvicorn.Config(
            application(dashboard),
            http=wire_of(ConnectionBounds(MOST_CONNECTIONS, READ_S, lambda _: None)),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=1,
        )
        server = WireServer(config)
        dashboard.closing = lambda: server.should_exit
        tell(access.url)
        # While somebody opens the browser: the first run that is looked at comes without delay.
        threading.Thread(target=warm, name="warm", daemon=True).start()
        # It goes on until it is stopped: to be stopped is its ordinary end.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[place])


def listening(port: int) -> socket.socket:
    """A socket of this machine alone that takes connections; raises as ``run_dashboard`` does."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
        made.listen(128)
    except (OSError, OverflowError) as error:
        made.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            rule = "is in use by another program"
            remedy = "Stop that program, or choose another port: --port 0 takes any."
        else:
            rule, remedy = f"cannot be used: {error}", "Choose another port, from 1024 to 65535."
        raise MachineError("--port", rule, port, remedy) from None
    return made
