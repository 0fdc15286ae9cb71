"""Labels that other rows speak against: the same text, what most rows say, two classes mixed."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from holdfast.core.records import Severity
from holdfast.core.wording import count_phrase
from holdfast.data.table import Table
from holdfast.duplicates.normalise import content_keys
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_classes
from holdfast.quality.label_ranking import LabelRanking, rank_labels
from holdfast.quality.views import Embedded, TableRows, normal_pair, text_batches


@check(
    TableRows,
    cannot_see="Conflicts between texts that differ by more than case, space and punctuation.",
    error_rate="Exact: the texts are the same; which of the labels is wrong it cannot tell.",
    holds_for=with_classes,
)
def conflicting_labels(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose text, but for case, space and punctuation, stands elsewhere with another
    label. Exact: hashes only choose the candidates. Score: their share of the labelled rows."""
    table = rows.table
    candidates = _candidates(table)
    if not len(candidates):
        return None
    chosen, same = table.take(candidates), defaultdict[str, list[int]](list)
    for start, batch in text_batches(chosen):
        for n, text in enumerate(batch, start):
            same[normal_pair(text)].append(int(candidates[n]))
    ids, labels = rows.ids, rows.labels
    groups = [group for group in same.values() if len(set(labels[group].tolist())) > 1]
    if not groups:
        return None
    positions = sorted(position for group in groups for position in group)
    first = sorted(groups[0])
    example = ", ".join(f"row {ids[p]} {table.classes[labels[p]]!r}" for p in first[:4])
    plural = "s have" if len(groups) > 1 else " has"
    return result(
        ids[positions],
        f"{len(groups)} text{plural} different labels in {len(positions)} rows, e.g. {example}",
        "Correct the labels of these rows, or take the doubtful ones out.",
        score=len(positions) / len(table),
    )


def _candidates(table: Table) -> npt.NDArray[np.int64]:
    """Positions whose hash occurs with more than one label."""
    hashes = np.empty(len(table), dtype=np.uint64)
    for start, batch in text_batches(table):
        normal = pa.array([normal_pair(text) for text in batch])
        hashes[start : start + len(batch)] = content_keys(normal)
    labels = table.column("label")
    known = np.flatnonzero(labels >= 0)
    _, group = np.unique(hashes[known], return_inverse=True)
    # A hash has several labels where its lowest and its highest differ: two passes, no groups.
    lowest = np.full(len(known), len(table.classes), dtype=np.int64)
    highest = np.full(len(known), -1, dtype=np.int64)
    np.minimum.at(lowest, group, labels[known])
    np.maximum.at(highest, group, labels[known])
    return np.asarray(known[(lowest != highest)[group]])


SHOWN = 12
# Of labels that are contradicted no more often than doubt explains, so many that have so little of
# the probability are named.
LIKELIEST, HARDLY = 3, 0.95
# A label that the other rows give less than one chance in ten, with another above one half.
DOUBTED, LIKELIER = 0.9, 0.5
LEAST = 0.005


@check(
    Embedded,
    cannot_see="Wrong labels that are consistent, and those of rows like no other.",
    error_rate="With 10 % of the labels exchanged at 1,600 rows the average precision is "
    "0.96 on BANKING77, 0.89 on TREC, 0.68 on CR and 0.45 on MR; on BANKING77 and TREC the "
    "share that is stated was within 4 points (8 at 5 %), on CR and MR none is.",
    holds_for=with_classes,
)
def label_problems(view: Embedded) -> CheckResult | None:
    """Reports the rows whose label gets less than a tenth of the probability, and another class
    more than half, from fits that had not seen the row. The share of those rows that is wrong is
    stated where the data say it (``rank_labels``), and the finding is then a warning; else it is a
    ranking only, and of labels that are contradicted no more often than doubt explains (the 90 %
    interval of the share of wrong ones reaches below 0.5 %) it has the first three of less than a
    twentieth. Score: the estimated share of wrong labels."""
    if view.answers is None:
        return None
    ranking = rank_labels(view.answers)
    likelier = np.exp(view.answers.log_p[ranking.order].max(axis=1))
    other = ranking.suggested != ranking.given
    often = ranking.lapse.low >= LEAST
    least = DOUBTED if often else HARDLY
    named = np.flatnonzero((ranking.score >= least) & (likelier >= LIKELIER) & other)
    if not len(named):
        return None
    named = named if often else named[:LIKELIEST]
    ids, classes = view.rows.ids, view.rows.table.classes
    examples = [
        CheckExample(
            int(ids[ranking.order[at]]),
            f"its label {classes[ranking.given[at]]!r} has a probability of "
            f"{1 - ranking.score[at]:.2g} by the other rows, {classes[ranking.suggested[at]]!r} "
            f"of {likelier[at]:.2g}",
        )
        for at in named[:SHOWN]
    ]
    severity, because = _contradicted(ranking, examples, len(named) if often else None)
    return result(
        ids[ranking.order[named]],
        because,
        "Look at them, the first ones first, and correct those that are wrong: label_issues of "
        "--json has every row in this order. Nothing is changed for you.",
        score=ranking.lapse.rate,
        severity=severity,
        examples=examples,
    )


def _contradicted(
    ranking: LabelRanking, examples: list[CheckExample], count: int | None
) -> tuple[Severity, str]:
    """What ``count`` contradicted labels come to; ``None`` where doubt explains as many."""
    if count is None:
        rows = "; ".join(f"row {one.row}: {one.note}" for one in examples)
        return "info", (
            f"of {count_phrase(len(ranking.order), 'label')} these are the likeliest to be wrong "
            f"({rows}); no more labels are contradicted by the other rows than doubt explains, so "
            "they may all be right"
        )
    because = f"{count_phrase(count, 'row')} whose label the other rows contradict"
    precision, lapse = ranking.precision(count), ranking.lapse
    if precision is None:
        return "info", (
            f"{because}; a ranking only: these rows do not tell what is wrong from what is hard, "
            "so no share of wrong ones can be stated"
        )
    return "warn", (
        f"{because}, of which {precision:.0%} are expected to be wrong; of all labels "
        f"{lapse.rate:.1%} ({lapse.low:.1%}–{lapse.high:.1%})"
    )


LEAST_ROWS = 10
# Of the rows of each class that are answered as the other, and of those of one class alone.
TAKEN = 0.3
LOW, PAIRS_SHOWN, EXAMPLES = 0.3, 4, 6


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
        for a, b in pairs[:PAIRS_SHOWN]
    )
    more = (
        f"; and {count_phrase(len(pairs) - PAIRS_SHOWN, 'more pair')}"
        if len(pairs) > PAIRS_SHOWN
        else ""
    )
    ids = view.rows.ids
    examples = tuple(
        CheckExample(int(ids[known[at]]), f"{classes[a]!r} or {classes[b]!r}")
        for (a, b), places in unclear.items()
        for at in places[:EXAMPLES]
    )
    return result(
        ids[rows],
        f"{shown}{more}: {count_phrase(len(rows), 'row')} could be of either class",
        "Join the classes, or say in words what tells them apart and label the rows again.",
        score=float(inside.sum() / n),
        severity="info",
        count=int(inside.sum()),
        examples=examples,
    )
