"""Two models on the same rows, row by row: how far apart, how sure, and in a sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Estimate, Floats, Outputs
from holdfast.core.seeds import generator
from holdfast.core.wording import p_words
from holdfast.metrics.resample import ResampledUnits, bootstrap_notes, too_few, undefined
from holdfast.stats.paired_tests import (
    BOOTSTRAP,
    BY_GROUPS,
    MCNEMAR,
    Bools,
    mcnemar,
    newcombe,
    paired_bootstrap,
)

NO_ROWS = "There are no rows to compare."


def compare(
    first: Outputs,
    second: Outputs,
    *,
    names: tuple[str, str] = ("fine-tune", "linear probe"),
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """``{"difference": Estimate, "p_value": float | None, "test": its name, "because": sentence}``:
    accuracy of the first less that of the second, on the same rows in the same order.

    Without groups: Newcombe's paired interval and McNemar's mid-p test. With groups, which
    both read as one row each: the mean difference with one group left out at a time, and Student's
    t for both; one or two groups have neither.

    Raises ``Defect`` where the two do not hold the same rows with the same labels.
    """
    same = np.array_equal(first.rows, second.rows) and np.array_equal(first.labels, second.labels)
    if not same:
        raise Defect("a paired comparison", "needs the same rows with the same labels, in order")
    if not len(first.labels):
        nothing = undefined("there are no rows")
        return {"difference": nothing, "p_value": None, "because": NO_ROWS}
    right_1, right_2 = first.predictions == first.labels, second.predictions == second.labels
    units = ResampledUnits.of(first)
    few = too_few(units)
    p_value: float | None
    if few is not None:
        value = float(np.mean(right_1) - np.mean(right_2))
        difference = Estimate(value, level=level, why=few)
        p_value, test = None, BY_GROUPS
    elif units.grouped:
        result = paired_bootstrap(
            right_1.astype(float),
            right_2.astype(float),
            groups=units.codes,
            level=level,
            seed=generator(seed, "bootstrap", "compare"),
        )
        note = "; ".join(bootstrap_notes(units))
        difference = Estimate(result.value, result.low, result.high, level, note=note)
        p_value, test = result.p_value, BY_GROUPS
    else:
        value = float(np.mean(right_1) - np.mean(right_2))
        note = f"Newcombe's paired interval; {MCNEMAR}"
        difference = Estimate(value, *newcombe(right_1, right_2, level), level, note=note)
        p_value, test = mcnemar(right_1, right_2), MCNEMAR
    because = _sentence(right_1, right_2, difference, p_value, test, names)
    return {"difference": difference, "p_value": p_value, "test": test, "because": because}


def _sentence(
    right_1: Bools,
    right_2: Bools,
    difference: Estimate,
    p_value: float | None,
    test: str,
    names: tuple[str, str],
) -> str:
    only_1, only_2 = int(np.sum(right_1 & ~right_2)), int(np.sum(right_2 & ~right_1))
    count = f"Of {len(right_1)} rows, {only_1} are right only by the {names[0]} and {only_2} only"
    count += f" by the {names[1]}"
    if p_value is None or difference.value is None:
        return f"{count}; {difference.why}."
    points = f"{abs(difference.value) * 100:.1f} points"
    if p_value >= 1 - difference.level:
        return f"{count}: these rows cannot tell the two apart ({p_words(p_value, test)})."
    better = names[0] if difference.value > 0 else names[1]
    return f"{count}: the {better} is better by {points} ({p_words(p_value, test)})."


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
