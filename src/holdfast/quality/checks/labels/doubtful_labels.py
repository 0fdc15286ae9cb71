"""Labels that other rows speak against: the same text, what most rows say, two classes mixed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from holdfast.core.records import Floats, Severity
from holdfast.core.wording import count_phrase
from holdfast.data.table import Table
from holdfast.duplicates.normalise import content_keys
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, result
from holdfast.quality.label_ranking import LabelRanking, rank_labels
from holdfast.quality.views import Embedded, TableRows, normalize_pair, text_batches


@check(
    TableRows,
    cannot_see="Conflicts between texts that differ by more than case, space and punctuation.",
    error_rate="Exact: the texts are the same; which of the labels is wrong it cannot tell.",
    applies_to=has_classes,
)
def conflicting_labels(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose text, but for case, space and punctuation, stands elsewhere with another
    label. Exact: hashes only choose the candidates. Score: their share of the labelled rows."""
    table = rows.table
    candidates = _candidates(table)
    if not len(candidates):
        return None
    candidate_rows, positions_of_text = table.take(candidates), defaultdict[str, list[int]](list)
    for start, batch in text_batches(candidate_rows):
        for n, text in enumerate(batch, start):
            positions_of_text[normalize_pair(text)].append(int(candidates[n]))
    ids, labels = rows.ids, rows.labels
    groups = [group for group in positions_of_text.values() if len(set(labels[group].tolist())) > 1]
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
        normal = pa.array([normalize_pair(text) for text in batch])
        hashes[start : start + len(batch)] = content_keys(normal)
    labels = table.column("label")
    labelled = np.flatnonzero(labels >= 0)
    _, group = np.unique(hashes[labelled], return_inverse=True)
    # A hash has several labels where its lowest and its highest differ: two passes, no groups.
    lowest = np.full(len(labelled), len(table.classes), dtype=np.int64)
    highest = np.full(len(labelled), -1, dtype=np.int64)
    np.minimum.at(lowest, group, labels[labelled])
    np.maximum.at(highest, group, labels[labelled])
    return np.asarray(labelled[(lowest != highest)[group]])


SHOWN = 12
# Of labels that are contradicted no more often than doubt explains, so many that have so little of
# the probability are named.
MAX_LISTED_BELOW_CHANCE, MIN_SCORE_BELOW_CHANCE = 3, 0.95
# A label that the other rows give less than one chance in ten, with another above one half.
MIN_SCORE, MIN_OTHER_PROBABILITY = 0.9, 0.5
MIN_LAPSE_RATE = 0.005


@check(
    Embedded,
    cannot_see="Wrong labels that are consistent, and those of rows like no other.",
    error_rate="With 10 % of the labels exchanged at 1,600 rows the average precision is "
    "0.96 on BANKING77, 0.89 on TREC, 0.68 on CR and 0.45 on MR; on BANKING77 and TREC the "
    "share that is stated was within 4 points (8 at 5 %), on CR and MR none is.",
    applies_to=has_classes,
)
def label_problems(view: Embedded) -> CheckResult | None:
    """Reports the rows whose label gets less than a tenth of the probability, and another class
    more than half, from fits that had not seen the row. The share of those rows that is wrong is
    stated where the data say it (``rank_labels``), and the finding is then a warning; else it is a
    ranking only, and of labels that are contradicted no more often than doubt explains (the 90 %
    interval of the share of wrong ones reaches below 0.5 %) it has the first three of less than a
    twentieth. Score: the estimated share of wrong labels."""
    if view.fold_predictions is None:
        return None
    ranking = rank_labels(view.fold_predictions)
    top_probability = np.exp(view.fold_predictions.log_p[ranking.order].max(axis=1))
    is_other_class = ranking.suggested != ranking.given
    above_chance = ranking.lapse.low >= MIN_LAPSE_RATE
    min_score = MIN_SCORE if above_chance else MIN_SCORE_BELOW_CHANCE
    doubtful = np.flatnonzero(
        (ranking.score >= min_score) & (top_probability >= MIN_OTHER_PROBABILITY) & is_other_class
    )
    if not len(doubtful):
        return None
    doubtful = doubtful if above_chance else doubtful[:MAX_LISTED_BELOW_CHANCE]
    ids, classes = view.rows.ids, view.rows.table.classes
    examples = [
        CheckExample(
            int(ids[ranking.order[at]]),
            f"its label {classes[ranking.given[at]]!r} has a probability of "
            f"{1 - ranking.score[at]:.2g} by the other rows, {classes[ranking.suggested[at]]!r} "
            f"of {top_probability[at]:.2g}",
        )
        for at in doubtful[:SHOWN]
    ]
    severity, because = _describe_contradicted(
        ranking, examples, len(doubtful) if above_chance else None
    )
    return result(
        ids[ranking.order[doubtful]],
        because,
        "Look at them, the first ones first, and correct those that are wrong: label_issues of "
        "--json has every row in this order. Nothing is changed for you.",
        score=ranking.lapse.rate,
        severity=severity,
        examples=examples,
    )


