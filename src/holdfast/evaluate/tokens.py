"""Losses of target tokens to numbers with intervals: what every generating model is scored by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Estimate, Floats, Ints, Scores
from holdfast.core.seeds import generator
from holdfast.core.wording import p_words
from holdfast.evaluate.resample import (
    POSITIVE,
    RATE,
    RESAMPLES,
    ResampledUnits,
    bootstrap_notes,
    to_estimate,
    too_few,
    undefined,
)
from holdfast.stats.bootstrap import bootstrap, folded, sums
from holdfast.stats.paired import paired_bootstrap

METRICS = ("loss", "token_loss", "perplexity", "token_accuracy")


@dataclass(frozen=True, slots=True)
class TokenOutputs:
    """Some rows, teacher-forced: ``rows`` source positions; ``losses`` the mean loss of a row's
    target tokens, in nats; ``tokens`` how many these are; ``correct`` how many of them were the
    likeliest; ``groups`` names or ``None``; all [n]."""

    rows: Ints
    losses: Floats
    tokens: Ints
    correct: Floats
    groups: npt.NDArray[Any] | None = None

    @property
    def units(self) -> ResampledUnits:
        """What is drawn in a resample: rows, or the groups they are in."""
        return ResampledUnits.by(self.groups, len(self.rows))


def score_tokens(
    outputs: TokenOutputs, *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> Scores:
    """``loss``: the mean over rows of each row's mean token loss, as snapshots have it.
    ``token_loss``: the mean over all target tokens; ``perplexity`` = exp of it;
    ``token_accuracy``: the share of target tokens that were the likeliest given those before.

    Intervals are BCa over rows, or Student's over groups, since a row's tokens belong together.
    No rows, or a loss that is not finite: undefined.
    """
    if not len(outputs.rows):
        return Scores(0, dict.fromkeys(METRICS, undefined("there are no rows")))
    if not np.isfinite(outputs.losses).all():
        nothing = undefined("a loss is not finite")
        return Scores(len(outputs.rows), dict.fromkeys(METRICS, nothing))
    units = outputs.units
    codes, atoms = folded(units.codes, units.atoms)
    table = sums(_table(outputs), codes, atoms)
    result = bootstrap(
        lambda weights: _numbers(weights @ table),
        np.ones(atoms, dtype=np.int64),
        seed=generator(seed, "bootstrap", "tokens"),
        level=level,
        resamples=resamples,
        blocks=500,
    )
    metrics = {
        name: to_estimate(
            result, i, level, units, within=RATE if name == "token_accuracy" else POSITIVE
        )
        for i, name in enumerate(METRICS)
    }
    return Scores(len(outputs.rows), metrics, {"tokens": int(outputs.tokens.sum())})


def compare_tokens(
    first: TokenOutputs,
    second: TokenOutputs,
    *,
    names: tuple[str, str] = ("fine-tuned model", "untuned model"),
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """``{"metric": "loss", "difference": Estimate, "p_value", "because"}``: the loss of the first
    less that of the second, paired row by row (below 0: the first is better).

    BCa over rows, the p-value being twice the smaller share of resamples on one side of 0; or
    Student's over groups. Raises ``Defect`` where the two do not hold the same rows.
    """
    if not np.array_equal(first.rows, second.rows):
        raise Defect("a paired comparison", "needs the same rows in the same order")
    block: dict[str, Any] = {
        "metric": "loss",
        "difference": undefined("there are no rows"),
        "p_value": None,
        "because": "There are no rows to compare.",
    }
    if not len(first.rows):
        return block
    units = first.units
    found = paired_bootstrap(
        first.losses,
        second.losses,
        groups=units.codes if units.grouped else None,
        level=level,
        seed=generator(seed, "bootstrap", "compare"),
    )
    note = "; ".join(["paired", *bootstrap_notes(units)])
    few = too_few(units)
    if few is not None or not math.isfinite(found.value) or math.isnan(found.low):
        value = found.value if math.isfinite(found.value) else None
        because = "There is no spread to judge the difference by."
        none = few or "no interval: there is one row"
        why = none if value is not None else "a loss is not finite"
        difference = Estimate(value, level=level, why=why)
        return {**block, "difference": difference, "because": because}
    p_value = min(1.0, 2 * min(found.above, 1 - found.above))
    difference = Estimate(found.value, found.low, found.high, level, note=note)
    because = _sentence(first, second, difference, p_value, names)
    return {**block, "difference": difference, "p_value": p_value, "because": because}


def _table(outputs: TokenOutputs) -> Floats:
    losses, tokens = outputs.losses.astype(np.float64), outputs.tokens.astype(np.float64)
    ones = np.ones(len(losses))
    # Both means in one table: of rows, and of tokens (a row's mean times its tokens is their sum).
    return np.column_stack([losses, ones, losses * tokens, tokens, outputs.correct])


def _numbers(table: Floats) -> Floats:
    # A perplexity that float64 cannot hold is infinite, and no error.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        loss, token_loss = table[:, 0] / table[:, 1], table[:, 2] / table[:, 3]
        return np.stack([loss, token_loss, np.exp(token_loss), table[:, 4] / table[:, 3]], axis=1)


def _sentence(
    first: TokenOutputs,
    second: TokenOutputs,
    difference: Estimate,
    p_value: float,
    names: tuple[str, str],
) -> str:
    lower = int(np.sum(first.losses < second.losses))
    count = f"Of {len(first.rows)} rows, {lower} have a lower loss with the {names[0]}"
    if p_value >= 1 - difference.level:
        return f"{count}: these rows cannot tell the two apart ({p_words(p_value)})."
    value = difference.value or 0.0
    better = names[0] if value < 0 else names[1]
    return f"{count}: the {better} is better by {abs(value):.3f} nats a token ({p_words(p_value)})."
