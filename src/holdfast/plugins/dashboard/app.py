"""The dashboard's application: addresses → pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from holdfast.core.errors import InputError, StoreError
from holdfast.plugins.dashboard.follow import START
from holdfast.plugins.dashboard.forms import message_page
from holdfast.plugins.dashboard.guard import PageGuard, of_file
from holdfast.plugins.dashboard.news import list_news, run_news
from holdfast.plugins.dashboard.pages import files, plain, render
from holdfast.plugins.dashboard.resources import Dashboard
from holdfast.plugins.dashboard.run_pages import compare_page, data_page, run_page, runs_page
from holdfast.plugins.dashboard.service_pages import label_page, service_page
from holdfast.plugins.dashboard.try_pages import feedback, try_page

# Pages that are told news at a time, and how soon a stream ends when the dashboard does [s].
MOST_STREAMS, TICK_S = 32, 0.5
KEYS = (
    ("Runs", "/", "search"),
    ("Curves", "← →", "from look to look, Home and End to the ends"),
    ("Try it", "Ctrl Enter", "ask the model"),
    ("Label", "1 … 9", "choose the label that shows this key"),
    ("Label", "↑ ↓", "the label before or after"),
    ("Label", "Enter", "store the chosen label, and go on"),
    ("Label", "s", "skip this row"),
    ("Label", "u", "take the last label back"),
    ("Label", "?", "show what the model said"),
    ("Everywhere", "Tab", "from one thing to the next; the first Tab skips to the content"),
)


def application(dashboard: Dashboard) -> Starlette:
    """The ASGI application of a dashboard."""

    @asynccontextmanager
    async def living(_: Starlette) -> AsyncIterator[None]:
        yield
        dashboard.trier.close()

    routes = [
        Route("/", _page(dashboard, runs_page)),
        Route("/run/{name:path}", _page(dashboard, run_page)),
        Route("/compare", _page(dashboard, compare_page)),
        Route("/data", _page(dashboard, data_page)),
        Route("/try", _page(dashboard, try_page), methods=["GET", "POST"]),
        Route("/feedback", _page(dashboard, feedback), methods=["POST"]),
        Route("/service", _page(dashboard, service_page)),
        Route("/label", _page(dashboard, label_page), methods=["GET", "POST"]),
        Route("/keys", _page(dashboard, keys_page)),
        Route("/news", _page(dashboard, news)),
        Route("/static/{mark}/{name}", static),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(PageGuard, access=dashboard.access),
            Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5),
        ],
        exception_handlers={HTTPException: _not_found, Exception: _defect},
        lifespan=living,
    )


Handler = Callable[[Dashboard, Request], Any]


def _page(dashboard: Dashboard, handler: Handler) -> Callable[[Request], Any]:
    """What a handler answers; an error of ours is a page that says what to do."""

    async def answer(request: Request) -> Response:
        try:
            made = await handler(dashboard, request)
        except StoreError as error:
            made = message_page("The store does not answer", error, 503)
        except InputError as error:
            made = message_page("That cannot be shown", error, 400)
        found: Response = made if isinstance(made, Response) else HTMLResponse(made)
        return found

    return answer


async def keys_page(dashboard: Dashboard, request: Request) -> str:
    return render("keys.html.j2", keys=KEYS)


class _Closing(Exception):
    """The dashboard is being stopped."""


async def news(dashboard: Dashboard, request: Request) -> Response:
    """A stream of what happens to the list, or to the run that is named."""
    if dashboard.streams >= MOST_STREAMS:
        return Response("Too many pages are open.\n", 503, {"Retry-After": "30"})
    name = request.query_params.get("run")
    place = request.headers.get("last-event-id") or request.query_params.get("after") or START

    async def pause(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if dashboard.closing():
                raise _Closing
            await asyncio.sleep(min(left, TICK_S))

    async def counted() -> AsyncIterator[str]:
        dashboard.streams += 1
        try:
            runs = dashboard.runs
            made = list_news(runs, pause) if name is None else run_news(runs, name, place, pause)
            async for one in made:
                yield one
        except _Closing:
            return
        finally:
            dashboard.streams -= 1

    return StreamingResponse(counted(), media_type="text/event-stream")


async def static(request: Request) -> Response:
    found = files().get(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    return Response(found.content, headers=dict(of_file(found.kind)))


async def _not_found(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(getattr(error, "detail", ""))
    text = detail if detail and status != 405 else "There is no such page."
    title = "Not found" if status == 404 else "That cannot be done"
    page = render("message.html.j2", title=title, text=plain(text), more="", link=("/", "All runs"))
    return HTMLResponse(page, status)


async def _defect(request: Request, error: Exception) -> Response:
    text = f"A defect in Holdfast: {type(error).__name__}. Its terminal says where."
    page = render(
        "message.html.j2", title="That failed", text=text, more="", link=("/", "All runs")
    )
    return HTMLResponse(page, 500)
