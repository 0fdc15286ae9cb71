"""Formatting of numbers: one rounding for each kind of number.

Rates are percentages with one decimal, differences of rates are points with one decimal, losses
and all other numbers have three decimals. The space before a unit does not break.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Required, TypedDict

from holdfast.core.records import Estimate

NBSP = "\u00a0"
MINUS = "\u2212"
RATE_METRICS = (
    "accuracy",
    "entity",
    "token_accuracy",
    "exact_match",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "average_precision",
    "error",
    "top_k",
    "confidence",
)
# The first of these that a run has is its headline metric; the second list is that of the model
# card. ``EVALUATION_METRICS`` are the metrics of the learning curves, of which the first is shown:
# its short heading, and whether it is a share.
HEADLINE_METRICS = (
    "entity_f1",
    "accuracy",
    "f1_micro",
    "f1_macro",
    "mae",
    "balanced_accuracy",
    "perplexity",
    "loss",
)
CARD_METRICS = (
    "entity_f1",
    "accuracy",
    "f1_micro",
    "f1_macro",
    "mae",
    "rmse",
    "r2",
    "spearman",
    "roc_auc",
    "average_precision",
    "loss",
    "ece",
    "perplexity",
    "token_accuracy",
    "rouge_l",
    "bleu",
    "chrf",
    "exact_match",
)
EVALUATION_METRICS = {
    "entity_f1": ("F1", False),
    "accuracy": ("accuracy", True),
    "token_accuracy": ("token acc.", True),
    "f1_micro": ("F1", False),
    "r2": ("R²", False),
}


class EstimateJson(TypedDict, total=False):
    """An ``Estimate`` as JSON."""

    value: Required[float | None]
    low: float | None
    high: float | None
    level: float
    why: str
    note: str


def estimate(raw: object) -> Estimate:
    """An ``Estimate`` from its JSON; one without a value where it is absent or malformed."""
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return Estimate(float(raw))
    if not isinstance(raw, Mapping):
        return Estimate(None, why="not recorded in this run")
    value = raw.get("value")
    why = raw.get("why") or (None if value is not None else "undefined")
    return Estimate(
        value, raw.get("low"), raw.get("high"), raw.get("level") or 0.95, why, raw.get("note")
    )


def metrics(block: Mapping[str, object]) -> dict[str, Estimate]:
    """The metrics of a block of scores in result.json, in their order, without ``token_loss``
    where it is ``loss`` by an older name."""
    estimates = block.get("metrics")
    if not isinstance(estimates, Mapping):
        return {}
    is_same = estimates.get("token_loss") == estimates.get("loss")
    return {
        name: estimate(value)
        for name, value in estimates.items()
        if not (is_same and name == "token_loss")
    }


def is_rate(name: str) -> bool:
    """Whether the metric ``name`` is a fraction to be shown as a percentage."""
    return name.startswith(RATE_METRICS)


def number(value: float | None, name: str = "") -> str:
    """One number of the metric ``name``: ``91.2 %`` for a rate, ``0.312`` otherwise."""
    if value is None:
        return "–"
    if is_rate(name):
        return f"{_normalize_sign(f'{100 * value:.1f}')}{NBSP}%"
    # A calibration error this close to 0 is rounding in the probabilities.
    return f"{value:.3f}" if name == "ece" else compact(value)


def interval(value: Estimate, name: str = "") -> str:
    """The interval without its value: ``87.6–93.8`` for percentages too, with "to" beside a
    negative end; empty where there is none."""
    if value.low is None or value.high is None:
        return ""
    low, high = (number(end, name).removesuffix(f"{NBSP}%") for end in (value.low, value.high))
    return f"{low} to {high}" if value.low < 0 else f"{low}–{high}"


def strength(confidence: float) -> str:
    """The strength of evidence, in [0, 1], as a percentage: no data make it 100 %."""
    return f"{'above 99' if confidence > 0.995 else round(100 * confidence)}{NBSP}%"


def points(value: float | None) -> str:
    """A difference of two rates, signed, in percentage points: ``+3.4``."""
    if value is None:
        return "–"
    return _normalize_sign(f"{100 * value:+.1f}", signed=True)


def compact(value: float | None) -> str:
    """Three decimals, fewer from 100 on; scientific notation for very small or large numbers."""
    if value is None:
        return "–"
    # From these bounds on, rounding would show 0.000, 100.0 or 1,000.0.
    if value != 0 and (abs(value) < 0.0005 or abs(value) >= 1e6):
        return f"{value:.2e}".replace("-", MINUS)
    if abs(value) >= 99.95:
        return _normalize_sign(f"{value:,.{0 if abs(value) >= 999.5 else 1}f}")
    return _normalize_sign(f"{value:.3f}")


def p_value(value: float | None) -> str:
    """``p = 0.013``, or ``p < 0.001``."""
    if value is None:
        return "p unknown"
    return f"p{NBSP}<{NBSP}0.001" if value < 0.001 else f"p{NBSP}={NBSP}{value:.3f}"


def count(value: object) -> str:
    """A whole number with thousands separators: ``12,345``; an en dash where unknown."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–"
    return f"{int(value):,}"


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop; empty stays empty."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?…" else ".")


def plural(value: object, noun: str, many: str = "") -> str:
    """``1 row``, ``2 rows``."""
    word = noun if value == 1 else many or f"{noun}s"
    return f"{count(value)} {word}"


def moment(iso: str) -> str:
    """An ISO time as ``2026-01-02 03:10 UTC``; any other text as it is."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when:%Y-%m-%d %H:%M}{zone}"


def duration(seconds: object) -> str:
    """``48.2 s``, ``3 min 20 s``, ``1 h 02 min``."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60:02d}{NBSP}min"


def _normalize_sign(text: str, signed: bool = False) -> str:
    """A typographic minus, and no sign before a zero."""
    # By the rounded text: −0.04 becomes 0.0.
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-") if not signed else f"±{text.lstrip('+-')}"
    return text.replace("-", MINUS)


def first_two(names: list[str]) -> str:
    """The first two names, and how many more there are."""
    rest = len(names) - 2
    return ", ".join(names[:2]) + (f" and {rest} more" if rest > 0 else "")
