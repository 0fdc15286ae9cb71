"""Counts in words, in the right number, and intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

# What a setting that may hold a secret is shown as.
HIDDEN = "(set; it stands in recipe.yaml alone)"
# What the gate of an update decided (``update.gate.decision`` of result.json), as it is called.
GATE_OUTCOMES = {"taken": "accepted", "kept_aside": "rejected", "undecided": "inconclusive"}


def counted(count: int, noun: str, many: str = "") -> str:
    """``1 row``, ``2,000 rows``, ``3 classes`` (``many`` where an s does not do)."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def have(count: int) -> str:
    """``has`` of one, ``have`` of others."""
    return "has" if count == 1 else "have"


def listing(
    parts: Sequence[str], most: int, between: str = "; ", more: str = "; and {} more"
) -> str:
    """The first ``most`` parts, and how many there are beside them: ``a; b; and 3 more``."""
    rest = more.format(len(parts) - most) if len(parts) > most else ""
    return between.join(parts[:most]) + rest


def bounds(
    low: float | None, high: float | None, show: Callable[[float], str], between: str = " to "
) -> str:
    """``0.2 to 0.5``; ``at least 0.2`` or ``at most 0.5`` where one bound is open, nothing where
    both are."""
    if low is not None and high is not None:
        return f"{show(low)}{between}{show(high)}"
    if low is not None:
        return f"at least {show(low)}"
    return "" if high is None else f"at most {show(high)}"


def p_words(value: float, test: str) -> str:
    """``paired bootstrap, p = 0.031``, or ``p < 0.001``: no p-value without its test."""
    return f"{test}, p < 0.001" if value < 0.001 else f"{test}, p = {value:.2g}"


# Said wherever rows are named: whoever opens the file sees a header on line 1.
ROW_NUMBERS = "Row numbers count from 0 and leave the header out."

# How the start model of a model that writes was asked, by the names of ``worth.start``.
WAYS = {
    "zero_shot": "asked plainly",
    "few_shot": "given {} examples",
    "quantized": "quantised as in training",
}


def way_words(name: str, one: Mapping[str, object]) -> str:
    """A way of ``WAYS`` with the number of its examples, where it had some."""
    way = WAYS.get(name, name)
    return way.format(one["shots"]) if one.get("shots") else way.replace("{} ", "")
