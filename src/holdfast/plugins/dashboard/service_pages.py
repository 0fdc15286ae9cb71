"""The pages of a service's store: what befell it, and rows to label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from holdfast.plugins.dashboard.forms import part_of, read_form, remember_who, who_is
from holdfast.plugins.dashboard.in_service import SPANS
from holdfast.plugins.dashboard.labels import LabelView, act, done_view, task_view
from holdfast.plugins.dashboard.pages import own, render
from holdfast.plugins.dashboard.resources import Dashboard


async def service_page(dashboard: Dashboard, request: Request) -> str:
    span = request.query_params.get("span", "day")
    view = await run_in_threadpool(dashboard.service, span)
    template = "parts/service.html.j2" if part_of(request) == "view" else "service.html.j2"
    return await run_in_threadpool(render, template, view=view, spans=SPANS, here="/service")


async def label_page(dashboard: Dashboard, request: Request) -> Response | str:
    values: dict[str, Any] = {"view": None, "problem": "", "no_store": dashboard.store is None}
    who = who_is(dashboard, request)
    given: dict[str, list[str]] = {}
    if request.method == "POST":
        given = await read_form(request)
    action = given.get("action", [""])[-1]
    if dashboard.store is None:
        return render("label.html.j2", here="/label", **values)
    if action in ("name", "rename"):
        who = " ".join(given.get("who", [""])[-1].split()) if action == "name" else ""
        answer = RedirectResponse(own("/label"), 303)
        remember_who(dashboard, answer, who if who.isprintable() else "")
        return answer
    if who:
        part = part_of(request) == "task"
        view = await run_in_threadpool(_labelled, dashboard, who, given)
        if given and not part and not view.problem and not _shows_answer(view):
            # So that a page that is loaded anew stores nothing twice.
            return RedirectResponse(own("/label"), 303)
        if part:
            return render("parts/task.html.j2", view=view)
        values["view"] = view
    return render("label.html.j2", here="/label", **values)


def _labelled(dashboard: Dashboard, who: str, given: Mapping[str, list[str]]) -> LabelView:
    if given:
        return act(dashboard.labelling, who, given)
    item = dashboard.labelling.next_item(who)
    task = None if item is None else task_view(item)
    return LabelView(who, task, done_view(dashboard.labelling))


def _shows_answer(view: LabelView) -> bool:
    return view.task is not None and view.task.suggestion is not None
