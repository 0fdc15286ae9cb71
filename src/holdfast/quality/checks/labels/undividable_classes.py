"""Classes with too few different texts to stand on every side: ``train`` refuses them."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import listing
from holdfast.data.options import RARE_BELOW
from holdfast.data.table import Table
from holdfast.quality.check import CheckResult, check, result, with_classes, with_texts
from holdfast.quality.rows import normal_pair, texts
from holdfast.quality.views import Closely


def _divided(table: Table) -> bool:
    return with_texts(table) and with_classes(table)


@check(
    Closely,
    cannot_see="Whether the classes are meant.",
    error_rate="Counts by the rule of train: never wrong about the rows.",
    holds_for=_divided,
)
def undividable_classes(view: Closely) -> CheckResult | None:
    """Reports classes of fewer than three different texts (but for case, space and punctuation),
    which cannot stand on three sides: `train` refuses them. An error where a class has one text
    alone; two are enough where the test rows are a file of their own. Score: the share of the
    classes that are.
    """
    table = view.rows.table
    labels = np.asarray(table.column("label"))
    known: dict[int, set[str]] = {int(c): set() for c in np.unique(labels) if c >= 0}
    open_ = set(known)
    for start, batch in texts(table):
        for label, text in zip(labels[start : start + len(batch)].tolist(), batch, strict=True):
            if label in open_:
                known[label].add(normal_pair(text))
                if len(known[label]) >= RARE_BELOW:
                    open_.discard(label)
        if not open_:
            return None
    small = sorted(open_)
    named = [f"{table.classes[c]!r} {len(known[c])}" for c in small]
    shown = listing(named, 5, ", ", " and {} more")
    alone = any(len(known[c]) < RARE_BELOW - 1 for c in small)
    left = len(known) - len(small)
    drop = ", or train with --set data.rare=drop" if left >= 2 else ""
    rows = np.flatnonzero(np.isin(labels, small))
    return result(
        tuple(np.asarray(table.column("row"))[rows[:100]].tolist()),
        f"classes of fewer than {RARE_BELOW} different texts: {shown}. train refuses them, "
        "as each side of its division needs one" + ("" if alone else " (with --test FILE two do)"),
        "Where such a label is another one written otherwise, write it in one way; else add rows"
        f"{drop}.",
        score=len(small) / len(known),
        severity="error" if alone or left < 2 else "warn",
        count=len(rows),
    )
