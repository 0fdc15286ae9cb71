"""Doubtful labels: conflicting labels of equal texts, contradicted labels, overlapping classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from holdfast.core.records import Floats, Severity
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.images.table import image_name
from holdfast.data.table import Table
from holdfast.duplicates.normalise import content_keys
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, result
from holdfast.quality.label_ranking import LabelRanking
from holdfast.quality.views import Embedded, TableRows, normalize_pair, text_batches


@check(
    TableRows,
    cannot_see="Conflicts between texts that differ by more than case, space and punctuation.",
    error_rate="Exact: the texts are equal. It cannot tell which label is wrong.",
    applies_to=has_classes,
)
def conflicting_labels(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose text also occurs with another label (ignoring case, space and
    punctuation). Exact: hashes only select the candidates. Score: their share of the labelled
    rows."""
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
    # Of each label its first row, before more rows of one.
    seen = {labels[p]: p for p in reversed(first)}
    first.sort(key=lambda p: seen[labels[p]] != p)
    shown = [f"row {ids[p]}" for p in first[:4]]
    if table.has_images:
        shown = [image_name(path, table.source) for path in table.take(first[:4]).column("path")]
    of_rows = zip(shown, first, strict=False)
    example = ", ".join(f"{name} {table.classes[labels[p]]!r}" for name, p in of_rows)
    plural = "s have" if len(groups) > 1 else " has"
    return result(
        ids[positions],
        f"{len(groups)} {rows.noun}{plural} different labels in {len(positions)} rows, e.g. "
        f"{example}",
        "Correct the labels of these rows, or remove the doubtful rows.",
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
    # A hash has several labels if its lowest and its highest label differ: two passes, no groups.
    lowest = np.full(len(labelled), len(table.classes), dtype=np.int64)
    highest = np.full(len(labelled), -1, dtype=np.int64)
    np.minimum.at(lowest, group, labels[labelled])
    np.maximum.at(highest, group, labels[labelled])
    return np.asarray(labelled[(lowest != highest)[group]])


SHOWN = 12
SHOWN_ROWS = 8
# If labels are contradicted no more often than uncertainty explains, at most this many rows are
# listed, each with a score of at least this.
MAX_LISTED_BELOW_CHANCE, MIN_SCORE_BELOW_CHANCE = 3, 0.95
# The label has a probability below 0.1 given the other rows, another class above 0.5.
MIN_SCORE, MIN_OTHER_PROBABILITY = 0.9, 0.5
MIN_LAPSE_RATE = 0.005


@check(
    Embedded,
    cannot_see="Consistently wrong labels, and wrong labels of rows that resemble no other row.",
    error_rate="With 10 % of the labels of 1,600 rows replaced, the average precision is 0.96 on "
    "BANKING77, 0.89 on TREC, 0.68 on CR and 0.45 on MR. On BANKING77 and TREC the estimated share "
    "of wrong labels was within 4 points of the truth (8 points with 5 % replaced). On CR and MR "
    "the check states no share. Of 400 rows with three classes or more (ten sets, two draws each), "
    "more than three rows were listed in 2 of 20 draws with labels as they are, in 20 with 10 % "
    "replaced at random (74 % of the listed labels were wrong) and in 18 with 10 % confused with a "
    "similar class (72 %). With two classes, confused labels were never listed.",
    applies_to=has_classes,
)
def label_problems(view: Embedded) -> CheckResult | None:
    """Lists the rows whose label has an out-of-fold probability below 0.1 while another class has
    more than 0.5. If the data allow an estimate (``rank_labels``), it states the share of these
    labels that are wrong, and the finding is a warning. Otherwise it only ranks rows; if mistakes
    between certain classes are shown (Vuong's test), only those whose most probable class is not
    their label. If labels are contradicted no more often than uncertainty explains (the 90 %
    interval of the share of wrong labels reaches below 0.5 %, and no such mistakes are shown), it
    lists at most three rows with a probability below 0.05. Score: the estimated share of wrong
    labels."""
    ranking = view.label_ranking
    if view.fold_predictions is None or ranking is None:
        return None
    top_probability = np.exp(view.fold_predictions.log_p[ranking.order].max(axis=1))
    by_classes = ranking.wrong is None and ranking.mistakes.is_shown
    above_chance = ranking.lapse.low >= MIN_LAPSE_RATE or by_classes
    min_score = MIN_SCORE if above_chance else MIN_SCORE_BELOW_CHANCE
    is_doubtful = (
        ranking.mistakes.contradicted
        if by_classes
        else (ranking.score >= min_score)
        & (top_probability >= MIN_OTHER_PROBABILITY)
        & (ranking.suggested != ranking.given)
    )
    doubtful = np.flatnonzero(is_doubtful)
    if not len(doubtful):
        return None
    doubtful = doubtful if above_chance else doubtful[:MAX_LISTED_BELOW_CHANCE]
    ids, classes = view.rows.ids, view.rows.table.classes
    examples = [
        CheckExample(
            int(ids[ranking.order[at]]),
            f"given the other rows, its label {classes[ranking.given[at]]!r} has a probability of "
            f"{1 - ranking.score[at]:.2g}, {classes[ranking.suggested[at]]!r} one of "
            f"{top_probability[at]:.2g}",
        )
        for at in doubtful[:SHOWN]
    ]
    severity, because = _describe_contradicted(
        ranking, examples, len(doubtful) if above_chance else None
    )
    return result(
        ids[ranking.order[doubtful]],
        because,
        "Review these rows in the given order and correct wrong labels. label_issues in the output "
        "of --json ranks all rows. Holdfast changes no label.",
        score=ranking.mistakes.share if by_classes else ranking.lapse.rate,
        severity=severity,
        examples=examples,
    )


def _describe_contradicted(
    ranking: LabelRanking, examples: list[CheckExample], count: int | None
) -> tuple[Severity, str]:
    """The severity and sentence for ``count`` contradicted labels; ``None`` if uncertainty explains
    as many."""
    if count is None:
        rows = "; ".join(f"row {one.row}: {one.note}" for one in examples)
        return "info", (
            f"of {count_phrase(len(ranking.order), 'label')} these are the most likely to be wrong "
            f"({rows}). The other rows contradict no more labels than uncertainty explains, so all "
            "labels may be correct"
        )
    shown = [str(one.row) for one in examples[:SHOWN_ROWS]]
    rows = ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")
    because = (
        f"the other rows contradict the label of {count_phrase(count, 'row')} (the most doubtful "
        f"first: {rows})"
    )
    precision, lapse = ranking.precision(count), ranking.lapse
    if precision is None and ranking.mistakes.is_shown:
        return "info", (
            f"{because}. Uncertainty does not explain these contradictions (Vuong's test, z = "
            f"{ranking.mistakes.evidence:.1f}): labels are wrong, or annotators confuse some "
            "classes. Holdfast states no share of wrong labels, since hard rows may be among them"
        )
    if precision is None:
        return "info", (
            f"{because}. This is only a ranking: the data cannot separate wrong labels from hard "
            "rows, so Holdfast states no share of wrong labels"
        )
    return "warn", (
        f"{because}; an estimated {percent_phrase(precision)} of these labels are wrong, and "
        f"{percent_phrase(lapse.rate, 1)} of all labels (90 % interval "
        f"{percent_phrase(lapse.low, 1)}–{percent_phrase(lapse.high, 1)})"
    )


LEAST_ROWS = 10
# Least share of each class's rows that is predicted as the other class.
MIN_CONFUSION = 0.3
MIN_AMBIGUOUS_PROBABILITY, PAIRS_SHOWN, EXAMPLES = 0.3, 4, 6


@check(
    Embedded,
    cannot_see="Tables with only two classes, and rows that only a fine-tuned model can separate.",
    error_rate="Reports nothing on 2,000 rows of TREC and of BANKING77.",
    applies_to=has_classes,
)
def overlapping_classes(view: Embedded) -> CheckResult | None:
    """Reports pairs of overlapping classes: out-of-fold models predict at least 30 % of each class
    as the other. It needs three classes or more, and 10 rows in each class of a pair. It lists the
    ambiguous rows: both classes have a probability of 30 % or more in every repeat. Score: the
    share of all rows that are in such a pair of classes."""
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
    # For each pair the rows that are ambiguous in every repeat.
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
        "Merge the classes, or define what distinguishes them and label the rows again.",
        score=float(in_pair.sum() / n),
        severity="info",
        count=int(in_pair.sum()),
        examples=examples,
    )


def _describe_pairs(
    pairs: list[tuple[int, int]], confusion_rates: Floats, classes: Sequence[str]
) -> str:
    """How often each class of the first pairs is predicted as the other, and how many pairs are
    not shown."""
    shown = "; ".join(
        f"{percent_phrase(confusion_rates[a, b])} of {classes[a]!r} are predicted as "
        f"{classes[b]!r} and "
        f"{percent_phrase(confusion_rates[b, a])} vice versa"
        for a, b in pairs[:PAIRS_SHOWN]
    )
    if len(pairs) <= PAIRS_SHOWN:
        return shown
    return f"{shown}; and {count_phrase(len(pairs) - PAIRS_SHOWN, 'more pair')}"
