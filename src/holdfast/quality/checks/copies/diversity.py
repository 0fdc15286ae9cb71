"""Rows that say little beside one another, though there are many."""

from __future__ import annotations

from holdfast.core.wording import counted
from holdfast.quality.check import CheckResult, check, result
from holdfast.quality.diversity import effective_rows, vocabulary_growth
from holdfast.quality.views import Embedded

_LEAST_ROWS = 100
_FEW = 15.0
_LEAST_WORDS = 2000
_GROWTH = 0.2


@check(
    Embedded,
    cannot_see="Whether the world that the rows come from is as narrow as they are.",
    error_rate="Silent on CR, MR, TREC and BANKING77, whole and in samples of 100 rows (43 to "
    "194 rows, growth 0.35 to 0.88), and on samples of news, novels, code and medical talks.",
)
def low_diversity(view: Embedded) -> CheckResult | None:
    """Reports a table of 100 rows or more whose rows say as much as fewer than 15 that have nothing
    in common (the Vendi score of the vectors): rows made from a few forms. It adds how many words
    the second half of the rows brings that the first has not, where they are few (exponent of
    Heaps' law below 0.2, over 2,000 words or more): a small vocabulary alone is no fault. Score:
    how far below the limit the rows are."""
    n = len(view.rows.table)
    effective = effective_rows(view.vectors) if n >= _LEAST_ROWS else _FEW
    if effective >= _FEW:
        return None
    growth, words = vocabulary_growth(view.rows.texts, view.seed)
    few = ""
    if words >= _LEAST_WORDS and growth < _GROWTH:
        more = 100 * (2**growth - 1)
        few = f", and the second half of them brings {more:.0f} % more words than the first"
    return result(
        (),
        f"{counted(n, 'row')} say as much as {effective:.0f} that have nothing in common{few}",
        "Gather rows from more places or people: more of the same teaches little, and a test on "
        "the same forms promises too much.",
        score=1 - effective / _FEW,
        severity="info",
        count=n,
    )
