"""The pages of runs: the list, one run, several beside each other, their data, and the one on which
a model is tried and somebody says what is right for a row.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from holdfast.core.errors import DataError, HoldfastError, RunError
from holdfast.plugins.dashboard.inference import Busy, fields_of
from holdfast.plugins.dashboard.labels import label_of
from holdfast.plugins.dashboard.pages import own, plain, render, run_address
from holdfast.plugins.dashboard.resources import (
    LONGEST_NAME,
    Dashboard,
    error_page,
    known_run,
    part_of,
    read_body,
    read_form,
    remember_who,
    who_is,
)
from holdfast.plugins.dashboard.run_views import (
    MOST,
    TABS,
    overlaid,
    paired_views,
    parts_of,
    settings_that_differ,
    so_far,
    tab_of,
)
from holdfast.plugins.dashboard.runs import Query, page_of
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


LARGEST_PICTURE, LARGEST_KEPT = 12_000_000, 4_000_000


async def try_page(dashboard: Dashboard, request: Request) -> Response | str:
    name = request.query_params.get("run", "")
    summary, path = await run_in_threadpool(known_run, dashboard, name)
    if summary.state != "finished":
        raise RunError(name, "is not finished, so there is no model to ask", None, "Wait for it.")
    fields = await run_in_threadpool(fields_of, path)
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
    part = part_of(request) == "answer"
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
        kept=dashboard.remember(path, row, tried) if tried else "",
        who=who_is(dashboard, request),
        here="/",
    )
    return HTMLResponse(page, status)


async def feedback(dashboard: Dashboard, request: Request) -> Response:
    """What somebody says is right for a row that was tried."""
    given = await read_form(request)
    asked = dashboard.tried.get(given.get("answer", [""])[-1])
    who = " ".join(given.get("who", [""])[-1].split())[:LONGEST_NAME]
    store = dashboard.store
    if asked is None or store is None:
        raise DataError("this row", "is not known any more", None, "Ask the model again.")
    if not who or not who.isprintable():
        raise DataError("your name", "is missing", None, "Write one: it is stored with the label.")

    def write() -> None:
        from holdfast.plugins.labelling.labels import LabelRule
        from holdfast.plugins.store.records import Feedback, new_id
        from holdfast.runs.threshold import served_name

        tried, now = asked.tried, dashboard.clock()
        rule = LabelRule(tried.kind, tried.classes or None)  # type: ignore[arg-type]
        values = given.get("label", [])
        if tried.kind == "tags":
            given["label"] = " ".join(values).split()
        label = rule.check(label_of(rule, given), asked.row)
        model, row = served_name(asked.path), dict(asked.row)
        if isinstance(picture := row.pop("picture", None), bytes):
            # As a service is sent one.
            row["image"] = base64.b64encode(picture).decode()
            if len(row["image"]) > LARGEST_KEPT:
                why = f"is larger than the {LARGEST_KEPT:,} characters that a store is given"
                raise DataError("the picture", why, len(row["image"]), "Make it smaller.")
        made = Feedback(
            new_id(now), 0, label, who, now, model, "page", "volunteered", "seen", row=row
        )
        store.add_feedback(made)

    await run_in_threadpool(write)
    thanks = "<p><strong>Stored.</strong> Thank you.</p>"
    answer: Response = HTMLResponse(thanks)
    if part_of(request) != "thanks":
        answer = RedirectResponse(
            own(f"/try?{urlencode({'run': request.query_params['run']})}"), 303
        )
    remember_who(dashboard, answer, who)
    return answer


async def _row(request: Request, picture: bool) -> tuple[dict[str, Any], bool]:
    """What was filled in, and whether reasons are wanted."""
    if picture:
        why = request.query_params.get("why") == "1"
        return {"picture": await read_body(request, LARGEST_PICTURE)}, why
    given = await read_form(request)
    row = {name[2:]: values[-1] for name, values in given.items() if name.startswith("f.")}
    return row, given.get("why") == ["1"]
