"""Rows that differ from another only in few words, and those of them with another label: one of the
two is likely to be wrong."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckResult, check, result, with_classes
from holdfast.quality.pairs import (
    EXAMPLES,
    LISTED,
    SERIOUS,
    differently_labelled,
    examples_of,
    most_alike_first,
    ranked_rows,
)
from holdfast.quality.views import Copied


@check(
    Copied,
    cannot_see="Which of the two labels is wrong, and conflicts between texts of which more "
    "than one word in eight differs.",
    error_rate="Of BANKING77's 8 pairs 2 have a label that is wrong by our reading; in the "
    "others the differing word decides (a card, a transfer), and both are right.",
    holds_for=with_classes,
)
def conflicting_near_duplicates(copied: Copied) -> CheckResult | None:
    """Lists the rows of verified near-copies whose labels differ, the most alike first; texts that
    are the same but for case, space and punctuation are ``conflicting_labels``. Score: the share of
    the labelled rows."""
    rows, ids, labels = copied.rows, copied.rows.ids, copied.rows.labels
    pairs = differently_labelled(_near_pairs(copied), labels)
    if not len(pairs):
        return None
    named, classes = ranked_rows(pairs), rows.table.classes
    a, b = pairs.first[0], pairs.second[0]
    return result(
        ids[named[:LISTED]],
        f"{counted(len(pairs), 'pair')} of texts that differ in few words "
        f"{'has' if len(pairs) == 1 else 'have'} different labels, e.g. row {ids[a]} "
        f"{classes[labels[a]]!r}, row {ids[b]} {classes[labels[b]]!r}",
        "Read both: correct the label that is wrong, and leave what the differing word decides.",
        score=len(named) / max(1, int((labels >= 0).sum())),
        # The same words in another order seldom mean another class.
        severity="warn" if pairs.similarity.max() >= 1 else "info",
        count=len(named),
        examples=examples_of(pairs, ids, ids, "nearly the same text, another label", most=EXAMPLES),
    )


@check(
    Copied,
    cannot_see="Copies with more than one word in eight changed, texts of fewer than five "
    "words, and the same said in other words (semantic_duplicates).",
    error_rate="Every pair is verified word by word. Rows made from one template with one "
    "word of each replaced may be meant so.",
)
def near_duplicates(copied: Copied) -> CheckResult | None:
    """Lists the rows that are verified near-copies of another row of the table (the rule of
    ``duplicates/criterion.py``: at most one word in eight differs), the most alike first. Score:
    the share of the rows that are."""
    pairs, ids = _near_pairs(copied), copied.rows.ids
    if not len(pairs):
        return None
    span, copies = copied.gathered.span("source"), copied.gathered.copies
    forms = copies.exact[span]
    named = np.union1d(forms[pairs.first], forms[pairs.second])
    near = int(np.isin(forms, named).sum())
    share = near / len(forms)
    return result(
        ids[ranked_rows(pairs)[:LISTED]],
        f"{counted(near, 'row differs', 'rows differ')} from another in at most one word in "
        f"eight ({counted(len(pairs), 'pair')} of texts)",
        "Look at the examples. train puts them on one side of its division; a random division "
        f"would not{copied.cost_of_division(copies.groups[span])}.",
        score=share,
        severity="warn" if share >= SERIOUS else "info",
        count=near,
        examples=examples_of(pairs, ids, ids, "similarity {:.2f}", most=EXAMPLES),
    )


def _near_pairs(copied: Copied) -> SimilarPairs:
    """The near-copies within the table, the most alike first."""
    stop, pairs = copied.gathered.span("source").stop, copied.gathered.copies.near_pairs()
    # A pair names the first position of each text, and the source comes first.
    return most_alike_first(pairs.where((pairs.first < stop) & (pairs.second < stop)))
