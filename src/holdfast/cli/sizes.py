"""What ``holdfast tune --set search=capacity`` prints of the sizes that it tried."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any


def size_lines(result: Mapping[str, Any], columns: int) -> list[str]:
    """The answer and a line a size; none where no sizes were tried."""
    block = result.get("capacity")
    if not isinstance(block, Mapping):
        return []
    from holdfast.report.view.capacity import capacity_view

    view = capacity_view(block)
    lines = ["", *textwrap.wrap(view.answer[:1].upper() + view.answer[1:], columns), ""]
    for name, value, gap, verdict, _, quick in view.lines:
        told = "  ".join(filter(None, (value, gap, verdict, quick)))
        lines += textwrap.wrap(
            f"  {name:24} {told}", columns, subsequent_indent=" " * 27, break_on_hyphens=False
        )
    return [*lines, "", *textwrap.wrap(view.how, columns)]
