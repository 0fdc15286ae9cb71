"""Paired comparison of two models on the same rows: scores as means over rows, the difference with
its interval and p-value, and a sentence.

Accuracy is a mean over rows already. A ratio of sums (F1, bits per byte) becomes one by its
first-order expansion (``paired_tests.ratio_rows``).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Estimate, Floats, Ints, Outputs
from holdfast.core.seeds import generator
from holdfast.core.wording import p_value_phrase
from holdfast.metrics.resample import (
    FEWEST_GROUPS,
    ResampledUnits,
    bootstrap_notes,
    too_few,
    undefined,
)
from holdfast.metrics.score import RATE_EFFECT
from holdfast.stats.paired_tests import (
    BOOTSTRAP,
    BY_GROUPS,
    MCNEMAR,
    PAIRED_T,
    STUDENT_BELOW,
    Difference,
    mcnemar,
    newcombe,
    paired_bootstrap,
    ratio_rows,
)

# The metric by which a model is chosen, by type of prediction; and whether higher is better.
METRICS = {
    "class": ("accuracy", True),
    "several": ("f1_micro", True),
    "number": ("r2", True),
    "tags": ("entity_f1", True),
    "text": ("bits_per_byte", False),
}


def right_rows(answers: Floats, labels: Ints) -> Floats:
    """1 where the largest of ``answers`` [n, C] is the label's, else 0."""
    return np.asarray(answers.argmax(axis=1) == labels, dtype=np.float64)


def set_rows(holds: npt.NDArray[np.bool_], labels: Floats) -> Floats:
    """The rows of micro F1, from predicted labels (``holds``) and true ``labels``, [n, L] each."""
    truth = labels > 0.5
    hits = (truth & holds).sum(axis=1).astype(np.float64)
    return ratio_rows(2 * hits, (truth.sum(axis=1) + holds.sum(axis=1)).astype(np.float64))


def entity_rows(counts: Floats) -> Floats:
    """The rows of entity F1, from entities found, predicted and labelled [n, 3]."""
    wide = counts.astype(np.float64)
    return ratio_rows(2 * wide[:, 0], wide[:, 1] + wide[:, 2])


def number_rows(answers: Floats, truth: Floats) -> Floats:
    """The rows of R² = 1 − Σ e² ÷ Σ (y − ȳ)²; NaN if the true numbers are all equal."""
    wide = truth.astype(np.float64)
    spread = float(np.var(wide))
    if not spread:
        return np.full(len(wide), np.nan)
    return np.asarray(1 - (answers - wide) ** 2 / spread)


def bits_rows(nats: Floats, sizes: Floats) -> Floats:
    """The rows of bits per byte, from the losses of whole texts in nats [n] and their UTF-8 bytes
    [n]. Models with different tokenizers can be compared by it."""
    return ratio_rows(nats / np.log(2), np.asarray(sizes, dtype=np.float64))


LEVEL = 0.95
TUNED_AND_PROBE = ("fine-tuned model", "linear probe")
NO_INTERVAL = "no interval: "
NO_ROWS = "There are no rows to compare."
# What a row's number is called in a sentence, if not by the metric's name.
OF_A_ROW = {"mae": "error"}


def compare(first: Outputs, second: Outputs, *, out_of_fold: bool = False) -> dict[str, Any]:
    """``{"difference": Estimate, "p_value": float | None, "test": its name, "because": sentence}``:
    accuracy of the first, the fine-tuned model, minus that of the second, the linear probe, on the
    same rows in the same order (``compare_rates``).

    ``out_of_fold``: the predictions are those of folds, and the difference is that of models
    trained on all rows. The limits are moved away from it by the root of ``RATE_EFFECT``, and
    decide without a p-value (``benchmarks/cross_validation.py`` measures how often they hold).

    Raises ``Defect`` if the two do not hold the same rows with the same labels.
    """
    same = np.array_equal(first.rows, second.rows) and np.array_equal(first.labels, second.labels)
    if not same:
        raise Defect("a paired comparison", "needs the same rows with the same labels, in order")
    if not len(first.labels):
        nothing = undefined("there are no rows")
        return {"difference": nothing, "p_value": None, "because": NO_ROWS}
    right_1, right_2 = first.predictions == first.labels, second.predictions == second.labels
    difference, p_value, test = compare_rates(right_1, right_2, ResampledUnits.of(first))
    value = float(np.mean(right_1) - np.mean(right_2))
    tuned, probe = TUNED_AND_PROBE
    only_1, only_2 = int(np.sum(right_1 & ~right_2)), int(np.sum(right_2 & ~right_1))
    count = f"Of {len(right_1)} rows, {only_1} are predicted correctly only by the {tuned}, and "
    count += f"{only_2} only by the {probe}"
    if out_of_fold and difference.low is not None and difference.high is not None:
        factor = math.sqrt(RATE_EFFECT)
        low, high = (value + factor * (end - value) for end in (difference.low, difference.high))
        interval = str(difference.note).partition(";")[0]
        note = f"{interval}, widened by √{RATE_EFFECT:g} for the model trained on all rows"
        difference = replace(difference, low=max(-1.0, low), high=min(1.0, high), note=note)
        return {"difference": difference, "p_value": None, "because": f"{count}."}
    if p_value is None or difference.value is None:
        because = f"{count}; {difference.why}."
    else:
        better = tuned if difference.value > 0 else probe
        points = f"the {better} is better by {abs(difference.value) * 100:.1f} points"
        because = _sentence(count, points, p_value, test)
    return {"difference": difference, "p_value": p_value, "test": test, "because": because}


