"""The labelling page: a row, what its label may be, and what was done with the last one.

The model's answer is not in the page until somebody asks for it, and that he asked is written down
with his label: an answer that is seen first pulls towards itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from holdfast.core.errors import DataError
from holdfast.plugins.dashboard.inference import answer_text
from holdfast.plugins.dashboard.pages import own, render
from holdfast.plugins.dashboard.resources import Dashboard, part_of, read_form, remember_who, who_is
from holdfast.report.numbers import interval, number

if TYPE_CHECKING:
    from holdfast.plugins.labelling.labels import LabelRule
    from holdfast.plugins.service.labelling import Labelling, LabelTask


LEFT_OPEN = "nothing: it left this row to a person"
# Labels that have a key of their own.
KEYED = 9
LONGEST_CELL = 20_000
# The first letters of files of pictures in base64.
PICTURES: Mapping[str, str] = {
    "iVBORw0KGgo": "png",
    "/9j/": "jpeg",
    "UklGR": "webp",
    "R0lGOD": "gif",
}
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
LARGEST_PICTURE = 4_000_000
WAYS: Mapping[str, str] = {
    "uniform": "drawn evenly at random: it counts towards the honest number",
    "unlike": "drawn evenly among those on which the two models differ",
    "chosen": "chosen because its label teaches much",
    "volunteered": "volunteered",
}


@dataclass(frozen=True, slots=True)
class LabelView:
    """The page: ``task`` is the row to label, ``None`` where nothing is left, ``done`` how far it
    is, ``told`` what was done last, ``problem`` why it was not."""

    who: str
    task: Mapping[str, Any] | None
    done: Mapping[str, Any]
    told: str = ""
    problem: str = ""


def act(labelling: Labelling, who: str, given: Mapping[str, Sequence[str]]) -> LabelView:
    """Do what a form asks (``action``: store, skip, undo or suggest; without one nothing), and what
    comes next.

    Raises ``StoreError`` where the store does not answer; whatever else is at fault stands on the
    page, and the row stays.
    """
    one = {name: values[-1] for name, values in given.items()}
    action, request, index = one.get("action", ""), one.get("request", ""), one.get("index", "")
    told, problem, item, seen, place = "", "", None, None, 0
    try:
        if action == "undo":
            item = labelling.undo(who)
            told = "Taken back." if item else "There is nothing to take back."
        elif action in ("store", "skip", "suggest"):
            if not (index.isascii() and index.isdecimal() and len(index) < 10):
                raise DataError("the row", "is named by no number", index, "Take the next one.")
            place = int(index)
            if action == "store":
                label = label_of(labelling.rule, given)
                labelling.answer(request, place, who, label)
                told = "Stored."
            elif action == "skip":
                labelling.skip(request, place, who)
                told = "Skipped."
            else:
                seen = labelling.suggestion(request, place, who)
                told = "The model’s answer is shown."
    except DataError as error:
        problem = f"{error.what}: {error.rule}. {error.remedy}"
    if seen is not None or (problem and action == "store"):
        # The row stays before who has not finished it.
        with contextlib.suppress(DataError):
            item = labelling.item(request, place, who)
            # An answer that was seen is not hidden again: the label would still say that it was.
            seen = labelling.suggestion(request, place, who) if one.get("shown") else seen
    item = item or labelling.next_item(who)
    said = None if seen is None else answer_text(seen.prediction, LEFT_OPEN)
    task = None if item is None else task_view(item, said)
    return LabelView(who, task, done_view(labelling), told, problem)


async def label_page(dashboard: Dashboard, request: Request) -> Response | str:
    given = await read_form(request) if request.method == "POST" else {}
    if dashboard.store is None:
        return render("label.html.j2", here="/label", no_store=True)
    view, who, action = None, who_is(dashboard, request), given.get("action", [""])[-1]
    if action in ("name", "rename"):
        who = " ".join(given.get("who", [""])[-1].split()) if action == "name" else ""
        answer = RedirectResponse(own("/label"), 303)
        remember_who(dashboard, answer, who if who.isprintable() else "")
        return answer
    if who:
        part = part_of(request) == "task"
        view = await run_in_threadpool(act, dashboard.labelling, who, given)
        if (
            given
            and not part
            and not view.problem
            and (view.task is None or view.task["suggestion"] is None)
        ):
            # So that a page that is loaded anew stores nothing twice.
            return RedirectResponse(own("/label"), 303)
        if part:
            return render("parts/task.html.j2", view=view)
    return render("label.html.j2", here="/label", no_store=False, view=view)


def task_view(item: LabelTask, suggestion: str | None = None) -> Mapping[str, Any]:
    """A row as the page shows it: ``cells`` are its columns, each with its name and a text or a
    picture; ``suggestion`` what the model said, once it was asked for; ``tokens`` those of a row
    whose label is a tag each."""
    rule = item.rule
    tokens = item.row.get("tokens") if rule.kind == "tags" else None
    if rule.kind == "tags" and not isinstance(tokens, (list, tuple)):
        tokens = str(next(iter(item.row.values()), "")).split()
    return {
        "request": item.request,
        "index": item.index,
        "cells": [
            (str(name), "" if (picture := picture_uri(value)) else _cell(value), picture)
            for name, value in item.row.items()
            if value not in (None, "")
        ],
        "kind": rule.kind,
        "choices": choices_of(rule.classes or ()),
        "tokens": [str(one) for one in tokens or ()],
        "why": WAYS.get(item.drawn, item.drawn),
        "suggestion": suggestion,
    }


def choices_of(classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The classes with their keys: 1 to 9 in their order, but where classes are called ``0``,
    ``1`` … each its own, so that 1 never stores 0."""
    keys = [str(place) if place <= KEYED else "" for place in range(1, len(classes) + 1)]
    if any(len(name) == 1 and name.isascii() and name.isdecimal() for name in classes):
        keys = [name if name in "0123456789" else "" for name in classes]
    return tuple(zip(classes, keys, strict=True))


