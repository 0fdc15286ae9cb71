"""Two classifiers on the same rows: how far apart, how sure, and in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Estimate, Outputs
from holdfast.core.seeds import generator
from holdfast.core.wording import p_words
from holdfast.evaluate.resample import ResampledUnits, bootstrap_notes, too_few, undefined
from holdfast.stats.paired import BY_GROUPS, MCNEMAR, Bools, mcnemar, newcombe, paired_bootstrap

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
    _check_same_rows(first, second)
    if not len(first.labels):
        nothing = undefined("there are no rows")
        return {"difference": nothing, "p_value": None, "because": NO_ROWS}
    right_1, right_2 = first.predictions == first.labels, second.predictions == second.labels
    units = ResampledUnits.of(first)
    difference, p_value, test = (_by_groups if units.grouped else _by_rows)(
        right_1, right_2, units, seed, level
    )
    because = _sentence(right_1, right_2, difference, p_value, test, names)
    return {"difference": difference, "p_value": p_value, "test": test, "because": because}


def _by_rows(
    right_1: Bools, right_2: Bools, units: ResampledUnits, seed: int, level: float
) -> tuple[Estimate, float | None, str]:
    value = float(np.mean(right_1) - np.mean(right_2))
    low, high = newcombe(right_1, right_2, level)
    note = f"Newcombe's paired interval; {MCNEMAR}"
    return Estimate(value, low, high, level, note=note), mcnemar(right_1, right_2), MCNEMAR


def _by_groups(
    right_1: Bools, right_2: Bools, units: ResampledUnits, seed: int, level: float
) -> tuple[Estimate, float | None, str]:
    few = too_few(units)
    if few is not None:
        value = float(np.mean(right_1) - np.mean(right_2))
        return Estimate(value, level=level, why=few), None, BY_GROUPS
    result = paired_bootstrap(
        right_1.astype(float),
        right_2.astype(float),
        groups=units.codes,
        level=level,
        seed=generator(seed, "bootstrap", "compare"),
    )
    note = "; ".join(bootstrap_notes(units))
    found = Estimate(result.value, result.low, result.high, level, note=note)
    return found, result.p_value, BY_GROUPS


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


def _check_same_rows(first: Outputs, second: Outputs) -> None:
    same = np.array_equal(first.rows, second.rows) and np.array_equal(first.labels, second.labels)
    if not same:
        raise Defect("a paired comparison", "needs the same rows with the same labels, in order")
