"""The rules of kept_state.py are those of the product, on runs written as its recorder does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special

from holdfast.control.choice import newest_unless_worse_place


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Five checkpoints of a classifier of two classes on 20 validation and 60 test rows."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"steps": np.arange(5)}
    for side, rows in (("valid", 20), ("test", 60)):
        labels = rng.integers(0, 2, rows)
        better = np.linspace(0.2, 1.0, 5)[:, None, None] * np.eye(2)[labels]
        arrays[f"{side}_labels"] = labels
        arrays[f"{side}_logits"] = 3 * better + rng.standard_normal((5, rows, 2))
    cell = {"recipe": "trainer", "data": "cr", "rows": 100, "seed": 0}
    path = tmp_path / "trainer-cr-100-0.npz"
    np.savez_compressed(path, told=np.array(json.dumps({"cell": cell})), **arrays)
    return path


def test_the_figures_of_a_recording_are_those_of_scipy(recording: Path) -> None:
    from recorded.kept_rules import read

    run, told = read(recording)
    with np.load(recording) as arrays:
        logits, labels = arrays["test_logits"], arrays["test_labels"]
    losses = special.logsumexp(logits, axis=2) - logits[:, np.arange(60), labels]
    assert told["cell"] == run.cell
    assert run.calibrated.shape == run.raw.shape == run.crossed.shape == (20, 5)
    # A trainer saves its model as it is; a run of ours would save it calibrated.
    assert run.saved == pytest.approx(losses.mean(axis=1))
    assert run.accuracy == pytest.approx((logits.argmax(axis=2) == labels).mean(axis=1))
    assert (run.refined <= run.saved + 1e-9).all()


def test_validation_rows_that_are_drawn_again_are_not_scored(recording: Path) -> None:
    from recorded.kept_rules import DRAWS, redrawn

    draws = list(redrawn(recording, 30))
    assert len(draws) == DRAWS
    whole = np.load(recording)
    hits = whole["test_logits"].argmax(axis=2) == whole["test_labels"]
    for run in draws:
        assert run.hits.shape == (30, 5)
        assert 30 * run.hits.T.mean(axis=1) + 30 * run.accuracy == pytest.approx(hits.sum(axis=1))


def test_without_answers_to_compare_the_rule_until_now_is_the_products(recording: Path) -> None:
    """They differ in nothing but that no dominated checkpoint is kept."""
    from recorded.kept_rules import lowest, newest, newest_undominated, now, redrawn

    for run in redrawn(recording):
        assert newest(0.2)(run) == newest_unless_worse_place(run.calibrated, None)
        assert newest_undominated(run) == newest_unless_worse_place(
            run.calibrated, run.hits.sum(axis=0)
        )
        assert now(run) == lowest(run) == run.calibrated.mean(axis=0).argmin()
