"""Folds against scikit-learn's where it has them, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from holdfast.core.errors import Defect, SplitError
from holdfast.split.assign import assign_multilabel
from holdfast.split.folds import Folds, holdout_split, make_folds, time_folds


def held_counts(folds: Folds, n: int) -> list[int]:
    seen = np.zeros(n, dtype=int)
    for fold in folds:
        assert len(np.intersect1d(fold.train, fold.held_out)) == 0
        seen[fold.held_out] += 1
    return seen.tolist()


def test_every_row_is_held_out_once_a_repeat_and_units_are_whole() -> None:
    rng = np.random.default_rng(0)
    units, labels = rng.integers(0, 90, 200), rng.integers(0, 3, 200)
    folds = make_folds(units, labels, 5, seed=1, repeats=3)
    assert len(folds) == 15
    assert held_counts(folds, 200) == [3] * 200
    for fold in folds:
        assert len(fold.train) + len(fold.held_out) == 200
        assert not set(units[fold.train]) & set(units[fold.held_out])
    assert not np.array_equal(folds.folds[0].held_out, folds.folds[5].held_out)


def test_single_rows_are_dealt_as_evenly_as_by_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    labels = rng.choice(3, 211, p=[0.6, 0.3, 0.1])
    ours = [
        np.bincount(labels[f.held_out], minlength=3)
        for f in make_folds(np.arange(211), labels, 7, 0)
    ]
    theirs = [
        np.bincount(labels[held], minlength=3)
        for _, held in StratifiedKFold(7, shuffle=True, random_state=0).split(labels, labels)
    ]
    ideal = np.bincount(labels) / 7
    assert np.abs(np.array(ours) - ideal).max() < 1
    assert np.abs(np.array(ours) - ideal).max() <= np.abs(np.array(theirs) - ideal).max() + 1e-9


def test_the_same_seed_gives_the_same_folds_and_another_does_not() -> None:
    units, labels = np.arange(60), np.arange(60) % 2
    one, again, other = (make_folds(units, labels, 4, seed) for seed in (2, 2, 3))
    same = [np.array_equal(a.held_out, b.held_out) for a, b in zip(one, again, strict=True)]
    assert all(same)
    assert not np.array_equal(one.folds[0].held_out, other.folds[0].held_out)


def test_nested_folds_lie_within_the_training_rows() -> None:
    rng = np.random.default_rng(5)
    units, labels = rng.integers(0, 100, 160), rng.integers(0, 2, 160)
    outer = make_folds(units, labels, 4, seed=0)
    for fold in outer:
        mine = units[fold.train]
        inner = make_folds(mine, labels[fold.train], 3, seed=7)
        held = np.concatenate([f.held_out for f in inner])
        assert np.array_equal(np.sort(held), np.arange(len(mine)))
        for f in inner:
            assert not set(mine[f.held_out]) & (set(mine[f.train]) | set(units[fold.held_out]))


def test_a_class_of_fewer_units_than_folds_is_refused_by_its_name() -> None:
    units = np.array([*range(20), 20, 20, 20, 20])
    labels = np.array([0] * 20 + [1] * 4)
    with pytest.raises(SplitError, match=r"class 'rare'.*has 1 independent unit.*4 splits"):
        make_folds(units, labels, 4, seed=0, class_names=("usual", "rare"))
    with pytest.raises(Defect, match="folds and repeats"):
        make_folds(units, labels, 1, seed=0)


def test_rows_are_set_aside_in_proportion_and_units_stay_whole() -> None:
    rng = np.random.default_rng(6)
    labels = rng.choice(3, 300, p=[0.6, 0.3, 0.1])
    units = np.arange(300)
    units[200:] = units[:100]
    stay, aside = holdout_split(np.arange(300), labels, 0.18, seed=1)
    assert sorted([*stay, *aside]) == list(range(300))
    wanted = 0.18 * np.bincount(labels)
    assert np.abs(np.bincount(labels[aside], minlength=3) - wanted).max() <= 1
    stay, aside = holdout_split(units, labels, 0.18, seed=1)
    assert not set(units[stay]) & set(units[aside])
    assert abs(len(aside) - 54) <= 4
    with pytest.raises(SplitError, match="rare"):
        holdout_split(
            np.arange(5), np.array([0, 0, 0, 0, 1]), 0.2, 0, class_names=("common", "rare")
        )


def test_by_time_each_fold_is_judged_by_what_comes_after_it() -> None:
    ages = np.random.default_rng(1).permutation(100).astype(float)
    folds = time_folds(np.arange(100), ages, 4)
    assert [len(fold.held_out) for fold in folds] == [20] * 4
    for fold in folds:
        assert ages[fold.train].max() < ages[fold.held_out].min()
    assert held_counts(folds, 100) == np.where(ages < 20, 0, 1).tolist()


# --- several labels ------------------------------------------------------------------------------


def distribution(side: np.ndarray, labels: np.ndarray, folds: int) -> float:
    """The labels distribution measure of Sechidis et al. (their equation 2): the mean over labels
    of how far each side's odds are from those of all rows."""
    total = labels.sum(axis=0) / (len(labels) - labels.sum(axis=0))
    off = []
    for number in range(folds):
        here = labels[side == number]
        with np.errstate(divide="ignore"):
            off.append(np.abs(here.sum(axis=0) / (len(here) - here.sum(axis=0)) - total))
    return float(np.mean(off))


def several(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rates = np.array([0.5, 0.3, 0.1, 0.05, 0.02, 0.01])
    return rng.random((n, 6)) < rates


@pytest.mark.parametrize("seed", range(5))
def test_each_label_is_as_common_on_every_side_and_more_so_than_by_chance(seed: int) -> None:
    labels = several(500, seed)
    keys = np.random.default_rng(seed).integers(0, 2**63, 500).astype(np.uint64)
    side = assign_multilabel(np.arange(500), labels, keys, (0.2,) * 5)
    counts = np.array([labels[side == number].sum(axis=0) for number in range(5)])
    # A rare label differs by a row at most from side to side; so do the sides themselves, nearly.
    rare = labels.sum(axis=0).argsort()[:3]
    assert (np.ptp(counts[:, rare], axis=0) <= 1).all()
    assert np.ptp(np.bincount(side, minlength=5)) <= 3
    chance = np.random.default_rng(seed + 100).permutation(np.arange(500) % 5)
    assert distribution(side, labels, 5) < 0.5 * distribution(chance, labels, 5)


def test_rows_of_several_labels_keep_their_units_and_their_shares() -> None:
    rng = np.random.default_rng(3)
    labels, units = several(400, 3), rng.integers(0, 250, 400)
    of_row = np.unique(units, return_inverse=True)[1]
    keys = rng.integers(0, 2**63, of_row.max() + 1).astype(np.uint64)
    side = assign_multilabel(of_row, labels, keys, (0.7, 0.15, 0.15))
    assert np.bincount(side[of_row]) / 400 == pytest.approx([0.7, 0.15, 0.15], abs=0.01)
    folds = make_folds(units, np.zeros(400, int), 4, seed=0, label_matrix=labels)
    assert held_counts(folds, 400) == [1] * 400
    assert "stratified by each label" in folds.description
    with pytest.raises(SplitError, match="2 independent units"):
        assign_multilabel(np.array([0, 1]), labels[:2], keys[:2], (0.4, 0.3, 0.3))
