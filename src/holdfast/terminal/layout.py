"""Text for a terminal: wrapped lines, entries of a name and its text, numbers for readers.

Standard library only, so that ``--help`` stays fast.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.report.numbers import EstimateJson

# Where the second column begins.
COLUMN = 12
NBSP = "\u00a0"
# A terminal that is narrower is written as if it had this width: no chart or table fits into less.
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
    """Wrap ``text`` into lines of at most ``columns`` characters, at most ``max_lines`` of them.
    The first line begins with ``first``, the others with ``rest`` (default: ``first``). A word with
    a hyphen is never broken, nor a number from its ``%``; a word longer than a line is broken only
    with ``long_words``."""
    lines = textwrap.wrap(
        text.replace(" %", f"{NBSP}%"),
        columns,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_on_hyphens=False,
        break_long_words=long_words,
        max_lines=max_lines,
        placeholder=" …",
    )
    return [line.replace(NBSP, " ") for line in lines]


def entry(name: str, text: str, columns: int) -> list[str]:
    """``  Name      text``, wrapped and indented; a space follows the name, however long it is."""
    line = f"  {name:<{COLUMN - 3}} {text}"
    return wrap(line, columns, "", " " * COLUMN, long_words=False)


def entries(pairs: Iterable[tuple[str, str]], columns: int) -> list[str]:
    """One ``entry`` for each pair of name and text."""
    return [line for name, text in pairs for line in entry(name, text, columns)]


def run_lines(run: Path) -> list[str]:
    """The paths of a run's model and report; never wrapped, so that they can be copied."""
    places = {"Model": run / "model", "Report": run / "report.html"}
    return [f"  {name:<{COLUMN - 2}}{place}" for name, place in places.items()]


def short_count(count: int) -> str:
    """``10.8M``, ``7.2B``, ``912,345``."""
    for size, unit in ((10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count:,}"


def number(value: float) -> str:
    """At most one decimal; a decimal of 0 is omitted."""
    return f"{value:,.1f}".removesuffix(".0")


def width() -> int:
    """The width of the terminal in columns, at least 40 and at most 100; 80 without a terminal."""
    return max(MIN_WIDTH, min(100, shutil.get_terminal_size((80, 24)).columns))


def format_interval(estimate: EstimateJson, *, rate: bool = True) -> str:
    """A rate in per cent, or another number, with its interval or the reason why it has none."""
    value, low, high = estimate["value"], estimate.get("low"), estimate.get("high")
    if value is None:
        return f"undefined: {estimate.get('why')}"
    if low is None or high is None:
        why = estimate.get("why") or estimate.get("note") or "no interval"
        return f"{100 * value:.1f} %  ({why})" if rate else f"{value:.3f}"
    center, lower, upper = (
        f"{100 * one:.1f} %" if rate else f"{one:.3f}" for one in (value, low, high)
    )
    level = f"{100 * estimate['level']:.0f}"
    return f"{center}  ({level} % CI {lower} to {upper})"
