"""The pages of runs: the list, one run, a comparison of several, their data, and the page to try a
model and give feedback."""

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
from holdfast.plugins.dashboard.inference import Busy, input_fields
from holdfast.plugins.dashboard.labels import label_from_form
from holdfast.plugins.dashboard.pages import own_address, plain, render, run_address
from holdfast.plugins.dashboard.resources import (
    MAX_NAME_LENGTH,
    Dashboard,
    annotator_of,
    error_page,
    known_run,
    part_of,
    read_body,
    read_form,
    set_annotator_cookie,
)
from holdfast.plugins.dashboard.run_views import (
    MAX_COMPARED,
    TABS,
    overlaid_curves,
    paired_views,
    parts_on_tab,
    settings_that_differ,
    tab_of,
    unfinished_run_view,
)
from holdfast.plugins.dashboard.runs import Query, list_page
from holdfast.plugins.dashboard.summary import Summary
from holdfast.report.run_files import RunFiles
from holdfast.report.view import headline, record, reliance

# How long a page waits for runs that were not read yet [s]; the rest follows.
PATIENCE_S = 0.25
# The colour of each severity, the worst first.
TONES = {"error": "bad", "warn": "warn"}


def runs_page(dashboard: Dashboard, request: Request) -> str:
    listed = dashboard.runs.list_runs(PATIENCE_S)
    return render(
        "parts/runs.html.j2" if part_of(request) == "list" else "runs.html.j2",
        page=list_page(list(listed.summaries.values()), Query.of(request.query_params)),
        listed=listed,
        root=plain(dashboard.runs.root.name or dashboard.runs.root),
        now=dashboard.clock(),
        here="/",
    )


def run_page(dashboard: Dashboard, request: Request) -> Response | str:
    summary, path = known_run(dashboard, request.path_params["name"])
    part, tab = part_of(request), request.query_params.get("tab", "")
    if summary.state != "finished":
        unfinished = unfinished_run_view(path)
        return render(
            "parts/going.html.j2" if part == "live" else "going.html.j2",
            summary=summary,
            going=unfinished,
            decisions=record.decisions(unfinished["run"]),
            folder=plain(path),
            now=dashboard.clock(),
            here="/",
        )
    if tab not in TABS:
        raise HTTPException(404, "This run has no page of this name.")
    if part == "live":
        # An open page of the running run is told to reload.
        return '<div data-state="finished"></div>'
    try:
        finished = dashboard.finished_run(path)
        run, parts = finished.run, finished.parts
        headline_view = headline.headline(run) if not tab else None
    except RunError as error:
        return error_page(f"{summary.name} cannot be read", error, 422)
    return render(
        "run.html.j2",
        summary=summary,
        tabs=[(key, title) for key, (title, _) in TABS.items()],
        tab=tab,
        title=TABS[tab][0],
        top=headline_view,
        rely=reliance.reliance(run, set(parts)) if headline_view else None,
        titles={key: one.title for key, one in parts.items()},
        places={key: run_address(summary.name, tab_of(key), key) for key in parts},
        sections=parts_on_tab(parts, tab),
        here="/",
    )


def compare_page(dashboard: Dashboard, request: Request) -> str:
    requested = list(dict.fromkeys(filter(None, request.query_params.getlist("run"))))[
        :MAX_COMPARED
    ]
    only_paired = part_of(request) == "paired"
    summaries = dashboard.runs.list_runs(PATIENCE_S).summaries
    problems: list[str] = []
    runs: list[tuple[Summary, Path]] = []
    run_files: list[RunFiles] = []
    for name in requested:
        summary, path = summaries.get(name), dashboard.runs.path(name)
        if summary is None or path is None:
            problems.append(f"{name}: this run does not exist.")
            continue
        try:
            if not only_paired:
                done = summary.state == "finished"
                run_files.append(
                    dashboard.finished_run(path).run if done else unfinished_run_view(path)["run"]
                )
            runs.append((summary, path))
        except (RunError, OSError) as error:
            problems.append(f"{name}: {error}")
    summaries_shown = [summary for summary, _ in runs]
    paired = None
    if (only_paired or request.query_params.get("test") == "1") and len(runs) > 1:
        paired = paired_views([one.name for one in summaries_shown], [path for _, path in runs])
    if only_paired:
        return render("parts/paired.html.j2", paired=paired or ())
    finished = [one for one in summaries.values() if one.state == "finished"]
    others = [one.name for one in sorted(finished, key=lambda one: -one.when)][:1000]
    differing, same = settings_that_differ(run_files) if len(run_files) > 1 else ((), 0)
    address = "/compare?" + urlencode([("run", one.name) for one in summaries_shown])
    return render(
        "compare.html.j2",
        runs=summaries_shown,
        names=list(dict.fromkeys([*(one.name for one in summaries_shown), *others])),
        problems=[plain(one) for one in problems],
        differ=differing,
        same=same,
        charts=overlaid_curves(run_files) if len(run_files) > 1 else (),
        paired=paired,
        paired_address=f"{address}&part=paired",
        paired_page=f"{address}&test=1",
        here="/",
    )


