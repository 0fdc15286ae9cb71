"""The labelling page: a row, its valid labels, and the result of the last action.

The model's prediction is not on the page until the annotator requests it, and the label records
that it was seen: a prediction that is seen first biases the label.
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
from holdfast.plugins.dashboard.pages import own_address, render
from holdfast.plugins.dashboard.resources import (
    Dashboard,
    annotator_of,
    part_of,
    read_form,
    set_annotator_cookie,
)
from holdfast.report.numbers import interval, number

if TYPE_CHECKING:
    from holdfast.plugins.labelling.labels import LabelRule
    from holdfast.plugins.service.labelling import Labelling, LabelTask


ABSTAINED = "no prediction: left to an annotator"
# Maximum labels with a keyboard key.
MAX_KEYED = 9
MAX_CELL_LENGTH = 20_000
# The prefixes of base64-encoded image files.
IMAGE_TYPES: Mapping[str, str] = {
    "iVBORw0KGgo": "png",
    "/9j/": "jpeg",
    "UklGR": "webp",
    "R0lGOD": "gif",
}
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
MAX_IMAGE_LENGTH = 4_000_000
DRAW_REASONS: Mapping[str, str] = {
    "uniform": "drawn uniformly at random, so its label counts towards the accuracy",
    "unlike": "drawn uniformly from the rows on which the two models differ",
    "chosen": "chosen because its label is informative (active learning)",
    "volunteered": "chosen by an annotator",
}


@dataclass(frozen=True, slots=True)
class LabelView:
    """The page: ``task`` is the row to label, ``None`` where none is left, ``progress`` the
    progress so far, ``message`` the result of the last action, ``problem`` why it failed."""

    annotator: str
    task: Mapping[str, Any] | None
    progress: Mapping[str, Any]
    message: str = ""
    problem: str = ""


def apply_action(
    labelling: Labelling, annotator: str, form: Mapping[str, Sequence[str]]
) -> LabelView:
    """Apply the form's ``action`` (store, skip, undo or suggest; without one nothing), and return
    the next page.

    Raises ``StoreError`` where the store does not answer; any other problem is shown on the page,
    and the row stays.
    """
    fields = {name: values[-1] for name, values in form.items()}
    action, request, index = (
        fields.get("action", ""),
        fields.get("request", ""),
        fields.get("index", ""),
    )
    message, problem, label_task, suggestion, row_index = "", "", None, None, 0
    try:
        if action == "undo":
            label_task = labelling.undo(annotator)
            message = "Undone." if label_task else "There is nothing to undo."
        elif action in ("store", "skip", "suggest"):
            if not (index.isascii() and index.isdecimal() and len(index) < 10):
                raise DataError("the row", "has no valid number", index, "Continue with the next.")
            row_index = int(index)
            if action == "store":
                label = label_from_form(labelling.rule, form)
                labelling.answer(request, row_index, annotator, label)
                message = "Stored."
            elif action == "skip":
                labelling.skip(request, row_index, annotator)
                message = "Skipped."
            else:
                suggestion = labelling.suggestion(request, row_index, annotator)
                message = "The model’s prediction is shown."
    except DataError as error:
        problem = f"{error.what}: {error.rule}. {error.remedy}"
    if suggestion is not None or (problem and action == "store"):
        # An unfinished row stays with its annotator.
        with contextlib.suppress(DataError):
            label_task = labelling.item(request, row_index, annotator)
            # A prediction that was seen is not hidden again: the label would still record it.
            suggestion = (
                labelling.suggestion(request, row_index, annotator)
                if fields.get("shown")
                else suggestion
            )
    label_task = label_task or labelling.next_item(annotator)
    suggestion_text = None if suggestion is None else answer_text(suggestion.prediction, ABSTAINED)
    task = None if label_task is None else task_view(label_task, suggestion_text)
    return LabelView(annotator, task, progress_view(labelling), message, problem)


async def label_page(dashboard: Dashboard, request: Request) -> Response | str:
    form = await read_form(request) if request.method == "POST" else {}
    if dashboard.store is None:
        return render("label.html.j2", here="/label", no_store=True)
    view, annotator, action = None, annotator_of(dashboard, request), form.get("action", [""])[-1]
    if action in ("name", "rename"):
        annotator = " ".join(form.get("who", [""])[-1].split()) if action == "name" else ""
        answer = RedirectResponse(own_address("/label"), 303)
        set_annotator_cookie(dashboard, answer, annotator if annotator.isprintable() else "")
        return answer
    if annotator:
        only_task = part_of(request) == "task"
        view = await run_in_threadpool(apply_action, dashboard.labelling, annotator, form)
        if (
            form
            and not only_task
            and not view.problem
            and (view.task is None or view.task["suggestion"] is None)
        ):
            # Reloading the page then stores nothing twice.
            return RedirectResponse(own_address("/label"), 303)
        if only_task:
            return render("parts/task.html.j2", view=view)
    return render("label.html.j2", here="/label", no_store=False, view=view)


def task_view(label_task: LabelTask, suggestion: str | None = None) -> Mapping[str, Any]:
    """A row as the page shows it: ``cells`` are its columns, each with its name and a text or an
    image; ``suggestion`` is the prediction, once it was requested; ``tokens`` those of a row with a
    tag per token."""
    rule = label_task.rule
    tokens = rule.tokens(label_task.row) if rule.label_type == "tags" else None
    return {
        "request": label_task.request,
        "index": label_task.index,
        "cells": [
            (str(name), "" if (picture := image_uri(value)) else _cell(value), picture)
            for name, value in label_task.row.items()
            if value not in (None, "")
        ],
        "kind": rule.label_type,
        "choices": choices_with_keys(rule.classes or ()),
        "tokens": tokens or [],
        "why": DRAW_REASONS.get(label_task.drawn, label_task.drawn),
        "suggestion": suggestion,
    }


def choices_with_keys(classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The classes with their keys: 1 to 9 in order, except that classes named ``0``, ``1`` … have
    their own digit, so that 1 never stores 0."""
    keys = [str(place) if place <= MAX_KEYED else "" for place in range(1, len(classes) + 1)]
    if any(len(name) == 1 and name.isascii() and name.isdecimal() for name in classes):
        keys = [name if name in "0123456789" else "" for name in classes]
    return tuple(zip(classes, keys, strict=True))


