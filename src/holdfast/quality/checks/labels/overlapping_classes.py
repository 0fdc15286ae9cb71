"""Classes whose rows could as well be of the other: ambiguous rows, or one class under two
names."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_classes
from holdfast.quality.views import Embedded

LEAST_ROWS = 10
# Of the rows of each class that are answered as the other, and of those of one class alone.
TAKEN = 0.3
LOW, SHOWN, EXAMPLES = 0.3, 4, 6


@check(
    Embedded,
    cannot_see="Two classes alone, and rows that only a tuned model would tell apart.",
    error_rate="Nothing on 2,000 rows of TREC and of BANKING77.",
    holds_for=with_classes,
)
def overlapping_classes(view: Embedded) -> CheckResult | None:
    """Reports pairs of classes of which three in ten rows of each, or more, are taken for the other
    by fits that had not seen them; of three classes or more, of 10 rows each. The rows named are
    those that get 30 % or more for both in every one of the divisions: ambiguous, whoever labels
    them. Score: the share of all rows that are of such a pair."""
    answers, classes = view.answers, view.rows.table.classes
    if answers is None or len(classes) < 3:
        return None
    known, n = answers.known, len(answers.known)
    labels, said = answers.labels[known], answers.log_p[known].argmax(axis=1)
    table = np.zeros((len(classes), len(classes)))
    np.add.at(table, (labels, said), 1)
    counts = table.sum(axis=1)
    taken = table / np.maximum(counts, 1)[:, None]
    both = (
        (np.minimum(taken, taken.T) >= TAKEN)
        & (counts >= LEAST_ROWS)
        & (counts >= LEAST_ROWS)[:, None]
    )
    pairs = [(int(a), int(b)) for a, b in zip(*np.nonzero(both), strict=True) if a < b]
    if not pairs:
        return None
    pairs.sort(key=lambda pair: (-min(taken[pair], taken[pair[::-1]]), pair))
    inside = np.isin(labels, list({k for pair in pairs for k in pair}))
    # Of each pair the rows that are undecided in every division.
    unclear = {}
    for pair in pairs:
        p = np.exp(answers.runs[:, known][:, :, list(pair)]).min(axis=(0, 2))
        unclear[pair] = np.flatnonzero(np.isin(labels, list(pair)) & (p >= LOW))
    rows = np.unique(np.concatenate([known[at] for at in unclear.values()]))
    shown = "; ".join(
        f"{taken[a, b]:.0%} of {classes[a]!r} are taken for {classes[b]!r} and {taken[b, a]:.0%} "
        "the other way"
        for a, b in pairs[:SHOWN]
    )
    more = f"; and {counted(len(pairs) - SHOWN, 'more pair')}" if len(pairs) > SHOWN else ""
    ids = view.rows.ids
    examples = tuple(
        CheckExample(int(ids[known[at]]), f"{classes[a]!r} or {classes[b]!r}")
        for (a, b), places in unclear.items()
        for at in places[:EXAMPLES]
    )
    return result(
        ids[rows],
        f"{shown}{more}: {counted(len(rows), 'row')} could be of either class",
        "Join the classes, or say in words what tells them apart and label the rows again.",
        score=float(inside.sum() / n),
        severity="info",
        count=int(inside.sum()),
        examples=examples,
    )
