"""The pages of runs: the list, one run, several beside each other, their data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.core.errors import RunError
from holdfast.plugins.dashboard.comparison import MOST, overlaid, paired_views, settings_that_differ
from holdfast.plugins.dashboard.findings import data_views
from holdfast.plugins.dashboard.forms import known_run, message_page, part_of
from holdfast.plugins.dashboard.one_run import TABS, parts_of, so_far, tab_of
from holdfast.plugins.dashboard.pages import plain, render, run_address
from holdfast.plugins.dashboard.resources import Dashboard
from holdfast.plugins.dashboard.run_list import Query, page_of
from holdfast.plugins.dashboard.summary import Summary
from holdfast.report.run_files import RunFiles
from holdfast.report.view import headline, record, reliance

# How long a page waits for runs that nobody has read yet [s]; the rest follows by itself.
PATIENCE_S = 0.25


async def runs_page(dashboard: Dashboard, request: Request) -> str:
    query = Query.of(request.query_params)
    listed = await run_in_threadpool(dashboard.runs.listed, PATIENCE_S)

    def made() -> str:
        page = page_of(list(listed.summaries.values()), query)
        template = "parts/runs.html.j2" if part_of(request) == "list" else "runs.html.j2"
        root = plain(dashboard.runs.root.name or dashboard.runs.root)
        now = dashboard.clock()
        return render(template, page=page, listed=listed, root=root, now=now, here="/")

    return await run_in_threadpool(made)


async def run_page(dashboard: Dashboard, request: Request) -> Response | str:
    name = request.path_params["name"]
    summary, path = await known_run(dashboard, name)
    if summary.state != "finished":
        return await run_in_threadpool(_going, dashboard, summary, path, part_of(request))
    tab = request.query_params.get("tab", "")
    if tab not in TABS:
        raise HTTPException(404, "This run has no such page.")
    return await run_in_threadpool(_finished, dashboard, summary, path, tab, part_of(request))


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
    test = request.query_params.get("test") == "1" or part_of(request) == "paired"
    return await run_in_threadpool(
        _compared, dashboard, listed.summaries, asked, names, test, part_of(request)
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