def progress_view(labelling: Labelling) -> Mapping[str, Any]:
    """The labelling progress: ``share`` in percent; ``lines`` are numbers with their names."""
    progress = labelling.progress()
    lines = [("labelled", f"{progress.labelled:,} of {progress.rows:,} rows with a stored text")]
    drawn_evenly = progress.by_draw.get("uniform", 0)
    if drawn_evenly:
        lines.append(("drawn uniformly", f"{drawn_evenly:,}"))
    if progress.skipped:
        lines.append(("skipped", f"{progress.skipped:,}"))
    if progress.several:
        lines.append(
            (
                "by several annotators",
                f"{progress.several:,}, {progress.disagreed:,} with disagreement",
            )
        )
    for model, estimate in progress.accuracy.items():
        accuracy_text = (
            f"{number(estimate.value, 'accuracy')} {interval(estimate, 'accuracy')}".strip()
        )
        if estimate.value is None:
            accuracy_text = f"not yet known: {estimate.why}"
        lines.append((f"accuracy of {model} on rows drawn uniformly", accuracy_text))
    share = 100.0 * min(1.0, progress.labelled / progress.rows) if progress.rows else 0.0
    return {"labelled": progress.labelled, "rows": progress.rows, "share": share, "lines": lines}


def label_from_form(rule: LabelRule, form: Mapping[str, Sequence[str]]) -> Any:
    """The label in a form, in the rule's type. Raises ``DataError``."""
    values = list(form.get("label", ()))
    if rule.label_type == "several":
        return [one for one in values if one]
    if rule.label_type == "tags":
        return values
    if not values or not values[-1].strip():
        raise DataError("the label", "is missing", None, "Choose one, or skip the row.")
    if rule.label_type == "number":
        try:
            return float(values[-1].strip().replace(",", "."))
        except ValueError:
            raise DataError("the label", "is not a number", values[-1], "Enter one.") from None
    return values[-1]


def image_uri(value: object) -> str:
    """A data URI where a cell holds an image as a service receives it: the file in base64. Empty
    for anything else."""
    if not isinstance(value, str) or len(value) > MAX_IMAGE_LENGTH:
        return ""
    image_type = next(
        (image_type for start, image_type in IMAGE_TYPES.items() if value.startswith(start)), ""
    )
    if not image_type or not BASE64.fullmatch(value):
        return ""
    return f"data:image/{image_type};base64,{value}"


def _cell(value: object) -> str:
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        text = " ".join(value)
    elif isinstance(value, (list, tuple)):
        # A conversation: roles and contents.
        text = "\n".join(
            f"{one.get('role', '')}: {one.get('content', '')}"
            if isinstance(one, dict)
            else str(one)
            for one in value
        )
    else:
        text = str(value)
    return text if len(text) <= MAX_CELL_LENGTH else text[: MAX_CELL_LENGTH - 1] + "…"
