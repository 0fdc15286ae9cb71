"""What a person reads while a run goes on: standard error only, 80 columns without a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Any

from holdfast.core.records import Decision, Finding


class Teller:
    """Prints decisions and findings as they are made, each with its reason."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, item: Decision | Finding) -> None:
        if isinstance(item, Decision):
            self.line(f"{item.what}: {item.chosen}", item.because)
        else:
            mark = {"error": "!!", "warn": "! "}.get(item.severity, "  ")
            self.line(f"{mark}{item.check}: {item.count}", f"{item.because} → {item.remedy}")

    def line(self, head: str, because: str = "") -> None:
        """One entry, wrapped, its reason indented."""
        if self._quiet:
            return
        text = f"  {head} — {because}" if because else f"  {head}"
        sys.stderr.write(
            textwrap.fill(text, width(), subsequent_indent="      ", break_on_hyphens=False) + "\n"
        )

    def title(self, text: str) -> None:
        if not self._quiet:
            sys.stderr.write(f"{text}\n")


def tell_empty(empty: int, rows: int, quiet: bool) -> None:
    """How many rows have no prediction, if any: one line."""
    if empty and not quiet:
        have = "row has" if empty == 1 else "rows have"
        sys.stderr.write(f"  {empty} of {rows} {have} nothing to read: no prediction there\n")


def width() -> int:
    """Columns to write in: the terminal's, at most 100; 80 where there is none."""
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def plain_interval(estimate: dict[str, Any], short: bool = False) -> str:
    """A number that is no rate with its interval (left out if ``short``), or why there is none."""
    value = estimate.get("value")
    if value is None:
        return f"undefined: {estimate.get('why')}"
    if short or estimate.get("low") is None:
        return f"{value:.3f}"
    low, high = estimate["low"], estimate["high"]
    return f"{value:.3f}  ({low:.3f} to {high:.3f}, {estimate['level']:.0%} interval)"


def interval(estimate: dict[str, Any]) -> str:
    """A rate with its interval, or why there is none."""
    if estimate.get("value") is None:
        return f"undefined: {estimate.get('why')}"
    if estimate.get("low") is None:
        return f"{percent(estimate['value'])}  ({estimate.get('why') or 'no interval'})"
    return (
        f"{percent(estimate['value'])}  ({percent(estimate['low'])} to "
        f"{percent(estimate['high'])}, {estimate['level']:.0%} interval)"
    )
