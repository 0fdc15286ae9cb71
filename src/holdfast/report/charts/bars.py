"""The small stacked bar of a division: train, validation, test and dropped side by side."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from holdfast.report.charts.svg import element


def stacked(parts: Sequence[tuple[str, int]], whole: int) -> Markup:
    """A bar as long as the sum of ``parts`` ÷ ``whole``; hidden from screen readers, since the
    same numbers always stand beside it. Empty for nothing."""
    if whole <= 0:
        return Markup("")
    boxes, at = [], 0.0
    for style, n in parts:
        width = 100 * n / whole
        if n > 0:
            boxes.append(element("rect", x=at, y=0, width=width, height=10, class_=style))
        at += width
    return element(
        "svg",
        *boxes,
        class_="stack",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
