"""Rows that are about something else than the table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats
from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.reference_texts import centre_distance, deviations, likeness
from holdfast.quality.single import excerpt
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
        f"{counted(len(found), 'row')} {what}, by the vectors of {view.encoder}, e.g. row "
        f"{ids[found[0]]}: {excerpt(texts[found[0]])}",
        remedy,
        score=len(found) / len(scores),
        severity="info",
        examples=(
            CheckExample(int(ids[at]), note.format(scores[at])) for at in found[:_SHOWN].tolist()
        ),
    )
