"""A column that says which rows are for training and which for testing, and copies across it."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.duplicates.gather import nearest_protected
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.pairs import EXAMPLES, LISTED, SERIOUS
from holdfast.quality.views import Copied, OtherColumns

NAMES = ("split", "subset", "partition", "set", "fold_name", "data_split", "dataset_split")
TRAIN = ("train", "training", "trn")
HELD = {
    "test": ("test", "testing", "tst", "held_out", "heldout", "eval", "evaluation"),
    "validation": ("valid", "validation", "val", "dev", "development"),
}


def undivided(copied: Copied) -> str:
    """Why there is nothing to see."""
    if side_column(copied.rows.beside) is not None:
        return ""
    return f"no column names sides ({', '.join(NAMES[:3])}, with train among its values)"


@check(
    Copied,
    cannot_see="Sides that a column of another name, or with other words in it, divides; "
    "copies in other words.",
    error_rate="Every pair is verified word by word; a text repeated by chance counts too.",
    nothing=undivided,
)
def split_leaks(copied: Copied) -> CheckResult | None:
    """Lists the validation and test rows, by a column of the source that says so, that copy or
    nearly copy a training row. Score: the largest share of either side that does."""
    column = side_column(copied.rows.beside)
    if column is None:
        return None
    sides = np.array([_side(value) for value in copied.rows.beside[column]])
    span, copies = copied.gathered.span("source"), copied.gathered.copies
    train = np.zeros(len(copies), dtype=bool)
    train[span] = sides == "train"
    nearest = nearest_protected(copies, train)
    held, shares, told = [], [0.0], []
    for side in ("test", "validation"):
        rows = np.flatnonzero(sides == side)
        hit = rows[nearest.of[rows] >= 0]
        if len(hit):
            held.append(hit)
            shares.append(len(hit) / len(rows))
            told.append(f"{len(hit)} of the {counted(len(rows), f'{side} row')} ({shares[-1]:.1%})")
    if not held:
        return None
    found, ids = np.concatenate(held), copied.rows.ids
    order = found[np.argsort(-nearest.similarity[found], kind="stable")]
    examples = tuple(
        CheckExample(
            int(ids[at]),
            f"{sides[at]}, of a training row; similarity {nearest.similarity[at]:.2f}",
            int(ids[nearest.of[at]]),
        )
        for at in order[:EXAMPLES].tolist()
    )
    return result(
        ids[order[:LISTED]],
        f"by the column {column!r}, {' and '.join(told)} copy or nearly copy a training row",
        "Take the training rows that they copy out, or let train divide the rows by itself: it "
        "puts copies on one side.",
        score=max(shares),
        severity="error" if max(shares) >= SERIOUS else "warn",
        count=len(found),
        examples=examples,
    )


def side_column(beside: OtherColumns) -> str | None:
    """The column that names sides: usually called so, each of its values a side, train among
    them."""
    for name in beside.names:
        if name.strip().lower() in NAMES:
            values = {_side(value) for value in set(beside[name])}
            if "train" in values and len(values) > 1 and "" not in values:
                return name
    return None


def _side(value: str | None) -> str:
    word = (value or "").strip().lower()
    if word in TRAIN:
        return "train"
    return next((side for side, words in HELD.items() if word in words), "")
