"""The answer of ``holdfast meta``: what a start is worth on tasks that it never met."""

from __future__ import annotations

from typing import Literal

from holdfast.report.block import Block
from holdfast.report.numbers import interval

Use = Literal["yes", "unsettled", "no", "unknown"]


def of_start(meta: Block) -> tuple[str, str, Use]:
    """Headline, advice and whether to use the start, of the block ``meta`` of a result."""
    found = meta.estimate("accuracy")
    shots, ways = meta.get("shots"), meta.get("ways")
    if found.value is None:
        return "Not measured: no episodes were scored.", "It cannot be said.", "unknown"
    rows = "row" if shots == 1 else "rows"
    span = interval(found, "accuracy")
    told = meta.block("interval")
    unit = told.text("over", "class")
    many = f"{told.get('units')} {unit}{'es' if unit == 'class' else 's'}"
    inside = f" (95 % CI {span}, {many})" if span else ""
    if not span and found.why:
        inside = f" (no interval: {found.why})"
    what = "tasks" if meta.get("by") == "task" else "classes"
    headline = (
        f"Accuracy {100 * found.value:.1f} %{inside} on {what} it was not trained on, with {shots} "
        f"labelled {rows} of each of {ways} classes."
    )
    held = meta.block("against")
    gap, low, high = held.get("value"), held.get("low"), held.get("high")
    name = held.get("baseline")
    head = "a new head fitted to each task"
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
    by = "" if gap is None else f" by {100 * abs(gap):.1f} points"
    if low is not None and low > 0:
        return headline, f"Worth using: better than {words}{by}.", "yes"
    if high is not None and high < 0:
        return headline, f"Do not use it: {words} is better{by}.", "no"
    open_gap = "" if gap is None else f" (difference {100 * gap:+.1f} points)"
    return headline, f"Inconclusive: no difference from {words} is shown{open_gap}.", "unsettled"