def compare_rates(
    first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], units: ResampledUnits
) -> tuple[Estimate, float | None, str]:
    """The share of ``first`` [n] minus that of ``second`` [n] on the same rows, with its p-value
    and the name of its test.

    Without groups: Newcombe's paired interval and McNemar's mid-p test. With groups, for which
    these two are not valid: the mean difference with one group left out at a time, and Student's t
    for both; where all groups have the same difference, Newcombe's and McNemar's with one row for
    each group; one or two groups have neither.
    """
    value, few = float(np.mean(first) - np.mean(second)), too_few(units)
    if few is not None:
        return Estimate(value, level=LEVEL, why=few), None, BY_GROUPS
    if not units.grouped:
        note = f"Newcombe's paired interval; {MCNEMAR}"
        difference = Estimate(value, *newcombe(first, second, LEVEL), LEVEL, note=note)
        return difference, mcnemar(first, second), MCNEMAR
    found = _resampled(first.astype(float), second.astype(float), units, 0)
    if found.has_spread:
        note = "; ".join(bootstrap_notes(units))
        difference = Estimate(found.value, found.low, found.high, LEVEL, note=note)
        return difference, found.p_value, BY_GROUPS
    # Equal in all groups, as often with few rows: that is no certainty.
    each_1, each_2 = (at_rate(one, units.atoms) for one in (first, second))
    note = f"Newcombe's paired interval with one row for each of {units.atoms} groups"
    difference = Estimate(found.value, *newcombe(each_1, each_2, LEVEL), LEVEL, note=note)
    return difference, mcnemar(each_1, each_2), f"{MCNEMAR}, one row for each group"


def compare_losses(
    first: Floats,
    second: Floats,
    units: ResampledUnits,
    *,
    metric: str = "loss",
    unit: str = "a row",
    names: tuple[str, str] = TUNED_AND_PROBE,
    seed: int = 0,
) -> dict[str, Any]:
    """``{"metric", "difference": Estimate, "p_value", "test": its name, "because"}``: the mean of
    ``first`` minus that of ``second``, both [n], smaller is better; ``unit`` says what a row's
    number is counted per.

    A BCa bootstrap over rows, with a p-value of twice the smaller share of resamples on one side
    of 0; or Student's over groups or few rows (``paired_bootstrap``). Fewer than three units, or
    equal differences, have no interval and no p-value, and the reason is given.
    """
    block: dict[str, Any] = {
        "metric": metric,
        "difference": undefined("there are no rows"),
        "p_value": None,
        "because": NO_ROWS,
    }
    if not len(first):
        return block
    found, metric_name = _resampled(first, second, units, seed), OF_A_ROW.get(metric, metric)
    why = (
        untestable(found, units) if math.isfinite(found.value) else f"a {metric_name} is not finite"
    )
    if why is not None:
        known = found.value if math.isfinite(found.value) else None
        because = f"The difference cannot be tested: {why.removeprefix(NO_INTERVAL)}."
        return {**block, "difference": Estimate(known, level=LEVEL, why=why), "because": because}
    note = "; ".join(["paired", *bootstrap_notes(units)])
    difference = Estimate(found.value, found.low, found.high, LEVEL, note=note)
    over_rows = PAIRED_T if units.atoms < STUDENT_BELOW else BOOTSTRAP
    test = BY_GROUPS if units.grouped else over_rows
    lower = int(np.sum(first < second))
    count = f"Of {len(first)} rows, {lower} have a smaller {metric_name} with the {names[0]}"
    better = names[0] if found.value < 0 else names[1]
    sentence = f"the {better} is better by {abs(found.value):.3g} {unit}"
    because = _sentence(count, sentence, found.p_value, test)
    more = {"difference": difference, "p_value": found.p_value, "test": test, "because": because}
    return {**block, **more}


def untestable(found: Difference, units: ResampledUnits) -> str | None:
    """Why the mean difference of these units has neither an interval nor a p-value; ``None`` if it
    has both."""
    few = too_few(units)
    if few is not None:
        return few
    if units.atoms < FEWEST_GROUPS:
        return f"{NO_INTERVAL}there {'is one row' if units.atoms == 1 else 'are two rows'}"
    return None if found.has_spread else f"{NO_INTERVAL}all differences are equal"


def at_rate(right: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.bool_]:
    """``n`` rows of which the first ones are right, in the share of ``right``."""
    return np.asarray(np.arange(n) < round(float(np.mean(right)) * n))


def _resampled(first: Floats, second: Floats, units: ResampledUnits, seed: int) -> Difference:
    return paired_bootstrap(
        first,
        second,
        groups=units.codes if units.grouped else None,
        level=LEVEL,
        seed=generator(seed, "bootstrap", "compare"),
    )


def _sentence(count: str, better: str, p_value: float, test: str) -> str:
    sentence = "these rows show no difference" if p_value >= 1 - LEVEL else better
    return f"{count}: {sentence} ({p_value_phrase(p_value, test)})."
