"""Rows of the same text: one counts for several, and a random division puts them on two sides."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.pairs import EXAMPLES, LISTED, SERIOUS
from holdfast.quality.views import Copied, TableRows

# Groups of which the examples are chosen, and words from which on a text is more than an answer.
COMPARED, TELLING = 1000, 3


@check(
    Copied,
    cannot_see="Copies with another word in them (near_duplicates), and copies in other words.",
    error_rate="Exact: the texts are the same but for case, space and punctuation. Short "
    "answers such as 'yes' may repeat by right.",
)
def exact_duplicates(copied: Copied) -> CheckResult | None:
    """Lists the rows whose normal form (``duplicates/normalise.py``: without case, space and
    punctuation) another row of the table has too, the largest group first. Score: the rows that one
    of each text would make superfluous, as a share of all."""
    rows = copied.rows
    forms = copied.gathered.copies.exact[copied.gathered.span("source")]
    _, group, sizes = np.unique(forms, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(sizes[group] > 1)
    if not len(repeated):
        return None
    order = repeated[np.lexsort((repeated, group[repeated], -sizes[group[repeated]]))]
    texts, extra = int((sizes > 1).sum()), len(repeated) - int((sizes > 1).sum())
    share = extra / len(forms)
    contents = copied.gathered.copies.contents[copied.gathered.span("source")]
    to_the_letter = len(contents) - len(np.unique(contents))
    # The first two rows of groups, those that say more than a word or two first.
    first: dict[int, int] = {}
    second: dict[int, int] = {}
    for at in order.tolist():
        (second if group[at] in first else first).setdefault(int(group[at]), at)
    pairs = [(first[g], second[g]) for g in list(first)[:COMPARED] if g in second]
    shown = rows.table.take(np.array([at for at, _ in pairs], dtype=np.int64))
    said = dict(zip(pairs, TableRows(shown).texts, strict=True))
    pairs.sort(key=lambda pair: len(said[pair].split()) < TELLING)
    return result(
        rows.ids[order[:LISTED]],
        f"{counted(texts, 'text stands', 'texts stand')} in {len(repeated)} rows, but for case, "
        f"space and punctuation, so that {counted(extra, 'row repeats', 'rows repeat')} another, "
        f"{to_the_letter} of them to the letter",
        "Keep one row of each, or leave them: train puts copies on one side of its division. "
        f"A random division would not{copied.cost_of_division(forms)}.",
        score=share,
        severity="warn" if share >= SERIOUS else "info",
        count=len(repeated),
        examples=(
            CheckExample(int(rows.ids[one]), "the same text", int(rows.ids[other]))
            for one, other in pairs[:EXAMPLES]
        ),
    )