def data_page(dashboard: Dashboard, request: Request) -> str:
    """The audit findings of all finished runs by data set: those with findings first, then by
    name."""
    by_data: dict[str, list[Summary]] = {}
    summaries = dashboard.runs.list_runs(PATIENCE_S).summaries.values()
    for one in sorted(summaries, key=lambda one: -one.when):
        if one.state == "finished":
            by_data.setdefault(one.data or "unnamed data", []).append(one)
    views = [
        {
            "name": name,
            "rows": runs[0].rows,
            "runs": [run.name for run in runs],
            "findings": _findings(runs),
        }
        for name, runs in by_data.items()
    ]
    views.sort(key=lambda one: (not one["findings"], str(one["name"]).casefold()))
    return render("data.html.j2", views=views, here="/data")


def _findings(runs: Sequence[Summary]) -> list[Mapping[str, Any]]:
    """The findings, the worst first, as the newest run reports them; ``runs`` lists all runs that
    have them."""
    by_check: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        for severity, check, because, fixed in run.findings:
            finding = {
                "check": check.replace("_", " "),
                "severity": severity,
                "tone": TONES[severity],
                "because": because,
                "fixed": fixed,
                "runs": [],
            }
            by_check.setdefault((severity, check), finding)["runs"].append(run.name)
    worst = list(TONES)
    ordered = sorted(
        by_check.values(), key=lambda finding: (worst.index(finding["severity"]), finding["check"])
    )
    return [{**finding, "runs": list(dict.fromkeys(finding["runs"]))} for finding in ordered]


MAX_IMAGE_BYTES, MAX_STORED_IMAGE = 12_000_000, 4_000_000


async def try_page(dashboard: Dashboard, request: Request) -> Response | str:
    name = request.query_params.get("run", "")
    summary, path = await run_in_threadpool(known_run, dashboard, name)
    if summary.state != "finished":
        rule = "is not finished, so it has no model to try"
        raise RunError(name, rule, None, "Wait until it is finished.")
    fields = await run_in_threadpool(input_fields, path)
    row: dict[str, Any] = {}
    with_reasons, trial, problem = True, None, ""
    if request.method == "POST":
        row, with_reasons = await _row(request, fields[0].input_type == "picture")
        try:
            trial = await dashboard.model_trial.predict(path, row, with_reasons)
        except Busy:
            problem = "Other predictions are waiting; try again in a moment."
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
        why=with_reasons,
        tried=trial,
        problem=problem,
        feedback=dashboard.store is not None,
        kept=dashboard.remember_trial(path, row, trial) if trial else "",
        who=annotator_of(dashboard, request),
        here="/",
    )
    return HTMLResponse(page, status)


async def feedback(dashboard: Dashboard, request: Request) -> Response:
    """Store the label that an annotator gives for a trial row."""
    form = await read_form(request)
    trial_row = dashboard.trial_rows.get(form.get("answer", [""])[-1])
    annotator = " ".join(form.get("who", [""])[-1].split())[:MAX_NAME_LENGTH]
    store = dashboard.store
    if trial_row is None or store is None:
        raise DataError("this row", "is no longer in memory", None, "Predict it again.")
    if not annotator or not annotator.isprintable():
        remedy = "Enter your name: it is stored with the label."
        raise DataError("your name", "is missing", None, remedy)

    def write() -> None:
        from holdfast.plugins.labelling.labels import LabelRule
        from holdfast.plugins.service.observers import masked_feedback
        from holdfast.plugins.service.settings import Serving
        from holdfast.plugins.store.records import Feedback, new_id
        from holdfast.runs.threshold import served_name

        answer, now = trial_row.answer, dashboard.clock()
        rule = LabelRule(answer.label_type, answer.classes or None)  # type: ignore[arg-type]
        values = form.get("label", [])
        if answer.label_type == "tags":
            form["label"] = " ".join(values).split()
        label = rule.check(label_from_form(rule, form), trial_row.row)
        model, row = served_name(trial_row.path), dict(trial_row.row)
        if isinstance(picture := row.pop("picture", None), bytes):
            # In the form that a service receives.
            row["image"] = base64.b64encode(picture).decode()
            if len(row["image"]) > MAX_STORED_IMAGE:
                why = f"is larger than the store's limit of {MAX_STORED_IMAGE:,} characters"
                raise DataError("the image", why, len(row["image"]), "Make it smaller.")
        until = Serving().expiry(now)
        item = Feedback(
            new_id(now), 0, label, annotator, now, model, "page", "volunteered", "seen", row, until
        )
        store.add_feedback(masked_feedback(item, rule.label_type))

    await run_in_threadpool(write)
    thanks = "<p><strong>Stored.</strong> Thank you.</p>"
    answer: Response = HTMLResponse(thanks)
    if part_of(request) != "thanks":
        answer = RedirectResponse(
            own_address(f"/try?{urlencode({'run': request.query_params['run']})}"), 303
        )
    set_annotator_cookie(dashboard, answer, annotator)
    return answer


async def _row(request: Request, is_image: bool) -> tuple[dict[str, Any], bool]:
    """The submitted row, and whether reasons are requested."""
    if is_image:
        with_reasons = request.query_params.get("why") == "1"
        return {"picture": await read_body(request, MAX_IMAGE_BYTES)}, with_reasons
    form = await read_form(request)
    row = {name[2:]: values[-1] for name, values in form.items() if name.startswith("f.")}
    return row, form.get("why") == ["1"]
