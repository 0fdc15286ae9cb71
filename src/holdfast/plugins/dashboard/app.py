"""The dashboard's application: routes → pages; its socket, its start and its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from holdfast.core.errors import InputError, MachineError, RunError, StoreError
from holdfast.plugins.dashboard.access import Access, PageGuard
from holdfast.plugins.dashboard.files import START_POSITION
from holdfast.plugins.dashboard.labels import label_page
from holdfast.plugins.dashboard.news import list_news, run_news
from holdfast.plugins.dashboard.pages import files, load_templates, message_page, plain, render
from holdfast.plugins.dashboard.resources import Dashboard, error_page, part_of
from holdfast.plugins.dashboard.run_pages import (
    compare_page,
    data_page,
    feedback,
    run_page,
    runs_page,
    try_page,
)
from holdfast.plugins.dashboard.runs import Runs
from holdfast.plugins.dashboard.service_view import SPANS
from holdfast.plugins.service.web.connection import (
    BoundedServer,
    ConnectionLimits,
    bounded_connection,
)

# Maximum open event streams, and how soon a stream ends with the dashboard [s].
MAX_STREAMS, TICK_S = 32, 0.5
KEYS = (
    ("Runs", "/", "search"),
    ("Curves", "← →", "move between evaluations; Home and End go to the first and the last"),
    ("Try it", "Ctrl Enter", "predict"),
    ("Label", "1 … 9", "choose the label that shows this key"),
    ("Label", "↑ ↓", "choose the previous or the next label"),
    ("Label", "Enter", "store the chosen label and continue"),
    ("Label", "s", "skip this row"),
    ("Label", "u", "undo the last label"),
    ("Label", "?", "show the model's prediction"),
    ("Everywhere", "Tab", "move to the next element; the first Tab skips to the content"),
)

Handler = Callable[[Dashboard, Request], Any]


def application(dashboard: Dashboard) -> Starlette:
    """The ASGI application of a dashboard."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        dashboard.model_trial.close()

    get, post = ["GET"], ["POST"]
    pages: tuple[tuple[str, Handler, list[str]], ...] = (
        ("/", runs_page, get),
        ("/run/{name:path}", run_page, get),
        ("/compare", compare_page, get),
        ("/data", data_page, get),
        ("/try", try_page, get + post),
        ("/feedback", feedback, post),
        ("/service", service_page, get),
        ("/label", label_page, get + post),
        ("/keys", keys_page, get),
        ("/news", news, get),
    )
    routes = [Route(at, _page(dashboard, page), methods=methods) for at, page, methods in pages]
    return Starlette(
        routes=[*routes, Route("/static/{mark}/{name}", static)],
        middleware=[
            Middleware(PageGuard, access=dashboard.access),
            Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5),
        ],
        exception_handlers={HTTPException: _not_found, Exception: _defect},
        lifespan=lifespan,
    )


def _page(dashboard: Dashboard, handler: Handler) -> Callable[[Request], Any]:
    """The response of a handler; one that reads files runs in a thread. An error of Holdfast
    becomes a page that says what to do."""

    async def answer(request: Request) -> Response:
        try:
            if inspect.iscoroutinefunction(handler):
                page = await handler(dashboard, request)
            else:
                page = await run_in_threadpool(handler, dashboard, request)
        except StoreError as error:
            return error_page("The store cannot be reached", error, 503)
        except InputError as error:
            return error_page("This cannot be shown", error, 400)
        return page if isinstance(page, Response) else HTMLResponse(page)

    return answer


def keys_page(dashboard: Dashboard, request: Request) -> str:
    return render("keys.html.j2", keys=KEYS)


def service_page(dashboard: Dashboard, request: Request) -> str:
    view = dashboard.service(request.query_params.get("span", "day"))
    template = "parts/service.html.j2" if part_of(request) == "view" else "service.html.j2"
    return render(template, view=view, spans=SPANS, here="/service")


