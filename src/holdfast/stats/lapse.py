"""How many labels contradict what a model knows, as distinct from what the model does not know.

The predictions come from a model that was not fitted on the row. Rows with uncertain predictions
say nothing against their labels. Rows with confident predictions do, if such confidence is correct
on other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints, softmax

# Temperatures that are tried, times the spread of the logits, and an infinite one; the best is
# interpolated between its neighbours.
STEPS = np.arange(-4.0, 4.01, 0.2)
RATES = 48
MOST_ROWS = 5000
# A rate to its largest log likelihood over temperatures, and the temperature.
Profile = Callable[[float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Lapse:
    """``rate`` is the estimated share of wrong labels, ``low`` and ``high`` its profile interval,
    ``temperature`` the one fitted with it, for ``n`` rows."""

    rate: float
    low: float
    high: float
    temperature: float
    n: int


def lapse_rate(logits: Floats, labels: Ints, *, level: float = 0.95) -> Lapse:
    """The share ε of labels that were exchanged for another class, by maximum likelihood.

    The label of a row is drawn from p(y) = softmax(logits ÷ T)[y] and, with probability ε, replaced
    by one of the other c − 1 classes with equal probability: its likelihood is
    (1 − ε) p(y) + ε (1 − p(y)) ÷ (c − 1). T and ε are fitted together: T explains uncertainty, ε
    explains contradictions to a confidence that is correct on the other rows (a lapse rate, as in
    psychophysics: Wichmann and Hill 2001). The interval is that of the profile likelihood: all ε
    whose largest log likelihood over T lies within χ²₁(level) ÷ 2 of the largest of all.

    Sibling: ``temperature``'s probabilities find the most confident wrong rows; they count
    overconfidence as contradiction, while here T absorbs it.

    Parameters
    ----------
    logits : [n, c] of models that were *not* fitted on the row (out-of-fold), c ≥ 2; logarithms of
        probabilities are logits too. Those of a model's own training rows say nothing.
    labels : [n], class indices below c.

    Rates lie in [0, (c − 1) ÷ c], beyond which labels would contradict themselves. For a model that
    knows nothing the interval is as wide as that. More than 5,000 rows: evenly spaced ones are
    used. No rows: NaN, with the whole range as interval; a logit that is not finite: a ``Defect``.
    """
    from scipy.special import chdtri

    scores, labels_used = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    _check(scores, labels_used, level)
    classes = scores.shape[1]
    max_rate = (classes - 1) / classes
    if not len(scores):
        return Lapse(math.nan, 0.0, max_rate, math.nan, 0)
    stride = math.ceil(len(scores) / MOST_ROWS)
    scores, labels_used, n = scores[::stride], labels_used[::stride], len(scores)
    # Temperatures are in units of the logits' own spread, so that their scale does not matter;
    # without spread any unit will do.
    spread = float((scores - scores.mean(axis=1, keepdims=True)).std()) or 1.0
    # Computed once for all rates: each then costs one sum over this table.
    label_probability = _label_probabilities(scores, labels_used, spread * np.exp(STEPS))
    other_probability = (1 - label_probability) / (classes - 1)

    def profile(rate: float) -> tuple[float, float]:
        # A row that is impossible at a rate of 0 makes that rate impossible: −∞ is intended.
        with np.errstate(divide="ignore"):
            sums = np.log(label_probability + rate * (other_probability - label_probability)).sum(
                axis=1
            )
        value, step = _parabola_peak(sums)
        return value, spread * float(np.exp(step))

    rate, best = _best_rate(profile, max_rate)
    low, high = _limits(profile, rate, best - float(chdtri(1, 1 - level)) / 2, max_rate)
    return Lapse(rate, low, high, profile(rate)[1], n)


def true_class_probabilities(logits: Floats, labels: Ints, lapse: Lapse) -> Floats:
    """The probability [n, c] that each class is a row's true one, given the label that it has.

    With the p(k) = softmax(logits ÷ T)[k] and the ε of ``lapse`` it is, by Bayes' rule,

        q(k) ∝ p(k) · (1 − ε if k is the label, else ε ÷ (c − 1))

    The parameters and the model of wrong labels are those of ``lapse_rate``; without rows or an
    estimate (``lapse.rate`` is NaN) a label is taken as it is.
    """
    scores, given = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    rows, classes = np.arange(len(scores)), scores.shape[1]
    if math.isnan(lapse.rate):
        return np.eye(classes)[given]
    likelihood = np.full(scores.shape, lapse.rate / (classes - 1))
    likelihood[rows, given] = 1 - lapse.rate
    joint = softmax(scores / lapse.temperature) * likelihood
    # A label that is impossible both by p and as a mistake says nothing: it is taken as it is.
    joint[~joint.any(axis=1)] = np.eye(classes)[given[~joint.any(axis=1)]]
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))


def _label_probabilities(scores: Floats, labels: Ints, temperatures: Floats) -> Floats:
    """softmax(scores ÷ T)[label], [temperatures and ∞, n]."""
    gaps = scores - scores[np.arange(len(scores)), labels][:, None]
    probabilities = np.full((len(temperatures) + 1, len(scores)), 1 / scores.shape[1])
    # An overflow means a label with a probability of 0: 1 ÷ ∞ is correct.
    with np.errstate(over="ignore"):
        for i, temperature in enumerate(temperatures):
            probabilities[i] = 1.0 / np.exp(gaps / temperature).sum(axis=1)
    return probabilities


def _parabola_peak(sums: Floats) -> tuple[float, float]:
    """The maximum of a parabola through the highest log likelihood and its neighbours, and its
    step."""
    i, last = int(np.argmax(sums)), len(STEPS) - 1
    if 0 < i < last and np.isfinite(sums[i - 1 : i + 2]).all():
        before, here, after = sums[i - 1 : i + 2]
        bend = before - 2 * here + after
        if bend < 0:
            shift = 0.5 * (before - after) / bend
            value = here - 0.25 * (before - after) * shift
            return float(value), float(STEPS[i] + shift * (STEPS[1] - STEPS[0]))
    return float(sums[i]), float(STEPS[i]) if i <= last else math.inf


def _best_rate(profile: Profile, top: float) -> tuple[float, float]:
    """The rate with the highest profile, and that value."""
    from scipy.optimize import minimize_scalar

    # Denser near 0, where clean data sets lie.
    # A grid before the search, because a profile may have more than one peak.
    rates = top * np.linspace(0.0, 1.0, RATES) ** 2
    values = [profile(rate)[0] for rate in rates]
    i = int(np.argmax(values))
    bounds = rates[max(0, i - 1)], rates[min(RATES - 1, i + 1)]
    optimum = minimize_scalar(
        lambda rate: -profile(rate)[0], bounds=bounds, method="bounded", options={"xatol": 1e-5}
    )
    if -optimum.fun > values[i]:
        return float(optimum.x), float(-optimum.fun)
    return float(rates[i]), float(values[i])


def _limits(profile: Profile, rate: float, line: float, top: float) -> tuple[float, float]:
    """Where the profile crosses ``line`` on each side of its maximum, or the ends of the range."""
    from scipy.optimize import brentq

    def above(candidate: float) -> float:
        # The root search needs finite ends, and a rate of 0 may have a likelihood of 0.
        return max(profile(candidate)[0], line - 1e6) - line

    low = 0.0 if rate <= 0 or above(0.0) >= 0 else brentq(above, 0.0, rate, xtol=1e-5)
    high = top if rate >= top or above(top) >= 0 else brentq(above, rate, top, xtol=1e-5)
    return float(low), float(high)


def _check(scores: Floats, labels: Ints, level: float) -> None:
    if not 0 < level < 1:
        raise Defect("the level of an interval", "must lie strictly between 0 and 1", level)
    if scores.ndim != 2 or scores.shape[1] < 2 or len(scores) != len(labels):
        rule = "needs [rows, two classes or more] and a label a row"
        raise Defect("a lapse rate", rule, (scores.shape, len(labels)))
    if not np.isfinite(scores).all():
        raise Defect("the logits of a lapse rate", "must be finite numbers")
    if len(labels) and (labels.min() < 0 or labels.max() >= scores.shape[1]):
        raise Defect("a label", f"must lie in 0 to {scores.shape[1] - 1}", int(labels.max()))
