"""Rows that would make groups and classes independent."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2_contingency

from holdfast.analyses.fairness.groups import rows_to_add


def test_with_the_rows_that_are_named_groups_and_classes_are_independent() -> None:
    rng = np.random.default_rng(0)
    groups = rng.choice(["a", "b", "c"], 900)
    labels = (rng.random(900) < np.where(groups == "a", 0.2, 0.6)).astype(np.int64)
    counts = {(g, y): int(((groups == g) & (labels == y)).sum()) for g in "abc" for y in (0, 1)}
    assert chi2_contingency([[counts[g, y] for y in (0, 1)] for g in "abc"]).pvalue < 1e-6
    missing = rows_to_add(groups.tolist(), labels, ["no", "yes"])
    for one in missing:
        key = (str(one["group"]), ["no", "yes"].index(str(one["class"])))
        assert one["rows"] == counts[key]
        counts[key] += int(str(one["add"]))
    table = np.array([[counts[g, y] for y in (0, 1)] for g in "abc"])
    shares = table[:, 1] / table.sum(axis=1)
    assert np.allclose(shares, labels.mean(), atol=0.003)
    # One class of a group is the one that is full already.
    assert len({one["group"] for one in missing}) == len(missing)


def test_rows_that_are_independent_lack_none_and_unknown_ones_do_not_count() -> None:
    groups: list[str | None] = ["a", "a", "b", "b", None]
    assert rows_to_add(groups, np.array([0, 1, 0, 1, 1]), ["x", "y"]) == []
