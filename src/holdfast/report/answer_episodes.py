"""The answer of ``holdfast meta``: what a start is worth on tasks that it never met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from holdfast.report.numbers import estimate, interval

Use = Literal["yes", "unsettled", "no", "unknown"]


def of_start(meta: Mapping[str, Any]) -> tuple[str, str, Use]:
    """Headline, advice and whether to use the start, of the block ``meta`` of a result."""
    found = estimate(meta.get("accuracy"))
    shots, ways = meta.get("shots"), meta.get("ways")
    if found.value is None:
        return "Not measured: no episodes were scored.", "It cannot be said.", "unknown"
    rows = "row" if shots == 1 else "rows"
    span = interval(found, "accuracy")
    inside = f" (95 % interval {span}, over {_over(meta)})" if span else ""
    if not span and found.why:
        inside = f" (no interval: {found.why})"
    what = "tasks" if meta.get("by") == "task" else "classes"
    headline = (
        f"With {shots} {rows} of each of {ways} classes, it is right on "
        f"{100 * found.value:.1f} of 100 rows of {what} that it never met{inside}."
    )
    held = meta.get("against") or {}
    gap, low, high = held.get("value"), held.get("low"), held.get("high")
    name = held.get("baseline")
    head = "a head that is fitted anew to each task"
    if meta.get("method") == "embedding":
        if meta.get("kept") == "tuned":
            return (
                headline,
                f"No method did better than features tuned in the ordinary way with {head}: these "
                "are kept.",
                "yes",
            )
        return (
            headline,
            f"Keep the model as it is: nothing proved better than its own features with {head}.",
            "no",
        )
    words = f"the {name} embedding with {head}"
    points = "" if gap is None else f" by {100 * gap:+.1f} points"
    if low is not None and low > 0:
        return headline, f"Worth using: better than {words}{points}, beyond chance.", "yes"
    if high is not None and high < 0:
        return headline, f"Do not use it: {words} is better{points}.", "no"
    return headline, f"Not settled: the episodes cannot tell it from {words}{points}.", "unsettled"


def _over(meta: Mapping[str, Any]) -> str:
    told = meta.get("interval") or {}
    unit = str(told.get("over") or "class")
    many = f"{unit}es" if unit == "class" else f"{unit}s"
    return f"{told.get('units')} {many}"
