from __future__ import annotations

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from holdfast.core.records import Outputs
from holdfast.tasks.classes.baseline import MAJORITY, PROBE, choose_baseline, majority_outputs


def target(labels: list[int], classes: int = 3) -> Outputs:
    y = np.array(labels, dtype=int)
    return Outputs(np.arange(len(y)), y, np.zeros((len(y), classes)), np.zeros(len(y)))


def test_it_predicts_what_scikit_learns_dummy_predicts() -> None:
    train = np.random.default_rng(0).integers(0, 3, 50)
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((50, 1)), train)
    ours = majority_outputs(train, 3, target([0, 1, 2, 2]))
    assert np.array_equal(ours.predictions, dummy.predict(np.zeros((4, 1))))


def test_probabilities_are_the_smoothed_training_shares() -> None:
    ours = majority_outputs(np.array([0, 0, 1]), 3, target([0, 2]))
    assert ours.probabilities[0] == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert ours.losses == pytest.approx(-np.log([3 / 6, 1 / 6]))


def test_the_targets_labels_never_move_the_predictions() -> None:
    train = np.array([0, 0, 1])
    one, other = (majority_outputs(train, 3, target(labels)) for labels in ([0] * 9, [2] * 9))
    assert np.array_equal(one.logits, other.logits)


def _scored(right: int, loss: float) -> Outputs:
    logits = np.zeros((10, 2))
    logits[:, 0], logits[right:, 1] = 1, 2
    return Outputs(np.arange(10), np.zeros(10, int), logits, np.full(10, loss))


def test_the_better_on_validation_is_chosen_with_its_reason() -> None:
    decision = choose_baseline({MAJORITY: _scored(6, 0.6), PROBE: _scored(8, 0.9)})
    assert decision.chosen == PROBE
    assert "0.800" in decision.because
    assert choose_baseline({MAJORITY: _scored(8, 0.6), PROBE: _scored(6, 0.1)}).chosen == MAJORITY


def test_a_tie_goes_to_the_lower_loss() -> None:
    assert choose_baseline({MAJORITY: _scored(8, 0.6), PROBE: _scored(8, 0.3)}).chosen == PROBE


def test_without_validation_rows_the_probe_stands() -> None:
    decision = choose_baseline({MAJORITY: target([]), PROBE: target([])})
    assert decision.chosen == PROBE
    assert "no validation rows" in decision.because
