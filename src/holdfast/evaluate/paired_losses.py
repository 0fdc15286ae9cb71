"""Two models on the same rows, row by row: how far apart their losses or errors are, how sure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats
from holdfast.core.seeds import generator
from holdfast.core.wording import p_words
from holdfast.evaluate.resample import ResampledUnits, bootstrap_notes, too_few, undefined
from holdfast.stats.paired import paired_bootstrap


def compare_losses(
    first: Floats,
    second: Floats,
    units: ResampledUnits,
    *,
    metric: str,
    what: str,
    names: tuple[str, str] = ("fine-tune", "linear probe"),
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """``{"metric", "difference": Estimate, "p_value", "because"}``: the mean of ``first`` less that
    of ``second``, both [n], smaller being better; ``what`` names one row's number in a sentence.

    A BCa bootstrap over rows, the p-value being twice the smaller share of resamples on one side
    of 0; or Student's over groups. Without rows, or with one unit, there is no interval and it says
    so.
    """
    block: dict[str, Any] = {
        "metric": metric,
        "difference": undefined("there are no rows"),
        "p_value": None,
        "because": "There are no rows to compare.",
    }
    if not len(first):
        return block
    found = paired_bootstrap(
        first,
        second,
        groups=units.codes if units.grouped else None,
        level=level,
        seed=generator(seed, "bootstrap", "compare"),
    )
    few = too_few(units)
    if few is not None or not math.isfinite(found.value) or math.isnan(found.low):
        known = math.isfinite(found.value)
        why = few or "no interval: there is one row" if known else f"a {what} is not finite"
        difference = Estimate(found.value if known else None, level=level, why=why)
        because = "There is no spread to judge the difference by."
        return {**block, "difference": difference, "because": because}
    note = "; ".join(["paired", *bootstrap_notes(units)])
    difference = Estimate(found.value, found.low, found.high, level, note=note)
    p_value = min(1.0, 2 * min(found.above, 1 - found.above))
    because = _sentence(first, second, found.value, p_value, names, what, level)
    return {**block, "difference": difference, "p_value": p_value, "because": because}


def _sentence(
    first: Floats,
    second: Floats,
    value: float,
    p_value: float,
    names: tuple[str, str],
    what: str,
    level: float,
) -> str:
    lower = int(np.sum(first < second))
    count = f"Of {len(first)} rows, {lower} have a smaller {what} with the {names[0]}"
    if p_value >= 1 - level:
        return f"{count}: these rows cannot tell the two apart ({p_words(p_value)})."
    better = names[0] if value < 0 else names[1]
    return f"{count}: the {better} is better by {abs(value):.3g} a row ({p_words(p_value)})."
