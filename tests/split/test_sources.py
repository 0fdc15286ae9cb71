"""Each source is divided by itself."""

from __future__ import annotations

import numpy as np

from holdfast.split.assign import assign, strata_by_source

SHARES = (0.7, 0.15, 0.15)


def divided(labels: np.ndarray, sources: np.ndarray) -> np.ndarray:
    units = np.arange(len(labels), dtype=np.int64)
    strata, called = strata_by_source(labels, sources, units, 3, ("a", "b"))
    assert len(called) == strata.max() + 1
    keys = np.random.default_rng(0).permutation(len(labels)).astype(np.uint64)
    return assign(units, strata, keys, SHARES, called)


def test_each_class_of_each_source_has_its_share_on_every_side() -> None:
    rng = np.random.default_rng(1)
    labels, sources = rng.integers(0, 2, 400), rng.choice(["x", "y", "z"], 400, p=[0.7, 0.2, 0.1])
    side = divided(labels, sources)
    for source in "xyz":
        for label in (0, 1):
            here = side[(sources == source) & (labels == label)]
            wanted = len(here) * np.array(SHARES)
            assert np.abs(np.bincount(here, minlength=3) - wanted).max() <= 1.5


def test_a_class_with_too_few_rows_in_a_source_goes_with_the_others() -> None:
    """Two rows of class b in each of two sources, thirty in a third: no side lacks it, and nothing
    is refused."""
    labels = np.array([0] * 60 + [1] * 30 + [0] * 20 + [1, 1] + [0] * 20 + [1, 1])
    sources = np.array(["x"] * 90 + ["y"] * 22 + ["z"] * 22)
    strata, called = strata_by_source(labels, sources, np.arange(134), 3, ("a", "b"))
    few = np.flatnonzero((sources != "x") & (labels == 1))
    assert len(set(strata[few].tolist())) == 1
    assert called[strata[few[0]]] == "b"
    alone = np.flatnonzero((sources == "z") & (labels == 1))[:1]
    some = np.setdiff1d(np.arange(134), np.setdiff1d(few, alone))
    strata, _ = strata_by_source(labels[some], sources[some], np.arange(len(some)), 3, ("a", "b"))
    place = int(np.flatnonzero(some == alone[0])[0])
    assert (strata == strata[place]).sum() == 31
    for label in (0, 1):
        assert set(divided(labels, sources)[labels == label].tolist()) == {0, 1, 2}
