"""Answers to be learned that break off within a sentence: the model learns to stop there."""

from __future__ import annotations

import re

import numpy as np

from holdfast.data.texts.phrases import OPEN
from holdfast.quality.check import CheckResult, check
from holdfast.quality.checks.texts.refusals import answers, with_answers
from holdfast.quality.single import single_finding
from holdfast.quality.views import TableRows

_PROSE = re.compile(r"[.!?][\"')\]\u201d\u2019]*\s+\S")
_ENDED = re.compile(r"[.!?\u2026\u3002:;)\]}>\"'\u201d\u2019*`|]\s*\Z")
_LEAST_ROWS, _USUAL, _LONG = 50, 0.8, 0.5


@check(
    TableRows,
    cannot_see="Answers that break off after a noun or at the end of a sentence, code, lists.",
    error_rate="SAMSum's 12,000 summaries: two named, both end on a comma; 4,210 answers to "
    "instructions: none.",
    holds_for=with_answers,
)
def cut_answers(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose answer is prose of two sentences and more, longer than half of the
    others, and ends on a comma or on a word that no sentence ends with, where eight in ten such
    answers end with a mark. Fewer than 50 such answers: silent. Score: their share of the rows."""
    prose = [(position, text) for position, text in answers(rows) if _PROSE.search(text)]
    if len(prose) < _LEAST_ROWS:
        return None
    ended = [bool(_ENDED.search(text[-20:])) for _, text in prose]
    if np.mean(ended) < _USUAL:
        return None
    long = np.quantile([len(text) for _, text in prose], _LONG)
    found = {
        position: f"…{text[-60:]!r}"
        for (position, text), whole in zip(prose, ended, strict=True)
        if not whole and len(text) >= long and OPEN.search(text[-20:])
    }
    return single_finding(
        rows,
        list(found.items()),
        "an answer that breaks off in a sentence",
        "Complete them or leave them out: `treat.rows`.",
    )