def _describe_contradicted(
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
MIN_CONFUSION = 0.3
MIN_AMBIGUOUS_PROBABILITY, PAIRS_SHOWN, EXAMPLES = 0.3, 4, 6


@check(
    Embedded,
    cannot_see="Two classes alone, and rows that only a tuned model would tell apart.",
    error_rate="Nothing on 2,000 rows of TREC and of BANKING77.",
    applies_to=has_classes,
)
def overlapping_classes(view: Embedded) -> CheckResult | None:
    """Reports pairs of classes of which three in ten rows of each, or more, are taken for the other
    by fits that had not seen them; of three classes or more, of 10 rows each. The rows named are
    those that get 30 % or more for both in every one of the divisions: ambiguous, whoever labels
    them. Score: the share of all rows that are of such a pair."""
    predictions, classes = view.fold_predictions, view.rows.table.classes
    if predictions is None or len(classes) < 3:
        return None
    labelled, n = predictions.labelled_rows, len(predictions.labelled_rows)
    labels, predicted = predictions.labels[labelled], predictions.log_p[labelled].argmax(axis=1)
    table = np.zeros((len(classes), len(classes)))
    np.add.at(table, (labels, predicted), 1)
    counts = table.sum(axis=1)
    confusion_rates = table / np.maximum(counts, 1)[:, None]
    is_overlapping = (
        (np.minimum(confusion_rates, confusion_rates.T) >= MIN_CONFUSION)
        & (counts >= LEAST_ROWS)
        & (counts >= LEAST_ROWS)[:, None]
    )
    pairs = [(int(a), int(b)) for a, b in zip(*np.nonzero(is_overlapping), strict=True) if a < b]
    if not pairs:
        return None
    pairs.sort(key=lambda pair: (-min(confusion_rates[pair], confusion_rates[pair[::-1]]), pair))
    in_pair = np.isin(labels, list({k for pair in pairs for k in pair}))
    # Of each pair the rows that are undecided in every division.
    ambiguous = {}
    for pair in pairs:
        p = np.exp(predictions.runs[:, labelled][:, :, list(pair)]).min(axis=(0, 2))
        ambiguous[pair] = np.flatnonzero(
            np.isin(labels, list(pair)) & (p >= MIN_AMBIGUOUS_PROBABILITY)
        )
    rows = np.unique(np.concatenate([labelled[at] for at in ambiguous.values()]))
    ids = view.rows.ids
    examples = tuple(
        CheckExample(int(ids[labelled[at]]), f"{classes[a]!r} or {classes[b]!r}")
        for (a, b), places in ambiguous.items()
        for at in places[:EXAMPLES]
    )
    return result(
        ids[rows],
        f"{_describe_pairs(pairs, confusion_rates, classes)}: "
        f"{count_phrase(len(rows), 'row')} could be of either class",
        "Join the classes, or say in words what tells them apart and label the rows again.",
        score=float(in_pair.sum() / n),
        severity="info",
        count=int(in_pair.sum()),
        examples=examples,
    )


def _describe_pairs(
    pairs: list[tuple[int, int]], confusion_rates: Floats, classes: Sequence[str]
) -> str:
    """How often each class of the first pairs is taken for the other, and how many pairs follow."""
    shown = "; ".join(
        f"{confusion_rates[a, b]:.0%} of {classes[a]!r} are taken for {classes[b]!r} and "
        f"{confusion_rates[b, a]:.0%} the other way"
        for a, b in pairs[:PAIRS_SHOWN]
    )
    if len(pairs) <= PAIRS_SHOWN:
        return shown
    return f"{shown}; and {count_phrase(len(pairs) - PAIRS_SHOWN, 'more pair')}"
