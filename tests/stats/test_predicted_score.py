"""The predicted score against the posterior of a joint normal, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.core.errors import Defect
from holdfast.stats.predicted_score import Calibration, predict_scores

KNOWN = Calibration(left=0.8, stray=0.02, together=0.03, lacks=0.01, short=0.015)


def rows(seed: int, n: int, chances: list[float]) -> np.ndarray:
    """Models that find the same rows hard."""
    hard = np.random.default_rng(seed).random(n)
    return np.stack([hard < chance for chance in chances]).astype(float)


def test_without_a_short_fine_tune_a_probes_error_is_what_fine_tuning_leaves() -> None:
    probes = rows(0, 400, [0.7, 0.8, 0.9])
    found = predict_scores(probes, KNOWN)
    assert found.mean == pytest.approx(1 - 0.8 * (1 - probes.mean(axis=1)))
    least = 0.25 / 400**2 * 0.64
    expected = 0.64 * np.cov(probes) / 400 + 0.02**2 * np.eye(3) + 0.03**2
    assert found.covariance == pytest.approx(expected + least * np.eye(3))
    # What all models share cancels in a difference: it is surer than either score.
    low, high = found.interval(0)
    gap, least_gap, most_gap = found.difference(2, 0)
    assert gap == pytest.approx(found.mean[2] - found.mean[0])
    assert most_gap - least_gap < 0.85 * (high - low)


def test_a_short_fine_tune_moves_it_as_bayes_rule_says() -> None:
    probes, short = rows(1, 300, [0.75, 0.8, 0.7]), rows(2, 60, [0.9, 0.6])
    before = predict_scores(probes, KNOWN)
    found = predict_scores(probes, KNOWN, tried=[2, 0], short=short)
    # The joint normal of scores and short fine-tunes, conditioned on what was seen.
    noise = np.cov(short) / 60 + (0.015**2 + 0.25 / 60**2) * np.eye(2)
    pick = np.array([[0, 0, 1], [1, 0, 0]])
    joint = pick @ before.covariance @ pick.T + noise
    gain = np.linalg.solve(joint, pick @ before.covariance).T
    seen = short.mean(axis=1) + 0.01 - pick @ before.mean
    assert found.mean == pytest.approx(before.mean + gain @ seen)
    assert found.covariance == pytest.approx(before.covariance - gain @ joint @ gain.T)
    assert found.mean[2] - found.mean[0] > before.mean[2] - before.mean[0] + 0.02
    assert np.diag(found.covariance)[[0, 2]].max() < np.diag(before.covariance).max()


def test_the_interval_holds_the_score_as_often_as_it_says() -> None:
    rng, inside, trials = np.random.default_rng(3), 0, 600
    for _ in range(trials):
        probe = rng.uniform(0.6, 0.9, 2)
        scores = 1 - 0.8 * (1 - probe) + 0.02 * rng.normal(size=2) + 0.03 * rng.normal()
        hard, easy = rng.random(200), rng.random(50)
        seen = np.stack([hard < p for p in probe]).astype(float)
        level = scores - 0.01 + 0.015 * rng.normal(size=2)
        short = np.stack([easy < p for p in level]).astype(float)
        found = predict_scores(seen, KNOWN, [0, 1], short)
        low, high = found.interval(0)
        inside += low <= scores[0] <= high
    assert 0.92 <= inside / trials <= 0.98


def test_a_row_that_one_model_does_not_read_counts_for_none() -> None:
    probes = rows(4, 50, [0.7, 0.9])
    wide = np.column_stack([probes, [[np.nan], [1.0]]])
    assert predict_scores(wide, KNOWN).mean == pytest.approx(predict_scores(probes, KNOWN).mean)
    with pytest.raises(Defect, match="a row that every model"):
        predict_scores(np.array([[np.nan, 1.0], [1.0, np.nan]]), KNOWN)
    one = predict_scores(np.ones((2, 1)), KNOWN)
    assert np.isfinite(one.covariance).all()
    # Rows that are all right are no proof.
    low, high = predict_scores(np.ones((1, 20)), KNOWN).interval(0)
    assert high > 1 > low


def test_with_evidence_models_differ_by_it_and_a_little_by_their_probes() -> None:
    probes = rows(5, 300, [0.6, 0.75, 0.9])
    level = probes.mean()
    found = predict_scores(probes, KNOWN, evidence=np.array([-1.2, -1.0, -0.9]))
    # The level is that of the probes; a tenth of a nat more is a tenth more of the score.
    assert found.mean.mean() == pytest.approx(1 - 0.8 * (1 - level))
    gap = found.mean[2] - found.mean[0]
    assert gap == pytest.approx(0.3 + 0.5 * (probes[2].mean() - probes[0].mean()))
    # By resampling rows: what is noise in the probes is noise in the prediction, as far as it goes.
    rng = np.random.default_rng(0)
    calm = Calibration(left=0.8, stray=0.0, together=0.0, lacks=0.0, short=0.0)
    drawn = [
        predict_scores(
            probes[:, rng.integers(0, 300, 300)], calm, evidence=np.array([-1.2, -1.0, -0.9])
        ).mean
        for _ in range(1500)
    ]
    stated = predict_scores(probes, calm, evidence=np.array([-1.2, -1.0, -0.9])).covariance
    assert np.cov(np.transpose(drawn)) == pytest.approx(stated, rel=0.15, abs=2e-5)
    alone = predict_scores(probes[:1], KNOWN, evidence=np.array([-1.2]))
    assert alone.mean[0] == pytest.approx(1 - 0.8 * (1 - probes[0].mean()))
