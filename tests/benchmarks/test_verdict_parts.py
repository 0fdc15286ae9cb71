"""The verdict benchmark measures what it says."""

from __future__ import annotations

import numpy as np
import pytest


def test_macro_f1_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score
    from verdict_parts.histories import macro_f1

    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, said = rng.random(40) < 0.3, rng.random(40) < 0.4
        assert macro_f1(truth, said) == pytest.approx(f1_score(truth, said, average="macro"))
        more = np.zeros(9, dtype=bool)
        both = np.concatenate([truth, more]), np.concatenate([said, more])
        assert macro_f1(truth, said, 9) == pytest.approx(macro_f1(*both))


@pytest.mark.slow
def test_the_rule_that_is_held_out_is_the_rule_that_ships(shared_data: object) -> None:
    from verdict_parts import histories

    from holdfast.monitor.curves.rise import GIVEN_BACK, MARGIN, counts

    found = histories.load()
    said = histories.answers(found, MARGIN, GIVEN_BACK)
    assert [counts(h.shape) and h.beyond for h in found] == said.tolist()
    truth = np.array([h.overfit for h in found])
    assert histories.macro_f1(truth, said) >= 0.98


def test_every_log_of_a_stranger_was_looked_at(shared_data: object) -> None:
    from verdict_parts import logs

    files = [p for p in logs.FOLDER.iterdir() if p.suffix in (".json", ".csv")]
    assert {file.stem for file in files} == set(logs.LOOKED)


def _run(pool: list[float], accuracy: list[float], trained: float, metrics: str) -> dict:
    return {
        "pool_loss": pool,
        "pool_accuracy": accuracy,
        "probe_accuracy": [0.5, trained],
        "train_accuracy": [0.5, trained],
        "draw": {"metrics": metrics},
    }


@pytest.mark.parametrize(
    ("pool", "accuracy", "trained", "metrics", "truth"),
    [
        ([1.0, 0.5, 0.6], [0.5, 0.8, 0.8], 0.85, "none", True),
        ([1.0, 0.5, 0.6], [0.5, 0.8, 0.8], 0.85, "both", False),
        ([1.0, 0.5, 0.6], [0.5, 0.8, 0.8], 0.95, "both", True),
        ([1.0, 0.5, 0.6], [0.5, 0.8, 0.78], 0.85, "valid", True),
        ([0.6, 0.5, 0.6], [0.5, 0.8, 0.8], 0.85, "both", True),
        ([1.0, 0.5, 0.5], [0.5, 0.8, 0.8], 0.98, "both", True),
        ([1.0, 0.5, 0.5], [0.5, 0.8, 0.8], 0.94, "both", False),
        ([1.0, 0.5, 0.5], [0.5, 0.8, 0.8], 0.94, "only", True),
    ],
)
def test_the_truth_of_a_small_run_is_what_its_pool_shows(pool, accuracy, trained, metrics, truth):
    from verdict_parts.foreign import overfits

    assert overfits(_run(pool, accuracy, trained, metrics)) is truth


def test_a_run_beside_a_line_is_not_clear() -> None:
    from verdict_parts.foreign import is_clear

    assert is_clear(_run([1.0, 0.5, 0.7], [0.5, 0.8, 0.7], 0.99, "both"))
    assert not is_clear(_run([1.0, 0.5, 0.53], [0.5, 0.8, 0.8], 0.91, "none"))


def test_a_small_run_is_the_same_again_and_its_log_tells_what_was_drawn() -> None:
    from verdict_parts import small_runs
    from verdict_parts.foreign import log_of

    drawn = {seed: small_runs.drawn("resumed", seed) for seed in range(99)}
    seed = next(s for s, d in drawn.items() if d.source == "teacher" and d.steps < 120)
    cell = {"family": "resumed", "seed": seed}
    run = small_runs.record(cell)
    assert run == small_runs.record(cell)
    log = log_of(run)
    assert log.valid is not None
    assert len(log.valid) == len(run["pool_loss"])
    first = int(run["draw"]["scaled_at"] * len(log.valid))
    ratio = log.valid.values[first] / log.valid.values[first - 1]
    pool = run["pool_loss"][first] / run["pool_loss"][first - 1]
    assert ratio / pool == pytest.approx(run["draw"]["scale"], rel=0.3)


def test_a_curve_drawn_by_formula_ends_as_high_as_it_says() -> None:
    from verdict_parts import planted_curves as planted

    for seed in range(30):
        log = planted.curve("plain", True, 0.0, seed)
        assert log.valid is not None
        assert log.valid.values[-1] >= 1.1 * log.valid.values.min() * (1 - 1e-9)
        assert np.all(np.diff(planted.curve("plain", False, 0.0, seed).valid.values) < 0)


def test_restarts_and_resumes_are_not_called_overfit_and_rises_are() -> None:
    from verdict_parts import planted_curves as planted

    assert planted.called("restarts", False, 0.01) == planted.called("resumes", False, 0.01) == 0
    assert planted.called("plain", True, 0.01) >= 38
    assert planted.called("resumes", True, 0.01) >= 38
