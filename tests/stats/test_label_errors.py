"""Mistakes in labels against SciPy's optimiser, and against labels whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special

from holdfast.core.errors import Defect
from holdfast.stats.label_errors import label_errors


def drawn(
    n: int, matrix: np.ndarray, *, skill: float = 3.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities that are twice as unsure as they should be and shifted, the labels, and the
    true classes that these were drawn from."""
    rng, classes = np.random.default_rng(seed), len(matrix)
    scores = skill * rng.normal(size=(n, classes))
    shifts = np.linspace(-0.3, 0.3, classes)

    def draw(p: np.ndarray) -> np.ndarray:
        return (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)

    truth = draw(special.softmax(scores + shifts, axis=1))
    return special.log_softmax(scores / 2, axis=1), draw(matrix[truth]), truth


def confused(classes: int, rate: float) -> np.ndarray:
    """Of the first class this share is labelled as the second, all others are right."""
    matrix = np.eye(classes)
    matrix[0, :2] = 1 - rate, rate
    return matrix


def penalized(parameters: np.ndarray, log_p: np.ndarray, labels: np.ndarray, classes: int) -> float:
    shifts = parameters[1 : classes + 1]
    matrix = special.softmax(parameters[classes + 1 :].reshape(classes, classes), axis=1)
    p = special.softmax(np.exp(parameters[0]) * log_p + shifts, axis=1)
    likelihood = np.log((p * matrix[:, labels].T).sum(axis=1)).sum()
    return float(-likelihood - 10 * np.log(np.diag(matrix)).sum() + 2 * (shifts**2).sum())


@pytest.mark.parametrize(("classes", "rate"), [(2, 0.3), (4, 0.4)])
def test_no_other_parameters_are_more_probable(classes: int, rate: float) -> None:
    log_p, labels, _ = drawn(400, confused(classes, rate))
    found = label_errors(log_p, labels)
    own = np.concatenate(
        [[np.log(found.scale)], found.shifts, np.log(np.maximum(found.matrix, 1e-9)).ravel()]
    )
    ends = [
        optimize.minimize(penalized, start, (log_p, labels, classes), method="L-BFGS-B").fun
        for start in (own, np.concatenate([np.zeros(classes + 1), 3 * np.eye(classes).ravel()]))
    ]
    assert penalized(own, log_p, labels, classes) <= min(ends) + 0.05


@pytest.mark.parametrize("rate", [0.2, 0.4])
def test_mistakes_of_one_class_are_found_there_and_corrected(rate: float) -> None:
    log_p, labels, truth = drawn(3000, confused(4, rate))
    found = label_errors(log_p, labels)
    assert found.evidence > 6
    assert found.matrix[0, 1] == pytest.approx(rate, abs=0.06)
    assert (found.matrix[1:] * (1 - np.eye(4)[1:])).sum() < 0.06
    probabilities = found.true_classes(log_p, labels)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    corrected = probabilities.argmax(axis=1)
    assert (corrected != truth).sum() < 0.6 * (labels != truth).sum()
    is_true = np.eye(4, dtype=bool)[truth]
    for low in (0.1, 0.3, 0.5, 0.7, 0.9):
        here = (probabilities >= low) & (probabilities < low + 0.1)
        assert is_true[here].mean() == pytest.approx(probabilities[here].mean(), abs=0.12)


def test_right_labels_hardly_ever_look_wrong() -> None:
    """Of 60 draws without a mistake, and with predictions that are unsure and shifted."""
    evidence = [label_errors(*drawn(300, np.eye(4), seed=seed)[:2]).evidence for seed in range(60)]
    assert max(evidence) < 4
    assert np.mean(np.array(evidence) > 2) < 0.1


def test_predictions_that_know_nothing_accuse_nobody() -> None:
    rng = np.random.default_rng(0)
    log_p = special.log_softmax(0.01 * rng.normal(size=(500, 3)), axis=1)
    labels = rng.choice(3, 500, p=[0.6, 0.3, 0.1])
    found = label_errors(log_p, labels)
    assert found.evidence < 2
    assert (found.true_classes(log_p, labels).argmax(axis=1) == labels).all()


def test_classes_by_other_names_change_nothing() -> None:
    log_p, labels, _ = drawn(500, confused(4, 0.3))
    order = np.array([2, 0, 3, 1])
    found, renamed = (
        label_errors(log_p, labels),
        label_errors(log_p[:, order], order.argsort()[labels]),
    )
    assert renamed.evidence == pytest.approx(found.evidence, abs=0.05)
    assert renamed.matrix == pytest.approx(found.matrix[np.ix_(order, order)], abs=0.01)


def test_many_rows_are_thinned() -> None:
    log_p, labels, _ = drawn(12_000, confused(3, 0.3))
    found = label_errors(log_p, labels)
    assert found.n == 4000
    assert found.true_classes(log_p, labels).shape == (12_000, 3)


@pytest.mark.parametrize("log_p", [np.zeros((1, 3)), np.zeros((5, 1)), np.full((5, 3), np.nan)])
def test_what_cannot_be_is_refused(log_p: np.ndarray) -> None:
    with pytest.raises(Defect, match="need two rows and classes, all finite"):
        label_errors(log_p, np.zeros(len(log_p), dtype=int))
