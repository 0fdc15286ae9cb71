"""Which class is taken for which, with rows of both side by side."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.errors.neighbours import SHOWN, TrainingNeighbours
from holdfast.contract.predictions import Predictions
from holdfast.core.records import Estimate, Floats
from holdfast.stats.intervals import wilson, wilson_by_groups

if TYPE_CHECKING:
    import numpy.typing as npt


MOST, EXAMPLES = 10, 2


def confusions(
    valid: Predictions | None,
    test: Predictions,
    texts: tuple[str, ...] | None,
    vectors: Floats | None,
    learned: TrainingNeighbours | None,
) -> list[dict[str, Any]]:
    """The pairs (class, answer) that are most frequent among the test rows, at most ten: how many
    rows, which share of the class (Wilson, by groups where there are some), how many of the
    validation rows, and for up to two rows the nearest training row of the class that was answered,
    which the model may have taken it for."""
    pairs, before = Counter(_pairs(test)), Counter(_pairs(valid) if valid else ())
    ordered = sorted(pairs, key=lambda pair: (-pairs[pair], -before[pair], pair))
    return [
        _of_pair(pair, before[pair] if valid else None, test, texts, vectors, learned)
        for pair in ordered[:MOST]
    ]


def _pairs(told: Predictions) -> list[tuple[str, str]]:
    """The pair of each wrong row."""
    labels = told.table.column("label")
    assert told.predictions is not None
    assert told.wrong is not None
    return [
        (told.table.classes[labels[place]], str(told.predictions[place]))
        for place in np.flatnonzero(told.wrong)
        if labels[place] >= 0
    ]


def _of_pair(
    pair: tuple[str, str],
    before: int | None,
    test: Predictions,
    texts: tuple[str, ...] | None,
    vectors: Floats | None,
    learned: TrainingNeighbours | None,
) -> dict[str, Any]:
    label, answer = pair
    of_class = np.flatnonzero(test.table.column("label") == test.table.classes.index(label))
    assert test.predictions is not None
    hits = np.array([str(test.predictions[place]) == answer for place in of_class], dtype=bool)
    rows = of_class[hits]
    rows = rows[np.argsort(-test.losses[rows], kind="stable")]
    groups = np.asarray(test.table.column("group"))[of_class] if test.table.has_groups else None
    return {
        "label": label,
        "answer": answer,
        "n": len(rows),
        "share": _share(hits, groups).to_json(),
        "on_validation": before,
        "examples": [
            _example(int(place), answer, test, texts, vectors, learned) for place in rows[:EXAMPLES]
        ],
    }


def _share(hits: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_] | None) -> Estimate:
    value = float(hits.mean())
    if groups is None:
        return Estimate(value, *wilson(float(hits.sum()), len(hits)))
    codes = np.unique(groups.astype(str), return_inverse=True)[1].reshape(-1)
    low, high = wilson_by_groups(hits, codes)
    if np.isnan(low):
        return Estimate(value, why="no interval: all its rows are of one group")
    return Estimate(value, low, high)


def _example(
    place: int,
    answer: str,
    test: Predictions,
    texts: tuple[str, ...] | None,
    vectors: Floats | None,
    learned: TrainingNeighbours | None,
) -> dict[str, Any]:
    like = None
    if learned is not None and vectors is not None:
        among = np.array([str(label) == answer for label in learned.labels])
        near = learned.nearest(vectors[place], 1, among)
        like = learned.entry(near[0], vectors[place]) if near else None
    return {
        "row": int(test.rows[place]),
        "text": None if texts is None else texts[place][:SHOWN],
        "loss": float(test.losses[place]),
        "like": like,
    }
