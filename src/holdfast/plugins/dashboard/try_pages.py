"""The page on which a model is tried, and what somebody says is right for a row."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from holdfast.core.errors import DataError, HoldfastError, RunError
from holdfast.plugins.dashboard.forms import (
    LONGEST_NAME,
    known_run,
    part_of,
    read_body,
    read_form,
    remember_who,
    who_is,
)
from holdfast.plugins.dashboard.inference import Busy, fields_of
from holdfast.plugins.dashboard.labels import label_of
from holdfast.plugins.dashboard.pages import own, plain, render
from holdfast.plugins.dashboard.resources import Dashboard

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
