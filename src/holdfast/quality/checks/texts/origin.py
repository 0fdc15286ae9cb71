"""Rows that are no part of the table: of another subject, of a machine that says nothing."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats
from holdfast.core.wording import count_phrase
from holdfast.data.texts.general import ASSISTANT_PHRASES
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.reference_texts import centre_distance, deviations, likeness
from holdfast.quality.single import around, excerpt, text_check
from holdfast.quality.views import Embedded

Bools = npt.NDArray[np.bool_]
LEAST_ROWS = 50
_FAR = 4.0
_SHOWN = 10


def nothing_to_compare(view: Embedded) -> str:
    """Why rows cannot be compared with texts of a known sort."""
    if len(view.vectors) < LEAST_ROWS:
        return f"under {LEAST_ROWS} rows"
    return "" if view.references else "no other sentences were read by the model"


@check(
    Embedded,
    cannot_see="Rows of another subject in the words and form of the table; most, where they "
    "are more than 15 % of it; rows that are more like the table than they look.",
    error_rate="Of 50 sentences of other subjects planted into 1,500 rows, three draws a set, "
    "it lists 94 % in CR, 95 % in MR, 87 % in TREC and 96 % in BANKING77; into 200 rows 80 to "
    "96 %. Without a plant it lists 1.7 % of the rows of CR, 2.4 % of MR, 1.2 % of TREC and "
    "1.6 % of BANKING77.",
    nothing=nothing_to_compare,
)
def off_topic_rows(view: Embedded) -> CheckResult | None:
    """Lists the rows that lie far from what the table is about: which a probe finds more like
    sentences of many other subjects than like the table (``quality/reference_texts.py``), and of
    which two scores, in robust deviations above their medians, sum to 4 or more: the distance from
    the mean of the rows, and the probe's log-odds. The 15 % farthest rows teach neither. Under 50
    rows it says nothing. Score: their share of the rows.

    Far from the mean alone, at 3.5 deviations, found a third of such rows in MR and next to none in
    CR and TREC.
    """
    if nothing_to_compare(view):
        return None
    far = deviations(centre_distance(view.vectors))
    other = likeness(view.probed, view.references["general"], far, view.seed)
    odd = far + deviations(other)
    return list_rows(
        view,
        odd,
        (odd >= _FAR) & (other >= 0),
        "lie far from what the others are about",
        "Read them: take out those that do not belong to your task.",
        "{:.1f} deviations from the others",
    )


def list_rows(
    view: Embedded, scores: Floats, chosen: Bools, what: str, remedy: str, note: str
) -> CheckResult | None:
    """The result of a check that lists the ``chosen`` [n] rows, highest ``scores`` [n]
    first; ``what`` is said of them, ``note`` is the form of a score. ``None`` where none is."""
    found = np.flatnonzero(chosen)
    if not len(found):
        return None
    found = found[np.argsort(-scores[found], kind="stable")]
    ids, texts = view.rows.ids, view.rows.texts
    return result(
        ids[found],
        f"{count_phrase(len(found), 'row')} {what}, by the vectors of {view.encoder}, e.g. row "
        f"{ids[found[0]]}: {excerpt(texts[found[0]])}",
        remedy,
        score=len(found) / len(scores),
        severity="info",
        examples=(
            CheckExample(int(ids[at]), note.format(scores[at])) for at in found[:_SHOWN].tolist()
        ),
    )


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


# Nothing else is said of machine-made texts: what tells them apart in one collection fails in the
# next, and an accusation that is wrong costs more than one that is missing.
_PHRASES = re.compile(ASSISTANT_PHRASES)


@text_check(
    "words that a language model says of itself, or left to be filled in",
    "They were made by a machine: if rows should be people's, look at where these come from, "
    "and leave them out (`treat.rows`).",
    pattern=ASSISTANT_PHRASES,
    cannot_see="All other machine-made texts, which are nearly all of them.",
    error_rate="Of 3,283 texts made by machines it finds 49 (1.5 %), in essays alone; of "
    "2,128 by people none, and of 48,000 others three, letters with gaps that were asked for.",
)
def model_phrases(text: str) -> str | None:
    """Lists the rows with what only a language model says (``as an AI language model``), marks of
    chat templates, or a gap to be filled in (``[Your Name]``). Score: their share of the rows."""
    match = _PHRASES.search(text)
    return around(text, *match.span()) if match else None
