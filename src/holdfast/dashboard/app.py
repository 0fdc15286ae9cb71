"""The dashboard's application: addresses → pages."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from holdfast.core.errors import HoldfastError, InputError, RunError, StoreError
from holdfast.core.run_files import EVENTS, RESULT
from holdfast.dashboard.access import Access
from holdfast.dashboard.beside import MOST, overlaid, paired_views, settings_that_differ
from holdfast.dashboard.findings import data_views
from holdfast.dashboard.follow import START
from holdfast.dashboard.guard import Guard, of_file
from holdfast.dashboard.listing import Query, page_of
from holdfast.dashboard.news import list_news, run_news
from holdfast.dashboard.one_run import TABS, Whole, parts_of, so_far, tab_of, whole_run
from holdfast.dashboard.pages import files, plain, render, run_address
from holdfast.dashboard.runs import Runs
from holdfast.dashboard.summary import Summary
from holdfast.dashboard.trying import Busy, Trier
from holdfast.report.read import RunFiles
from holdfast.report.view import headline, record, reliance

if TYPE_CHECKING:
    from holdfast.store.store import Store

T = TypeVar("T")
# How long a page waits for runs that nobody has read yet [s]; the rest follows by itself.
PATIENCE_S = 0.25
# Pages that are told news at a time, whole runs that are kept, bytes that are taken.
MOST_STREAMS, MOST_KEPT = 32, 8
LARGEST_FORM, LARGEST_PICTURE = 300_000, 12_000_000
KEYS = (
    ("Runs", "/", "search"),
    ("Curves", "← →", "from look to look, Home and End to the ends"),
    ("Try it", "Ctrl Enter", "ask the model"),
    ("Label", "1 … 9", "choose a label"),
    ("Label", "↑ ↓", "the label before or after"),
    ("Label", "Enter", "store the chosen label, and go on"),
    ("Label", "s", "skip this row"),
    ("Label", "u", "take the last label back"),
    ("Label", "?", "show what the model said"),
    ("Everywhere", "Tab", "from one thing to the next; the first Tab skips to the content"),
)


@dataclass
class Dashboard:
    """What the pages are made of: the ``runs``, who may come in, the ``store`` where there is
    one, and what is kept between requests."""

    runs: Runs
    access: Access
    store: Store | None = None
    trier: Trier = field(default_factory=Trier)
    clock: Callable[[], float] = time.time
    streams: int = 0
    kept: OrderedDict[tuple[Any, ...], Whole] = field(default_factory=OrderedDict)

    def whole(self, path: Path) -> Whole:
        """A finished run, read once for all of its tabs."""
        marks = tuple((path / name).stat().st_mtime_ns for name in (RESULT, EVENTS))
        key = (path, *marks)
        if key not in self.kept:
            self.kept[key] = whole_run(path)
            while len(self.kept) > MOST_KEPT:
                self.kept.popitem(last=False)
        return self.kept[key]


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
        Route("/keys", _page(dashboard, keys_page)),
        Route("/news", _page(dashboard, news)),
        Route("/static/{mark}/{name}", static),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Guard, access=dashboard.access),
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


async def runs_page(dashboard: Dashboard, request: Request) -> str:
    query = Query.of(request.query_params)
    listed = await run_in_threadpool(dashboard.runs.listed, PATIENCE_S)

    def made() -> str:
        page = page_of(list(listed.summaries.values()), query)
        template = "parts/runs.html.j2" if _part(request) == "list" else "runs.html.j2"
        root = plain(dashboard.runs.root.name or dashboard.runs.root)
        now = dashboard.clock()
        return render(template, page=page, listed=listed, root=root, now=now, here="/")

    return await run_in_threadpool(made)


async def run_page(dashboard: Dashboard, request: Request) -> Response | str:
    name = request.path_params["name"]
    summary, path = await _known(dashboard, name)
    if summary.state != "finished":
        return await run_in_threadpool(_going, dashboard, summary, path, _part(request))
    tab = request.query_params.get("tab", "")
    if tab not in TABS:
        raise HTTPException(404, "This run has no such page.")
    return await run_in_threadpool(_finished, dashboard, summary, path, tab, _part(request))


def _finished(
    dashboard: Dashboard, summary: Summary, path: Path, tab: str, part: str
) -> Response | str:
    if part == "live":
        # Whoever watched it being made is told to look at the whole.
        return '<div data-state="finished"></div>'
    try:
        whole = dashboard.whole(path)
        run, named = whole.run, whole.parts
        top = headline.headline(run) if not tab else None
    except RunError as error:
        return message_page(f"{summary.name} cannot be read", error, 422)
    return render(
        "run.html.j2",
        summary=summary,
        tabs=[(key, title) for key, (title, _) in TABS.items()],
        tab=tab,
        title=TABS[tab][0],
        top=top,
        rely=reliance.reliance(run, set(named)) if top else None,
        titles={key: one.title for key, one in named.items()},
        places={key: run_address(summary.name, tab_of(key), key) for key in named},
        sections=parts_of(named, tab),
        here="/",
    )


def _going(dashboard: Dashboard, summary: Summary, path: Path, part: str) -> str:
    going = so_far(path)
    return render(
        "parts/going.html.j2" if part == "live" else "going.html.j2",
        summary=summary,
        going=going,
        decisions=record.decisions(going.run),
        folder=plain(path),
        now=dashboard.clock(),
        here="/",
    )


async def compare_page(dashboard: Dashboard, request: Request) -> str:
    asked = list(dict.fromkeys(filter(None, request.query_params.getlist("run"))))[:MOST]
    listed = await run_in_threadpool(dashboard.runs.listed, PATIENCE_S)
    finished = [one for one in listed.summaries.values() if one.state == "finished"]
    names = [one.name for one in sorted(finished, key=lambda one: -one.when)][:1000]
    test = request.query_params.get("test") == "1" or _part(request) == "paired"
    return await run_in_threadpool(
        _compared, dashboard, listed.summaries, asked, names, test, _part(request)
    )


def _compared(
    dashboard: Dashboard,
    summaries: Mapping[str, Summary],
    asked: list[str],
    names: list[str],
    test: bool,
    part: str,
) -> str:
    problems: list[str] = []
    runs: list[tuple[Summary, Path, RunFiles | None]] = []
    for name in asked:
        summary, path = summaries.get(name), dashboard.runs.path(name)
        if summary is None or path is None:
            problems.append(f"{name}: there is no such run.")
            continue
        if part == "paired":
            runs.append((summary, path, None))
            continue
        try:
            done = summary.state == "finished"
            runs.append((summary, path, dashboard.whole(path).run if done else so_far(path).run))
        except (RunError, OSError) as error:
            problems.append(f"{name}: {error}")
    known = [one for one, _, _ in runs]
    paired = None
    if test and len(runs) > 1:
        paired = paired_views([one.name for one in known], [path for _, path, _ in runs])
    if part == "paired":
        return render("parts/paired.html.j2", paired=paired or ())
    read = [one for _, _, one in runs if one is not None]
    differ, same = settings_that_differ(read) if len(read) > 1 else ((), 0)
    address = "/compare?" + urlencode([("run", one.name) for one in known])
    return render(
        "compare.html.j2",
        runs=known,
        names=list(dict.fromkeys([*(one.name for one in known), *names])),
        problems=[plain(one) for one in problems],
        differ=differ,
        same=same,
        charts=overlaid(read) if len(read) > 1 else (),
        paired=paired,
        paired_address=f"{address}&part=paired",
        paired_page=f"{address}&test=1",
        here="/",
    )


async def data_page(dashboard: Dashboard, request: Request) -> str:
    listed = await run_in_threadpool(dashboard.runs.listed, PATIENCE_S)
    views = data_views(list(listed.summaries.values()))
    return await run_in_threadpool(render, "data.html.j2", views=views, here="/data")


async def try_page(dashboard: Dashboard, request: Request) -> Response | str:
    name = request.query_params.get("run", "")
    summary, path = await _known(dashboard, name)
    if summary.state != "finished":
        raise RunError(name, "is not finished, so there is no model to ask", None, "Wait for it.")
    fields = await dashboard.trier.fields(path)
    row: dict[str, Any] = {}
    why, tried, problem = True, None, ""
    if request.method == "POST":
        row, why = await _row(request, fields[0].kind == "picture")
        try:
            tried = await dashboard.trier.ask(path, row, why)
        except Busy:
            problem = "Other questions are being answered; try again in a moment."
        except HoldfastError as error:
            problem = plain(str(error), 600)
    part = _part(request) == "answer"
    status = 400 if problem else 200
    if part and problem:
        return HTMLResponse(render("parts/problem.html.j2", problem=problem), status)
    page = render(
        "parts/tried.html.j2" if part else "try.html.j2",
        summary=summary,
        fields=fields,
        row=row,
        why=why,
        tried=tried,
        problem=problem,
        feedback=dashboard.store is not None,
        kept="",
        who="",
        here="/",
    )
    return HTMLResponse(page, status)


async def keys_page(dashboard: Dashboard, request: Request) -> str:
    return render("keys.html.j2", keys=KEYS)


async def news(dashboard: Dashboard, request: Request) -> Response:
    """A stream of what happens to the list, or to the run that is named."""
    if dashboard.streams >= MOST_STREAMS:
        return Response("Too many pages are open.\n", 503, {"Retry-After": "30"})
    name = request.query_params.get("run")
    place = request.headers.get("last-event-id") or request.query_params.get("after") or START
    made = list_news(dashboard.runs) if name is None else run_news(dashboard.runs, name, place)

    async def counted() -> AsyncIterator[str]:
        dashboard.streams += 1
        try:
            async for one in made:
                yield one
        finally:
            dashboard.streams -= 1

    return StreamingResponse(counted(), media_type="text/event-stream")


async def static(request: Request) -> Response:
    found = files().get(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    return Response(found.content, headers=dict(of_file(found.kind)))


async def _known(dashboard: Dashboard, name: str) -> tuple[Summary, Path]:
    """A run by its name; 404 where no folder of that name was found."""
    summary = await run_in_threadpool(dashboard.runs.summary, name)
    path = await run_in_threadpool(dashboard.runs.path, name)
    if summary is None or path is None:
        raise HTTPException(404, "There is no run of this name (any more).")
    return summary, path


async def _row(request: Request, picture: bool) -> tuple[dict[str, Any], bool]:
    """What was filled in, and whether reasons are wanted."""
    if picture:
        why = request.query_params.get("why") == "1"
        return {"picture": await read_body(request, LARGEST_PICTURE)}, why
    given = await read_form(request)
    row = {name[2:]: value for name, value in given.items() if name.startswith("f.")}
    return row, given.get("why") == "1"


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the last of each name."""
    raw = await read_body(request, LARGEST_FORM)
    try:
        return dict(parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=1_000))
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None


async def read_body(request: Request, most: int) -> bytes:
    """The body, at most so many bytes of it; 413 where it is longer."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise HTTPException(413, f"More than {most:,} bytes are not taken.")
        parts.append(part)
    return b"".join(parts)


def message_page(title: str, error: HoldfastError, status: int) -> Response:
    """What went wrong and what to do, as the command line says it."""
    text = plain(f"{error.what}: {error.rule}", 600)
    more = plain(error.remedy, 600)
    page = render("message.html.j2", title=title, text=text, more=more, link=("/", "All runs"))
    return HTMLResponse(page, status)


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


def _part(request: Request) -> str:
    """Which part of a page a script asks for; empty for the whole."""
    return request.query_params.get("part", "")
