"""Which classes are labelled as which others by mistake, and what a row's true class probably is.

The predictions come from models that were not fitted on the row. ``stats/lapse.py`` estimates one
rate of mistakes that hit every class alike; people mostly confuse two classes, and models that
learned from their labels expect such mistakes. So the mistakes have a rate for each pair of classes
here, and the predictions are calibrated anew for the true classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints, softmax

# Of a class's shift, the standard deviation of its normal prior (as in ``models/probes``).
SHIFT_DEVIATION = 0.5
# Rows of each class, labelled correctly, that the prior of its mistakes counts as.
CORRECT_ROWS = 10.0
# Of 1 ÷ T, as a logarithm: its bounds, and where the search for mistakes begins. Sharper
# predictions leave more labels to be explained as mistakes, so there are two such places.
SCALES = (-1.0, 1.6)
STARTS = (0.0, 0.6)
FIRST_RATE = 0.05
ROUNDS, TOLERANCE = 60, 1e-4
MOST_ROWS = 5000
# Rows times classes.
MOST_CELLS = 150_000
LEAST = 1e-12
# Mistakes are shown from this statistic (Vuong's) and expected share of wrong labels on: on six
# sets with 400 rows and three draws each, one set as it is exceeded both, and with a fifth of wrong
# labels all sets of more than two classes did.
EVIDENCE, LEAST_SHARE = 3.0, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class LabelErrors:
    """``matrix`` [c, c] has the probability of each label (column) for a row of each true class
    (line); the true class of a row has the probabilities softmax(``scale`` · log p + ``shifts``)
    before its label is seen. ``evidence`` is Vuong's statistic against the model without mistakes,
    for ``n`` rows: about normal with a deviation of 1 where that model is as good."""

    matrix: Floats
    scale: float
    shifts: Floats
    evidence: float
    n: int

    def true_classes(self, log_p: Floats, labels: Ints) -> Floats:
        """The probability [n, c] that each class is a row's true one, given its label [n] and its
        predicted log-probabilities [n, c]."""
        scaled = self.scale * np.asarray(log_p, dtype=np.float64)
        return _shares(_joint(scaled + self.shifts, self.matrix, np.asarray(labels)))


def label_errors(log_p: Floats, labels: Ints) -> LabelErrors:
    """The mistakes in ``labels`` [n] by their maximum a posteriori, from out-of-fold
    log-probabilities ``log_p`` [n, c].

    A row's true class k has the probability p(k) = softmax(s log p + b)[k], and its label y the
    probability M[k, y] given k: the likelihood of a label is Σ_k p(k) M[k, y]. s, b and M are
    fitted together by expectation and maximisation (Dempster et al. 1977), from two starts; b has a
    normal prior, and each line of M a Dirichlet prior as if ten more rows of the class were
    labelled correctly. Both models, with mistakes and without (M = I), have s and b, so that
    predictions that are uncertain or biased between classes are no evidence of mistakes. Evidence
    is the sum of the rows' log likelihood ratios over its standard error (Vuong 1989).

    Mistakes are known by the rows that they contradict: the classes must be predictable (a class
    some of whose rows are almost certain; the anchor points of 1609.03683).

    More than 5,000 rows, or 150,000 rows times classes: evenly spaced ones are used. Fewer than two
    rows or classes, or a number that is not finite: a ``Defect``.
    """
    scores, given = np.asarray(log_p, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or len(scores) < 2 or scores.shape[1] < 2 or not np.isfinite(scores).all():
        raise Defect("label errors", "need two rows and classes, all finite", scores.shape)
    stride = math.ceil(len(scores) / min(MOST_ROWS, max(2, MOST_CELLS // scores.shape[1])))
    scores, given = scores[::stride], given[::stride]
    plain = _Fit(scores, given, np.eye(scores.shape[1]), 0.0).calibrated(given)
    with_errors = max(
        (_Fit(scores, given, _first_matrix(scores.shape[1]), start).searched() for start in STARTS),
        key=lambda one: one.objective,
    )
    ratios = with_errors.log_likelihoods - plain.log_likelihoods
    spread = float(ratios.std(ddof=1))
    evidence = float(ratios.mean()) / spread * math.sqrt(len(ratios)) if spread > LEAST else 0.0
    scale = math.exp(with_errors.log_scale)
    return LabelErrors(with_errors.matrix, scale, with_errors.shifts, evidence, len(ratios))


@dataclass(frozen=True, slots=True, eq=False)
class WrongLabels:
    """The probability that each row's label is wrong [n], and whether its most probable class is
    another one [n]; the ``evidence`` of mistakes."""

    probabilities: Floats
    contradicted: npt.NDArray[np.bool_]
    evidence: float

    @property
    def share(self) -> float:
        """The expected share of wrong labels."""
        return float(self.probabilities.mean())

    @property
    def is_shown(self) -> bool:
        """Whether mistakes are shown, and enough of them."""
        return self.evidence >= EVIDENCE and self.share >= LEAST_SHARE


def wrong_labels(log_p: Floats, labels: Ints) -> WrongLabels:
    """Which ``labels`` [n] are mistakes, by ``label_errors`` of these predictions."""
    errors = label_errors(log_p, labels)
    classes = errors.true_classes(log_p, labels)
    probabilities = 1 - classes[np.arange(len(labels)), labels]
    return WrongLabels(probabilities, classes.argmax(axis=1) != labels, errors.evidence)


def _first_matrix(classes: int) -> Floats:
    matrix = np.full((classes, classes), FIRST_RATE / (classes - 1))
    np.fill_diagonal(matrix, 1 - FIRST_RATE)
    return matrix


class _Fit:
    """One search for the parameters, from a matrix and a scale."""

    def __init__(self, scores: Floats, labels: Ints, matrix: Floats, log_scale: float) -> None:
        self._scores, self._labels = scores, labels
        self.matrix, self.log_scale = matrix, log_scale
        self.shifts: Floats = np.zeros(scores.shape[1])

    def searched(self) -> _Fit:
        """After rounds of expectation and maximisation, until the objective rises no more."""
        classes, before = self._scores.shape[1], -math.inf
        for _ in range(ROUNDS):
            expected = _shares(self._joint())
            counts = np.zeros((classes, classes))
            np.add.at(counts.T, self._labels, expected)
            counts += CORRECT_ROWS * np.eye(classes)
            self.matrix = np.maximum(counts / counts.sum(axis=1, keepdims=True), LEAST)
            self._calibrate(expected)
            if (now := self.objective) < before + TOLERANCE:
                break
            before = now
        return self

    def calibrated(self, labels: Ints) -> _Fit:
        """With the scale and the shifts for these true classes."""
        self._calibrate(np.eye(self._scores.shape[1])[labels])
        return self

    @property
    def log_likelihoods(self) -> Floats:
        """Of each row's label [n]."""
        return np.asarray(np.log(np.maximum(self._joint().sum(axis=1), LEAST)))

    @property
    def objective(self) -> float:
        prior = CORRECT_ROWS * np.log(np.diag(self.matrix)).sum() - _penalty(self.shifts)
        return float(self.log_likelihoods.sum() + prior)

    def _joint(self) -> Floats:
        logits = math.exp(self.log_scale) * self._scores + self.shifts
        return _joint(logits, self.matrix, self._labels)

    def _calibrate(self, targets: Floats) -> None:
        """The scale and the shifts that minimise the cross-entropy of the ``targets`` [n, c]."""
        from scipy.optimize import minimize

        bounds = [SCALES, *[(None, None)] * len(self.shifts)]
        start = np.concatenate([[self.log_scale], self.shifts])
        found = minimize(_loss(self._scores, targets), start, jac=True, bounds=bounds)
        self.log_scale, self.shifts = float(found.x[0]), found.x[1:]


def _joint(logits: Floats, matrix: Floats, labels: Ints) -> Floats:
    """The probability of each true class together with the label that a row has [n, c]."""
    return np.asarray(softmax(logits) * matrix[:, labels].T)


def _shares(joint: Floats) -> Floats:
    return np.asarray(joint / np.maximum(joint.sum(axis=1, keepdims=True), LEAST))


def _penalty(shifts: Floats) -> float:
    return float((shifts**2).sum()) / (2 * SHIFT_DEVIATION**2)


def _loss(scores: Floats, targets: Floats) -> Callable[[Floats], tuple[float, Floats]]:
    def value(parameters: Floats) -> tuple[float, Floats]:
        scaled, shifts = math.exp(parameters[0]) * scores, parameters[1:]
        p = softmax(scaled + shifts)
        cross_entropy = -(targets * np.log(np.maximum(p, LEAST))).sum()
        slope = p - targets
        slopes = slope.sum(axis=0) + shifts / SHIFT_DEVIATION**2
        return cross_entropy + _penalty(shifts), np.concatenate([[(slope * scaled).sum()], slopes])

    return value
