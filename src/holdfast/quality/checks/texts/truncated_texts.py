"""Texts that are longer than what the model reads: their end is never seen."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_texts
from holdfast.quality.views import Tokenized

_MANY = 0.05


@check(
    Tokenized,
    cannot_see="Whether the part that is cut matters.",
    error_rate="Counts of the model's own tokens: never wrong about them.",
    holds_for=with_texts,
)
def truncated_texts(view: Tokenized) -> CheckResult | None:
    """Says how many texts have more tokens than the model's limit, and which share of all tokens is
    cut; a warning from one row in twenty on. Score: the share of the rows."""
    over = np.flatnonzero(view.lengths > view.limit)
    if not len(over):
        return None
    order = over[np.argsort(-view.lengths[over], kind="stable")]
    cut = float((view.lengths[over] - view.limit).sum() / view.lengths.sum())
    ids = view.rows.ids
    share = len(over) / len(view.lengths)
    notes = (CheckExample(int(ids[at]), f"{view.lengths[at]} tokens") for at in order[:20])
    return result(
        ids[order[:100]],
        f"{counted(len(over), 'text')} ({share:.1%}) are longer than the {view.limit} tokens that "
        f"{view.model} reads: {cut:.1%} of all tokens are cut, of the longest text "
        f"{view.lengths[order[0]] - view.limit} of {view.lengths[order[0]]}",
        "If what matters stands at the end, read more (model.max_length), take a model that does, "
        "or shorten the texts.",
        score=share,
        severity="warn" if share >= _MANY else "info",
        count=len(over),
        examples=tuple(notes),
    )
