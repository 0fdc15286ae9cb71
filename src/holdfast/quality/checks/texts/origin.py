"""Rows that do not belong in the table: off-topic rows and machine-made filler."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.texts.general import ASSISTANT_PHRASES
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.reference_texts import centre_distance, reference_log_odds, robust_deviations
from holdfast.quality.single import excerpt, excerpt_around, text_check
from holdfast.quality.views import Embedded

Bools = npt.NDArray[np.bool_]
LEAST_ROWS = 50
_MIN_DEVIATION = 4.0
# Shares of rows that the checks list in MR, where none was planted: the largest of four data sets
# with 200 and with 1,500 rows (benchmarks/results/labels.md).
CLEAN_OFF_TOPIC, CLEAN_FILLER = 0.04, 0.016
_SHOWN = 10


def needs_references(view: Embedded) -> str:
    """Why rows cannot be compared with reference texts; empty if they can."""
    if len(view.vectors) < LEAST_ROWS:
        return f"fewer than {LEAST_ROWS} rows"
    return "" if view.references else "the model has read no reference texts"


@check(
    Embedded,
    cannot_see="Off-topic rows in the words and form of the table, and off-topic rows that the "
    "model finds similar to it. If more than 15 % of the rows are off-topic, it misses most.",
    error_rate="Of 50 sentences on other subjects planted in 1,500 rows, three draws per data set, "
    "it lists 94 % in CR, 95 % in MR, 87 % in TREC and 96 % in BANKING77; in 200 rows 80 to "
    "96 %. Without planted sentences it lists 1.7 % of the rows of CR, 2.4 % of MR, 1.2 % of TREC "
    "and 1.6 % of BANKING77.",
    skip_reason=needs_references,
)
def off_topic_rows(view: Embedded) -> CheckResult | None:
    """Lists off-topic rows. A linear probe must find the row more similar to sentences on many
    other subjects than to the table (``quality/reference_texts.py``). And two scores, in robust
    standard deviations above their medians, must sum to 4 or more: the distance from the mean of
    the rows, and the probe's log-odds. The 15 % most distant rows are used for neither the mean
    nor the probe. It needs 50 rows. Score: their share of the rows.

    The distance from the mean by itself, at 3.5 deviations, found a third of such rows in MR and
    hardly any in CR and TREC.
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
        "possibly off-topic",
        CLEAN_OFF_TOPIC,
        "Read them and remove the rows that do not belong to your task.",
        "{:.1f} robust standard deviations",
    )


def list_rows(
    view: Embedded,
    scores: Floats,
    selected: Bools,
    condition: str,
    clean_share: float,
    remedy: str,
    note: str,
) -> CheckResult | None:
    """The result of a check that lists the ``selected`` [n] rows, highest ``scores`` [n] first;
    ``condition`` follows "are", ``clean_share`` is the largest share of rows listed in a table
    without such rows, ``note`` the format of a score. ``None`` without any row."""
    positions = np.flatnonzero(selected)
    if not len(positions):
        return None
    positions = positions[np.argsort(-scores[positions], kind="stable")]
    ids, texts = view.rows.ids, view.rows.texts
    expected = round(clean_share * len(scores))
    return result(
        ids[positions],
        f"{count_phrase(len(positions), 'row is', 'rows are')} {condition}, according to the "
        f"vectors of {view.encoder}, e.g. row {ids[positions[0]]}: "
        f"{excerpt(texts[positions[0]])}. In data sets without such rows this check listed up to "
        f"{percent_phrase(clean_share, 1)} of the rows; here that would be {expected:,} of "
        f"{len(scores):,}",
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
    cannot_see="Machine-made texts with real content, filler in other languages or in the middle "
    "of a longer text, and tables that consist of filler.",
    error_rate="Of 50 filler sentences that are not its references, planted in 1,500 rows, three "
    "draws per data set, it lists all in CR, TREC and BANKING77 and 97 % in MR; in 200 rows 89 to "
    "100 %. Without planted sentences it lists 0.4 % of the rows of CR, 1.6 % of MR, none of TREC "
    "and 0.1 % of BANKING77.",
    skip_reason=needs_references,
)
def machine_filler(view: Embedded) -> CheckResult | None:
    """Lists the rows that read like filler of a language model ("plays a pivotal role in today's
    fast-paced world"). Their log-odds, at equal priors, of being one of 50 such sentences rather
    than a row of this table are 2.5 or more. The linear probe is fitted without the row, and
    without the 15 % of rows most similar to such sentences (``quality/reference_texts.py``). It
    needs 50 rows. Score: their share of the rows.
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
        "possibly filler written by a language model",
        CLEAN_FILLER,
        "Read them and check their source: sentences that fit any context teach little.",
        "log-odds {:.1f}",
    )


# No other check detects machine-made texts: what identifies them in one collection fails in the
# next, and a false positive costs more than a miss.
_PHRASES = re.compile(ASSISTANT_PHRASES)


@text_check(
    "phrases of a language model about itself, chat-template marks, or an unfilled placeholder",
    "A language model wrote these rows. If people should have written them, check their source and "
    "remove them (`clean.rows`).",
    pattern=ASSISTANT_PHRASES,
    cannot_see="Almost all machine-made texts: most contain none of these phrases.",
    error_rate="It finds 49 of 3,283 machine-made texts (1.5 %), all of them essays. It reports "
    "none of 2,128 texts by people, and three of 48,000 other texts: letters whose placeholders "
    "were requested.",
)
def model_phrases(text: str) -> str | None:
    """Lists the rows with phrases that only language models use (``as an AI language model``),
    marks of chat templates, or unfilled placeholders (``[Your Name]``). Score: their share of the
    rows."""
    match = _PHRASES.search(text)
    return excerpt_around(text, *match.span()) if match else None
