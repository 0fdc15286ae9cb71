"""Rows that differ from another only in few words."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.views import Copied

SERIOUS = 0.01
EXAMPLES = 8
LISTED = 100


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
    gathered, ids = copied.gathered, copied.rows.ids
    span, pairs = gathered.span("source"), gathered.copies.near_pairs()
    # A pair names the first position of each text, and the source comes first.
    inside = (pairs.first < span.stop) & (pairs.second < span.stop)
    pairs = pairs.where(inside)
    if not len(pairs):
        return None
    order = np.lexsort((pairs.second, pairs.first, -pairs.similarity))
    forms = gathered.copies.exact[span]
    named = np.union1d(forms[pairs.first], forms[pairs.second])
    near = np.flatnonzero(np.isin(forms, named))
    ranked = dict.fromkeys(
        np.column_stack([pairs.first[order], pairs.second[order]]).ravel().tolist()
    )
    share = len(near) / len(forms)
    groups = gathered.copies.groups[span]
    price = copied.pricing.of_division(gathered, groups) if copied.pricing else None
    cost = f", and an accuracy measured on it would be too good by {price}" if price else ""
    examples = tuple(
        CheckExample(
            int(ids[pairs.first[n]]),
            f"similarity {pairs.similarity[n]:.2f}",
            int(ids[pairs.second[n]]),
        )
        for n in order[:EXAMPLES].tolist()
    )
    return result(
        ids[list(ranked)[:LISTED]],
        f"{counted(len(near), 'row differs', 'rows differ')} from another in at most one word in "
        f"eight ({counted(len(pairs), 'pair')} of texts)",
        "Look at the examples. train puts them on one side of its division; a random division "
        f"would not{cost}.",
        score=share,
        severity="warn" if share >= SERIOUS else "info",
        count=len(near),
        examples=examples,
    )