class _DashboardClosed(Exception):
    """The dashboard is being stopped."""


async def news(dashboard: Dashboard, request: Request) -> Response:
    """A stream of events of the run list, or of the named run."""
    if dashboard.streams >= MAX_STREAMS:
        return Response("Too many pages are open.\n", 503, {"Retry-After": "30"})
    name = request.query_params.get("run")
    place = (
        request.headers.get("last-event-id") or request.query_params.get("after") or START_POSITION
    )

    async def pause(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            if dashboard.closing():
                raise _DashboardClosed
            await asyncio.sleep(min(remaining, TICK_S))

    async def counted_stream() -> AsyncIterator[str]:
        dashboard.streams += 1
        try:
            runs = dashboard.runs
            stream = list_news(runs, pause) if name is None else run_news(runs, name, place, pause)
            async for message in stream:
                yield message
        except _DashboardClosed:
            return
        finally:
            dashboard.streams -= 1

    return StreamingResponse(counted_stream(), media_type="text/event-stream")


async def static(request: Request) -> Response:
    file = files().get(request.path_params["name"])
    if file is None:
        raise HTTPException(404)
    # Its address changes with its content.
    headers = {
        "Content-Type": f"{file.media_type}; charset=utf-8",
        "Cache-Control": "max-age=31536000, immutable",
    }
    return Response(file.content, headers=headers)


async def _not_found(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(getattr(error, "detail", ""))
    text = detail if detail and status != 405 else "This page does not exist."
    title = "Not found" if status == 404 else "This is not possible"
    return message_page(title, plain(text), status)


async def _defect(request: Request, error: Exception) -> Response:
    text = f"A bug in Holdfast: {type(error).__name__}. The terminal shows the traceback."
    return message_page("This failed", text, 500)


HOST = "127.0.0.1"
# Time for reading runs before the address is printed; the rest is read while the page waits.
FIRST_SCAN_S = 1.0
# The browsers of one user, and the time limit of a request [s].
MAX_CONNECTIONS, READ_S = 64, 10.0


def run_dashboard(
    root: Path, port: int, store: str | None, show_address: Callable[[str], None]
) -> None:
    """Serve pages over the runs below ``root`` until the user stops it. ``show_address`` is called
    with the address that opens it, and with a new one after each use. Port 0 is any free port.

    Raises ``RunError`` where ``root`` is not a folder, ``MachineError`` where the port is in use,
    ``StoreError`` where the store cannot be opened.
    """
    if not root.is_dir():
        rule = "is not a folder" if root.exists() else "does not exist"
        raise RunError(str(root), rule, None, "Give the folder of your runs.")
    sock = local_socket(port)
    with sock:
        opened = None
        if store is not None:
            from holdfast.plugins.store.store import open_store

            opened = open_store(store, make=False)
        access = Access(sock.getsockname()[1], show_address)
        dashboard = Dashboard(Runs(root), access, opened)
        dashboard.runs.list_runs(FIRST_SCAN_S)
        config = uvicorn.Config(
            application(dashboard),
            http=bounded_connection(ConnectionLimits(MAX_CONNECTIONS, READ_S, lambda _: None)),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=1,
        )
        server = BoundedServer(config)
        dashboard.closing = lambda: server.should_exit
        show_address(access.url)
        # While the user opens the browser, so that the first run page is fast.
        threading.Thread(target=load_templates, name="warm", daemon=True).start()
        # It runs until it is stopped: an interrupt is the ordinary end.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[sock])


def local_socket(port: int) -> socket.socket:
    """A socket that accepts connections from this machine only; raises as ``run_dashboard``
    does."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen(128)
    except (OSError, OverflowError) as error:
        sock.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            rule = "is in use by another program"
            remedy = "Stop that program, or choose another port; --port 0 chooses a free one."
        else:
            rule, remedy = f"cannot be used: {error}", "Choose another port, from 1024 to 65535."
        raise MachineError("--port", rule, port, remedy) from None
    return sock
