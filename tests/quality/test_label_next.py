"""Which rows to label next: doubtful ones that lie apart, of many classes; else any."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression

from holdfast.quality.label_ranking import rank_for_labelling

CLASSES, WIDTH = 24, 32


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def clouds(n: int, classes: int = CLASSES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    middles = unit(np.random.default_rng(9).standard_normal((classes, WIDTH)))
    y = np.arange(n) % classes
    return unit(middles[y] + 0.1 * rng.standard_normal((n, WIDTH))), y


def test_rows_of_classes_that_have_few_labels_come_first() -> None:
    x, y = clouds(480)
    # Of two classes one row each is labelled, of the others ten.
    rare = np.isin(y, (3, 17))
    known = np.where(rare, np.arange(480) < 24, np.arange(480) < 240)
    pool, theirs = x[~known], y[~known]
    found = rank_for_labelling(x[known], y[known], pool, classes=CLASSES, seed=0)
    assert found.ranked
    assert sorted(found.order.tolist()) == list(range(len(pool)))
    first = theirs[found.order[:20]]
    by_chance = np.isin(theirs, (3, 17)).mean()
    assert np.isin(first, (3, 17)).mean() > 2.5 * by_chance


def test_a_choice_is_the_largest_doubt_times_gap() -> None:
    x, y = clouds(240, seed=1)
    known, pool = x[:120], x[120:]
    found = rank_for_labelling(known, y[:120], pool, classes=CLASSES, seed=0)
    # Each step's gap by SciPy; the doubt by scikit-learn, of another penalty, so in rank only.
    near = cdist(pool, known, "sqeuclidean").min(axis=1)
    model = LogisticRegression(max_iter=2000).fit(known, y[:120])
    top = np.sort(model.predict_proba(pool), axis=1)
    worth = (1 - (top[:, -1] - top[:, -2])) * near
    place = np.argsort(np.argsort(-worth))
    assert place[found.order[0]] < 6
    assert place[found.order[:20]].mean() < place[found.order[-20:]].mean() - 30


def test_of_rows_about_as_far_off_the_doubtful_one_comes_first() -> None:
    x, y = clouds(480)
    middles = unit(np.random.default_rng(9).standard_normal((CLASSES, WIDTH)))
    # Between two classes; and a little farther off, from one of them towards no other.
    odd = np.linalg.svd(middles)[2][-1]
    between = unit((middles[4] + middles[9])[None])[0]
    share = float(between @ middles[4])
    aside = share * middles[4] + 1.4 * np.sqrt(1 - share**2) * odd
    pool = unit(np.stack([aside, between]))
    near = cdist(pool, x, "sqeuclidean").min(axis=1)
    assert near[1] < near[0] < 1.2 * near[1]
    assert rank_for_labelling(x, y, pool, classes=CLASSES, seed=0).order.tolist() == [1, 0]


def test_a_copy_of_a_labelled_row_and_a_second_copy_come_last() -> None:
    x, y = clouds(240, seed=2)
    pool = np.concatenate([x[120:140], x[:1], x[120:121]])
    found = rank_for_labelling(x[:120], y[:120], pool, classes=CLASSES, seed=0)
    last = set(found.order[-2:].tolist())
    assert 20 in last
    assert len(last & {0, 21}) == 1


def test_of_few_classes_rows_are_drawn() -> None:
    x, y = clouds(120, classes=6)
    one, again, other = (
        rank_for_labelling(x[:60], y[:60], x[60:], classes=6, seed=seed) for seed in (0, 0, 1)
    )
    assert not one.ranked
    assert "71.9 % and 72.4 %" in one.because
    assert one.order.tolist() == again.order.tolist() != other.order.tolist()
    assert sorted(one.order.tolist()) == list(range(60))


def test_nothing_is_doubted_where_hardly_anything_is_known() -> None:
    x, y = clouds(60)
    found = rank_for_labelling(x[:10], y[:10], x[10:], classes=CLASSES, seed=0)
    assert not found.ranked
    assert "fewer than 20" in found.because
