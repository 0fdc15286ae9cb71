"""The pages of runs: the list, one run, several beside each other, their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.core.errors import RunError
from holdfast.plugins.dashboard.comparison import MOST, overlaid, paired_views, settings_that_differ
from holdfast.plugins.dashboard.forms import error_page, known_run, part_of
from holdfast.plugins.dashboard.one_run import TABS, parts_of, so_far, tab_of
from holdfast.plugins.dashboard.pages import plain, render, run_address
from holdfast.plugins.dashboard.resources import Dashboard
from holdfast.plugins.dashboard.run_list import Query, page_of
from holdfast.plugins.dashboard.summary import Summary
from holdfast.report.run_files import RunFiles
from holdfast.report.view import headline, record, reliance

# How long a page waits for runs that nobody has read yet [s]; the rest follows by itself.
PATIENCE_S = 0.25
# What the colour of a finding says, the worst first.
TONES = {"error": "bad", "warn": "warn"}


def runs_page(dashboard: Dashboard, request: Request) -> str:
    listed = dashboard.runs.listed(PATIENCE_S)
    return render(
        "parts/runs.html.j2" if part_of(request) == "list" else "runs.html.j2",
        page=page_of(list(listed.summaries.values()), Query.of(request.query_params)),
        listed=listed,
        root=plain(dashboard.runs.root.name or dashboard.runs.root),
        now=dashboard.clock(),
        here="/",
    )


def run_page(dashboard: Dashboard, request: Request) -> Response | str:
    summary, path = known_run(dashboard, request.path_params["name"])
    part, tab = part_of(request), request.query_params.get("tab", "")
    if summary.state != "finished":
        going = so_far(path)
        return render(
            "parts/going.html.j2" if part == "live" else "going.html.j2",
            summary=summary,
            going=going,
            decisions=record.decisions(going["run"]),
            folder=plain(path),
            now=dashboard.clock(),
            here="/",
        )
    if tab not in TABS:
        raise HTTPException(404, "This run has no such page.")
    if part == "live":
        # Whoever watched it being made is told to look at the whole.
        return '<div data-state="finished"></div>'
    try:
        whole = dashboard.whole(path)
        run, named = whole.run, whole.parts
        top = headline.headline(run) if not tab else None
    except RunError as error:
        return error_page(f"{summary.name} cannot be read", error, 422)
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


def compare_page(dashboard: Dashboard, request: Request) -> str:
    asked = list(dict.fromkeys(filter(None, request.query_params.getlist("run"))))[:MOST]
    alone = part_of(request) == "paired"
    summaries = dashboard.runs.listed(PATIENCE_S).summaries
    problems: list[str] = []
    runs: list[tuple[Summary, Path]] = []
    read: list[RunFiles] = []
    for name in asked:
        summary, path = summaries.get(name), dashboard.runs.path(name)
        if summary is None or path is None:
            problems.append(f"{name}: there is no such run.")
            continue
        try:
            if not alone:
                done = summary.state == "finished"
                read.append(dashboard.whole(path).run if done else so_far(path)["run"])
            runs.append((summary, path))
        except (RunError, OSError) as error:
            problems.append(f"{name}: {error}")
    known = [summary for summary, _ in runs]
    paired = None
    if (alone or request.query_params.get("test") == "1") and len(runs) > 1:
        paired = paired_views([one.name for one in known], [path for _, path in runs])
    if alone:
        return render("parts/paired.html.j2", paired=paired or ())
    finished = [one for one in summaries.values() if one.state == "finished"]
    others = [one.name for one in sorted(finished, key=lambda one: -one.when)][:1000]
    differ, same = settings_that_differ(read) if len(read) > 1 else ((), 0)
    address = "/compare?" + urlencode([("run", one.name) for one in known])
    return render(
        "compare.html.j2",
        runs=known,
        names=list(dict.fromkeys([*(one.name for one in known), *others])),
        problems=[plain(one) for one in problems],
        differ=differ,
        same=same,
        charts=overlaid(read) if len(read) > 1 else (),
        paired=paired,
        paired_address=f"{address}&part=paired",
        paired_page=f"{address}&test=1",
        here="/",
    )


def data_page(dashboard: Dashboard, request: Request) -> str:
    """What the audits of all finished runs saw in their data, by the data: those with findings
    first, then by name."""
    named: dict[str, list[Summary]] = {}
    summaries = dashboard.runs.listed(PATIENCE_S).summaries.values()
    for one in sorted(summaries, key=lambda one: -one.when):
        if one.state == "finished":
            named.setdefault(one.data or "rows without a name", []).append(one)
    views = [
        {
            "name": name,
            "rows": runs[0].rows,
            "runs": [run.name for run in runs],
            "findings": _findings(runs),
        }
        for name, runs in named.items()
    ]
    views.sort(key=lambda one: (not one["findings"], str(one["name"]).casefold()))
    return render("data.html.j2", views=views, here="/data")


def _findings(runs: Sequence[Summary]) -> list[Mapping[str, Any]]:
    """What was found, the worst first, as the newest run with it tells it; ``runs`` are all that
    have it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        for severity, check, because, fixed in run.findings:
            one = {
                "check": check.replace("_", " "),
                "severity": severity,
                "tone": TONES[severity],
                "because": because,
                "fixed": fixed,
                "runs": [],
            }
            found.setdefault((severity, check), one)["runs"].append(run.name)
    worst = list(TONES)
    made = sorted(found.values(), key=lambda one: (worst.index(one["severity"]), one["check"]))
    return [{**one, "runs": list(dict.fromkeys(one["runs"]))} for one in made]