def done_view(labelling: Labelling) -> Mapping[str, Any]:
    """How far the labelling is: ``share`` of 100; ``lines`` are numbers with their names."""
    found = labelling.progress()
    lines = [("labelled", f"{found.labelled:,} of {found.rows:,} rows whose text is kept")]
    even = found.by_draw.get("uniform", 0)
    if even:
        lines.append(("drawn evenly", f"{even:,}"))
    if found.skipped:
        lines.append(("skipped", f"{found.skipped:,}"))
    if found.several:
        lines.append(("by several people", f"{found.several:,}, {found.disagreed:,} differently"))
    for model, estimate in found.accuracy.items():
        told = f"{number(estimate.value, 'accuracy')} {interval(estimate, 'accuracy')}".strip()
        if estimate.value is None:
            told = f"not told yet: {estimate.why}"
        lines.append((f"{model} right, of rows drawn evenly", told))
    share = 100.0 * min(1.0, found.labelled / found.rows) if found.rows else 0.0
    return {"labelled": found.labelled, "rows": found.rows, "share": share, "lines": lines}


def label_of(rule: LabelRule, given: Mapping[str, Sequence[str]]) -> Any:
    """The label that was filled in, in the form that the rule wants. Raises ``DataError``."""
    values = list(given.get("label", ()))
    if rule.kind == "several":
        return [one for one in values if one]
    if rule.kind == "tags":
        return values
    if not values or not values[-1].strip():
        raise DataError("the label", "is missing", None, "Choose one, or skip the row.")
    if rule.kind == "number":
        try:
            return float(values[-1].strip().replace(",", "."))
        except ValueError:
            raise DataError("the label", "is no number", values[-1], "Write one.") from None
    return values[-1]


def picture_uri(value: object) -> str:
    """A picture as a page can show it, where a cell holds one as a service is sent it: the file in
    base64. Empty for anything else."""
    if not isinstance(value, str) or len(value) > LARGEST_PICTURE:
        return ""
    kind = next((kind for start, kind in PICTURES.items() if value.startswith(start)), "")
    if not kind or not BASE64.fullmatch(value):
        return ""
    return f"data:image/{kind};base64,{value}"


def _cell(value: object) -> str:
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        text = " ".join(value)
    elif isinstance(value, (list, tuple)):
        # A conversation: who said what.
        text = "\n".join(
            f"{one.get('role', '')}: {one.get('content', '')}"
            if isinstance(one, dict)
            else str(one)
            for one in value
        )
    else:
        text = str(value)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"
