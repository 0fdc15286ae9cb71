"""Counts, intervals and p-values in words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What a setting that may hold a secret is shown as.
HIDDEN_VALUE = "(set; it stands in recipe.yaml alone)"
# The setting with words that are deleted from every text.
DROPPED_TERMS = "clean.terms.drop"
# What the gate of an update decided (``update.gate.decision`` of result.json), as it is called.
GATE_OUTCOMES = {"taken": "accepted", "kept_aside": "rejected", "undecided": "inconclusive"}


def count_phrase(count: int, noun: str, plural: str = "") -> str:
    """``1 row``, ``2,000 rows``, ``3 classes`` (``plural`` if an s is not enough)."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def unit_phrase(scores: Mapping[str, Any]) -> str:
    """Of how many groups or different texts the rows of ``scores`` are, where intervals count
    these: ``22 texts``; empty elsewhere."""
    names = [name for name in ("groups", "texts") if scores.get(name)]
    return count_phrase(scores[names[0]], names[0][:-1]) if names else ""


def has_or_have(count: int) -> str:
    """``has`` for one, ``have`` for any other count."""
    return "has" if count == 1 else "have"


def list_phrase(
    parts: Sequence[str], limit: int, separator: str = "; ", more: str = "; and {} more"
) -> str:
    """The first ``limit`` parts, and the number of the others: ``a; b; and 3 more``."""
    rest = more.format(len(parts) - limit) if len(parts) > limit else ""
    return separator.join(parts[:limit]) + rest


def about(count: int) -> str:
    """``about 1,600`` for 1,606: an estimated number of rows has two significant digits."""
    return f"about {float(f'{count:.2g}'):,.0f}"


def factor_phrase(ratio: float) -> str:
    """``30 times`` for the ratio 30, ``1/30 of`` for 1/30; what it is a multiple of follows."""
    times = max(ratio, 1 / ratio)
    shown = f"{times:,.0f}" if times >= 10 else f"{times:.2g}"
    return f"{shown} times" if ratio > 1 else f"1/{shown} of"


def list_option(key: str, values: Sequence[str]) -> str:
    """The option that sets ``key`` to a list of texts, as a shell needs it."""
    return f"--set {shlex.quote(f'{key}={json.dumps(list(values), ensure_ascii=False)}')}"


def interval_phrase(
    low: float | None, high: float | None, show: Callable[[float], str], separator: str = " to "
) -> str:
    """``0.2 to 0.5``; ``at least 0.2`` or ``at most 0.5`` if one bound is open; nothing if both
    are."""
    if low is not None and high is not None:
        return f"{show(low)}{separator}{show(high)}"
    if low is not None:
        return f"at least {show(low)}"
    return "" if high is None else f"at most {show(high)}"


def p_value_phrase(value: float, test: str) -> str:
    """``paired bootstrap, p = 0.031``, or ``p < 0.001``: no p-value without its test."""
    return f"{test}, p < 0.001" if value < 0.001 else f"{test}, p = {value:.2g}"


def seconds_phrase(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s" if seconds > 0 else "0 s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent_phrase(share: float, digits: int = 0) -> str:
    """``88 %`` for the share 0.88, with ``digits`` decimals."""
    return f"{share:.{digits}%}".replace("%", " %")


def signed(value: float, form: str = "+.1f") -> str:
    """``+1.5``, ``−0.4``: a number in the format ``form``, with a true minus sign."""
    return f"{value:{form}}".replace("-", "−")


def main_clause(because: str) -> str:
    """The reason itself, without the measurements that follow it after a semicolon; the report has
    them."""
    return f"{because.partition('; ')[0].rstrip('.')}."


def lower_first(text: str) -> str:
    """A sentence or heading as it continues after a colon: "the loss rose"; "ROUGE-L" and "R²"
    stay."""
    return f"{text[:1].lower()}{text[1:]}" if text[1:2].islower() else text


# Headings of findings by their severity.
SEVERITY_TITLES = {
    "error": "Errors: fix these before training",
    "warn": "Warnings: check these before training",
    "info": "Notes",
}
# Used wherever rows are named: in an editor, line 1 of the file is the header.
ROW_NUMBERS = "Row numbers count from 0 and leave the header out."

# How the base model of a generative model was prompted, by the names of ``worth.start``.
PROMPT_NAMES = {
    "zero_shot": "zero-shot",
    "few_shot": "few-shot with {} examples",
    "quantized": "quantised as in training",
}


def prompt_phrase(name: str, scores: Mapping[str, object]) -> str:
    """A prompt of ``PROMPT_NAMES``, with its number of examples if it had some."""
    phrase = PROMPT_NAMES.get(name, name)
    return phrase.format(scores["shots"]) if scores.get("shots") else phrase.replace("{} ", "")
