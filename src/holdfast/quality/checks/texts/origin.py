"""Rows that are no part of the table: of another subject, of a machine that says nothing."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats
from holdfast.core.wording import count_phrase
from holdfast.data.texts.general import ASSISTANT_PHRASES
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.reference_texts import centre_distance, reference_log_odds, robust_deviations
from holdfast.quality.single import excerpt, excerpt_around, text_check
from holdfast.quality.views import Embedded

Bools = npt.NDArray[np.bool_]
LEAST_ROWS = 50
_MIN_DEVIATION = 4.0
_SHOWN = 10


def needs_references(view: Embedded) -> str:
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
    skip_reason=needs_references,
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
    if needs_references(view):
        return None
    centre_deviation = robust_deviations(centre_distance(view.vectors))
    log_odds = reference_log_odds(
        view.probe_features, view.references["general"], centre_deviation, view.seed
    )
    deviation = centre_deviation + robust_deviations(log_odds)
    return list_rows(
        view,
        deviation,
        (deviation >= _MIN_DEVIATION) & (log_odds >= 0),
        "lie far from what the others are about",
        "Read them: take out those that do not belong to your task.",
        "{:.1f} deviations from the others",
    )


def list_rows(
    view: Embedded, scores: Floats, selected: Bools, condition: str, remedy: str, note: str
) -> CheckResult | None:
    """The result of a check that lists the ``selected`` [n] rows, highest ``scores`` [n] first;
    ``condition`` describes them, ``note`` is the format of a score. ``None`` without any row."""
    positions = np.flatnonzero(selected)
    if not len(positions):
        return None
    positions = positions[np.argsort(-scores[positions], kind="stable")]
    ids, texts = view.rows.ids, view.rows.texts
    return result(
        ids[positions],
        f"{count_phrase(len(positions), 'row')} {condition}, by the vectors of "
        f"{view.encoder}, e.g. row "
        f"{ids[positions[0]]}: {excerpt(texts[positions[0]])}",
        remedy,
        score=len(positions) / len(scores),
        severity="info",
        examples=(
            CheckExample(int(ids[at]), note.format(scores[at]))
            for at in positions[:_SHOWN].tolist()
        ),
    )


_MIN_LOG_ODDS = 2.5


@check(
    Embedded,
    cannot_see="Machine-made texts that say something, and filler in other languages or in "
    "the middle of a longer text; tables that are filler themselves.",
    error_rate="Of 50 such sentences, none of which it knows, planted into 1,500 rows, three "
    "draws a set, it lists all in CR, TREC and BANKING77 and 97 % in MR; into 200 rows 89 to "
    "100 %. Without a plant it lists 0.4 % of the rows of CR, 1.6 % of MR, none of TREC and "
    "0.1 % of BANKING77.",
    skip_reason=needs_references,
)
def machine_filler(view: Embedded) -> CheckResult | None:
    """Lists the rows that read like filler of a language model ("plays a pivotal role in today's
    fast-paced world"): whose log-odds to be one of 50 such sentences and not a row of this table
    are 2.5 or more, were both as many. The probe that says so was fitted without the row, and
    without the 15 % of rows most like such sentences (``quality/reference_texts.py``). Under 50
    rows it says nothing. Score: their share of the rows.
    """
    if needs_references(view):
        return None
    references = view.references["filler"]
    first_score = view.probe_features @ (references.mean(axis=0) - view.probe_features.mean(axis=0))
    odds = reference_log_odds(view.probe_features, references, first_score, view.seed)
    return list_rows(
        view,
        odds,
        odds >= _MIN_LOG_ODDS,
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
    return excerpt_around(text, *match.span()) if match else None
