"""Text for a terminal: lines that fit, entries of a name and its text, numbers as they are read.

Standard library alone, so that a command's ``--help`` takes no time.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.report.numbers import EstimateJson

# Where the second column begins, here and in the summary at the end.
COLUMN = 12
# Of a terminal that is narrower, or says that it is: neither a chart nor a table fits into less.
MIN_WIDTH = 40


def wrap(
    text: str,
    columns: int,
    first: str = "",
    rest: str | None = None,
    *,
    max_lines: int | None = None,
    long_words: bool = True,
) -> list[str]:
    """Lines of at most ``columns``, at most ``max_lines`` of them, the first behind ``first``, the
    others behind ``rest`` (or ``first`` too). A word with a hyphen is never parted, one that is
    longer than a line only with ``long_words``."""
    return textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_on_hyphens=False,
        break_long_words=long_words,
        max_lines=max_lines,
        placeholder=" …",
    )


def shorten(text: str, max_characters: int) -> str:
    """At most ``max_characters`` characters, the last an ellipsis where some are left out."""
    return text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"


def entry(name: str, text: str, columns: int) -> list[str]:
    """``  Name      text``, wrapped beneath itself; a blank parts them, however long the name."""
    line = f"  {name:<{COLUMN - 3}} {text}"
    return wrap(line, columns, "", " " * COLUMN, long_words=False)


def entries(pairs: Iterable[tuple[str, str]], columns: int) -> list[str]:
    """An ``entry`` each."""
    return [line for name, text in pairs for line in entry(name, text, columns)]


def run_lines(run: Path) -> list[str]:
    """Where the model and the report of a run lie: never wrapped, so that they can be copied."""
    places = {"Model": run / "model", "Report": run / "report.html"}
    return [f"  {name:<{COLUMN - 2}}{place}" for name, place in places.items()]


def millions(count: int) -> str:
    """``10.8 million``, ``7.2 billion``, ``912,345``."""
    return " ".join(filter(None, in_unit(count)))


def in_unit(count: int) -> tuple[str, str]:
    """A count as a number and the unit that it is in, which is empty below a million."""
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.1f}", name
    return f"{count:,}", ""


def number(value: float) -> str:
    """At most one decimal, and none that is 0."""
    return f"{value:,.1f}".removesuffix(".0")


def format_seconds(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s" if seconds > 0 else "0 s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def width() -> int:
    """Columns to write in: the terminal's, at least 40 and at most 100; 80 where there is none."""
    return max(MIN_WIDTH, min(100, shutil.get_terminal_size((80, 24)).columns))


def format_interval(estimate: EstimateJson, *, rate: bool = True) -> str:
    """A rate in per cent, or another number, with its interval or why there is none."""
    value, low, high = estimate["value"], estimate.get("low"), estimate.get("high")
    if value is None:
        return f"undefined: {estimate.get('why')}"
    if low is None or high is None:
        why = estimate.get("why") or estimate.get("note") or "no interval"
        return f"{100 * value:.1f} %  ({why})" if rate else f"{value:.3f}"
    center, lower, upper = (
        f"{100 * one:.1f} %" if rate else f"{one:.3f}" for one in (value, low, high)
    )
    return f"{center}  ({lower} to {upper}, {estimate['level']:.0%} interval)"
