"""Something beside the content that tells the label: a mark, an id, a form, a length."""

from __future__ import annotations

import numpy as np

from holdfast.quality.check import CheckExample, CheckResult, check, result, with_classes
from holdfast.quality.cue_explanation import Content
from holdfast.quality.cues import CueCandidate, candidates
from holdfast.quality.views import Embedded

MOST_ROWS = 20_000
# Of the cues that are asked about, the broadest first; each costs a second at most.
MOST_ASKED = 40
SHOWN = 4
SERIOUS = 0.5


@check(
    Embedded,
    cannot_see="A cue in less than a quarter of a class, one that two classes share or wrong "
    "labels blur, one that also looks like content; a word, of fewer than 500 rows or 20 that "
    "have it.",
    error_rate="Of 100 planted in 30 to 100 % of a class, of 27 kinds, 96 were found (25 of "
    "CR, 25 of MR, 24 of TREC, 22 of BANKING77). Nothing on these sets as they are, nor on 600 "
    "to 2,500 rows of TREC and BANKING77; with the names of BANKING77's classes hidden it took "
    "two words of their content for giveaways.",
    holds_for=with_classes,
)
def hidden_giveaway(view: Embedded) -> CheckResult | None:
    """Reports cues (``quality/cues.py``) that stand in at least a quarter of a class and, to 97 %,
    in no other, and that its content does not explain (``quality/cue_explanation.py``); and classes
    whose texts have an even number of characters far more, or less, often than the others'. An
    error where a cue gives away more than half of all rows. Score: the share of rows given away.
    """
    table, labels = view.rows.table, view.rows.labels
    texts = view.rows.texts
    if len(texts) > MOST_ROWS:
        every = -(-len(texts) // MOST_ROWS)
        labels = np.where(np.arange(len(texts)) % every == 0, labels, -1)
    content = Content(texts, view.vectors, labels, table.classes, view.embed, view.seed)
    asked = candidates(texts, labels, len(table.classes))[:MOST_ASKED]
    found = [one for one in asked if not content.explains(one)]
    if not found:
        return None
    rows = np.unique(np.concatenate([one.rows for one in found]))
    share = len(rows) / max(1, int((labels >= 0).sum()))
    shown = "; ".join(_shown(one, table.classes) for one in found[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    ids = view.rows.ids
    examples = tuple(
        CheckExample(int(ids[at]), f"{one.cue}: class {table.classes[one.label]!r}")
        for one in found
        for at in one.rows[:2]
    )
    return result(
        ids[rows],
        f"something beside the content tells the class: {shown}{more}",
        "A model would read it off and fail where it is missing: take it out of the texts, or "
        "write it into those of every class.",
        score=share,
        severity="error" if share > SERIOUS else "warn",
        examples=examples,
    )


def _shown(one: CueCandidate, classes: tuple[str, ...]) -> str:
    if one.cue.kind == "even":
        return f"{one.cue} in {one.share:.0%} of class {classes[one.label]!r}, unlike the others"
    return (
        f"{one.cue} in {one.count} of {one.count / one.share:.0f} texts of class "
        f"{classes[one.label]!r} and in {len(one.rows) - one.count} others"
    )
