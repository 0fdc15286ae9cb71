"""Two models on the same rows, row by row: how far apart their losses or errors are, how sure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats
from holdfast.core.seeds import generator
from holdfast.core.wording import p_words
from holdfast.evaluate.compare import NO_ROWS
from holdfast.evaluate.resample import ResampledUnits, bootstrap_notes, too_few, undefined
from holdfast.stats.paired import BOOTSTRAP, BY_GROUPS, paired_bootstrap


def compare_losses(
    first: Floats,
    second: Floats,
    units: ResampledUnits,
    *,
    metric: str,
    what: str,
    unit: str = "a row",
    names: tuple[str, str] = ("fine-tune", "linear probe"),
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """``{"metric", "difference": Estimate, "p_value", "test": its name, "because"}``: the mean of
    ``first`` less that of ``second``, both [n], smaller being better; ``what`` names one row's
    number in a sentence, and ``unit`` what it is of.

    A BCa bootstrap over rows, the p-value being twice the smaller share of resamples on one side
    of 0; or Student's over groups. Without rows, or with one unit, there is no interval and it says
    so.
    """
    block: dict[str, Any] = {
        "metric": metric,
        "difference": undefined("there are no rows"),
        "p_value": None,
        "because": NO_ROWS,
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
    test = BY_GROUPS if units.grouped else BOOTSTRAP
    lower = int(np.sum(first < second))
    because = f"Of {len(first)} rows, {lower} have a smaller {what} with the {names[0]}: "
    if found.p_value >= 1 - level:
        because += "these rows cannot tell the two apart"
    else:
        better = names[0] if found.value < 0 else names[1]
        because += f"the {better} is better by {abs(found.value):.3g} {unit}"
    because += f" ({p_words(found.p_value, test)})."
    more = {"difference": difference, "p_value": found.p_value, "test": test, "because": because}
    return {**block, **more}
