"""The paired comparison of a run with what is simpler, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.report.answer.score import FALLING, is_written
from holdfast.report.block import Block
from holdfast.report.numbers import MINUS, NBSP


@dataclass(frozen=True, slots=True)
class Paired:
    """The paired comparison with the probe or the untuned model: ``gain`` above 0 is better."""

    gain: float
    low: float | None
    high: float | None
    apart: bool
    metric: str
    level: float = 0.95


def paired_of(result: Mapping[str, Any]) -> Paired | None:
    """From ``baseline.comparison`` of result.json; ``None`` where nothing was compared."""
    raw = Block(result).block("baseline", "comparison")
    found, p = raw.estimate("difference"), raw.get("p_adjusted", raw.get("p_value"))
    if found.value is None or (p is None and found.low is None):
        return None
    metric = raw.text("metric", "accuracy")
    # The loss of a row that is written is a mean over its tokens: its unit is nats a token.
    metric = "token_loss" if metric == "loss" and is_written(result) else metric
    sign = -1.0 if metric in FALLING else 1.0
    ends = [None if end is None else sign * end for end in (found.low, found.high)]
    # Turning the sign turns the ends round.
    low, high = ends if sign > 0 else ends[::-1]
    holds_zero = low is None or high is None or low <= 0 <= high
    apart = p < 1 - found.level if p is not None else not holds_zero
    return Paired(sign * found.value, low, high, apart, metric, found.level)


def by_words(paired: Paired) -> str:
    """``by 8.0 points (95 % CI 3.1 to 12.9)``, whichever is better."""
    size = _amount(abs(paired.gain), paired)
    if paired.low is None or paired.high is None:
        return f"by {size}"
    ends = (paired.low, paired.high) if paired.gain >= 0 else (-paired.high, -paired.low)
    ci = f"{_amount(ends[0], paired, True)} to {_amount(ends[1], paired, True)}"
    return f"by {size} ({_level(paired)} CI {ci})"


def gap_words(paired: Paired) -> str:
    """``difference +8.0 points, 95 % CI −4.0 to +20.0``."""
    words = f"difference {_signed(paired.gain, paired)}"
    if paired.low is None or paired.high is None:
        return words
    ci = f"{_signed(paired.low, paired, True)} to {_signed(paired.high, paired, True)}"
    return f"{words}, {_level(paired)} CI {ci}"


def _level(paired: Paired) -> str:
    return f"{100 * paired.level:.0f}{NBSP}%"


def _amount(value: float, paired: Paired, bare: bool = False) -> str:
    if paired.metric == "accuracy":
        unit = "" if bare else f"{NBSP}points"
        return f"{100 * value:.1f}".replace("-", MINUS) + unit
    unit = {"mae": "", "token_loss": " nats a token"}.get(paired.metric, " nats a row")
    unit = "" if bare else unit
    return f"{value:.3g}".replace("-", MINUS) + unit


def _signed(value: float, paired: Paired, bare: bool = False) -> str:
    return ("+" if value > 0 else "") + _amount(value, paired, bare)
