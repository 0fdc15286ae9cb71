"""The gap of correct predictions: how often it is called large that is not, and that it is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from holdfast.monitor.evidence import accuracy_gap_of

TRAIN = 50


def large(snapshot: Any, train: int, valid: int, n: int) -> bool:
    hits = [np.arange(size) < right for right, size in ((train, TRAIN), (valid, n))]
    losses = np.zeros(n)
    gap = accuracy_gap_of(
        snapshot(0, np.zeros(TRAIN), losses, train_correct=hits[0], valid_correct=hits[1])
    )
    assert gap is not None
    assert gap.low <= gap.value <= gap.high
    return gap.large


def probability(snapshot: Any, n: int, truth: float) -> float:
    """Of a gap that is called large where all training rows and a share ``truth`` of unseen rows
    are right: a sum over what a binomial draw of validation rows may give."""
    called = [right for right in range(n + 1) if large(snapshot, TRAIN, right, n)]
    return float(binom.pmf(called, n, truth).sum())


@pytest.mark.parametrize("n", [11, 24, 45, 100, 200])
def test_a_gap_of_ten_points_is_called_large_in_about_five_per_cent(snapshot: Any, n: int) -> None:
    # Of 11 rows any line is passed in steps of nine points.
    assert probability(snapshot, n, 0.90) <= (0.05 if n > 11 else 0.10)
    assert probability(snapshot, n, 0.95) <= 0.02


def test_eight_of_eleven_beside_a_training_set_known_by_heart_is_far_behind(snapshot: Any) -> None:
    assert large(snapshot, TRAIN, 8, 11)
    assert not large(snapshot, TRAIN, 9, 11)


@pytest.mark.parametrize(
    ("metrics", "named"),
    [
        ({"accuracy": 0.5, "f1_macro": 0.4}, "accuracy"),
        ({"entity_f1": 0.9, "accuracy": 0.97}, "the share of sentences with all tags correct"),
        (
            {"f1_micro": 0.8, "f1_macro": 0.8, "exact_match": 0.5},
            "the share of rows with all labels correct",
        ),
    ],
)
def test_a_gap_is_called_what_its_rows_are_correct_in(
    snapshot: Any, metrics: dict[str, float], named: str
) -> None:
    hits = {"train_correct": np.arange(50) < 45, "valid_correct": np.arange(50) < 25}
    gap = accuracy_gap_of(snapshot(0, np.zeros(50), np.zeros(50), valid_metrics=metrics, **hits))
    assert gap is not None
    assert gap.words().startswith(f"{named} is 90 % on training rows and 50 % on validation rows")
    assert gap.subject == ("the accuracy" if named == "accuracy" else named)
