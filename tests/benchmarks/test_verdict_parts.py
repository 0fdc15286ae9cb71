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


def test_the_rule_that_is_held_out_is_the_rule_that_ships(shared_data: object) -> None:
    from verdict_parts import histories

    from holdfast.monitor.curve_rise import GIVEN_BACK, MARGIN, counts

    found = histories.load()
    said = histories.answers(found, MARGIN, GIVEN_BACK)
    assert [counts(h.shape) and h.beyond for h in found] == said.tolist()
    truth = np.array([h.overfit for h in found])
    assert histories.macro_f1(truth, said) >= 0.98


def test_every_log_of_a_stranger_was_looked_at(shared_data: object) -> None:
    from verdict_parts import logs

    files = [p for p in logs.FOLDER.iterdir() if p.suffix in (".json", ".csv")]
    assert {file.stem for file in files} == set(logs.LOOKED)
