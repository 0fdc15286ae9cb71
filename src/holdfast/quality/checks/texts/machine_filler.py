"""Rows of fluent sentences that say nothing, as language models write them."""

from __future__ import annotations

from holdfast.quality.check import CheckResult, check
from holdfast.quality.checks.texts.off_topic import list_rows, nothing_to_compare
from holdfast.quality.reference_texts import likeness
from holdfast.quality.views import Embedded

_ODDS = 2.5


@check(
    Embedded,
    cannot_see="Machine-made texts that say something, and filler in other languages or in "
    "the middle of a longer text; tables that are filler themselves.",
    error_rate="Of 50 such sentences, none of which it knows, planted into 1,500 rows, three "
    "draws a set, it lists all in CR, TREC and BANKING77 and 97 % in MR; into 200 rows 89 to "
    "100 %. Without a plant it lists 0.4 % of the rows of CR, 1.6 % of MR, none of TREC and "
    "0.1 % of BANKING77.",
    nothing=nothing_to_compare,
)
def machine_filler(view: Embedded) -> CheckResult | None:
    """Lists the rows that read like filler of a language model ("plays a pivotal role in today's
    fast-paced world"): whose log-odds to be one of 50 such sentences and not a row of this table
    are 2.5 or more, were both as many. The probe that says so was fitted without the row, and
    without the 15 % of rows most like such sentences (``quality/reference_texts.py``). Under 50
    rows it says nothing. Score: their share of the rows.
    """
    if nothing_to_compare(view):
        return None
    references = view.references["filler"]
    first = view.probed @ (references.mean(axis=0) - view.probed.mean(axis=0))
    odds = likeness(view.probed, references, first, view.seed)
    return list_rows(
        view,
        odds,
        odds >= _ODDS,
        "read like filler that a language model writes",
        "Read them: sentences that would fit anywhere add little; look at where these rows come "
        "from.",
        "log-odds {:.1f}",
    )
