"""Rows that are about something else than the table."""

from __future__ import annotations

import numpy as np

from holdfast.auditing.check import Check, Example, Found, add, anything
from holdfast.auditing.views import Embedded
from holdfast.copies.vectors import nearest
from holdfast.core.records import Finding, Floats
from holdfast.core.wording import counted

_LEAST_ROWS = 50
_NEIGHBOURS = 5
_FAR = 3.5
_FAR_ALONE = 2.0
_SHOWN = 10
_CUT = 60


def off_topic_rows(view: Embedded) -> Found | None:
    """Lists the rows that lie far from what the table is about: whose cosine with the mean of all
    rows is 3.5 robust deviations below the median (Iglewicz and Hoaglin 1993), or 2 of them where
    their five nearest rows are 3.5 deviations farther off than is usual. The deviation is 1.4826
    times the median absolute one. Under 50 rows it says nothing. Score: their share of the rows.

    The mean of all rows ranked planted rows of another kind best (areas 0.84 to 1.00 over 24
    plants in CR, MR, TREC and BANKING77), before Mahalanobis' distance with shrinkage (0.75 to
    1.00) and the nearest rows alone (0.11 to 1.00): planted rows are near one another.
    """
    if len(view.vectors) < _LEAST_ROWS:
        return None
    centre = view.vectors.mean(axis=0, dtype=np.float64)
    far = _deviations(-(view.vectors @ centre))
    lonely = _deviations(-nearest(view.vectors, _NEIGHBOURS).similarity.mean(axis=1))
    found = np.flatnonzero((far > _FAR) | ((far > _FAR_ALONE) & (lonely > _FAR)))
    if not len(found):
        return None
    found = found[np.argsort(-(far + np.maximum(lonely, 0))[found], kind="stable")]
    ids, texts = view.rows.ids, view.rows.texts
    shown = " ".join(texts[found[0]].split())
    cut = shown if len(shown) <= _CUT else f"{shown[: _CUT - 1]}…"
    return Found(
        Finding(
            "off_topic_rows",
            "info",
            len(found) / len(far),
            len(found),
            tuple(ids[found].tolist()),
            f"{counted(len(found), 'row')} lie far from what the others are about, in the space of "
            f"{view.encoder}, e.g. row {ids[found[0]]}: {cut!r}",
            "Read them: what does not belong here only blurs a class.",
        ),
        tuple(
            Example(int(ids[at]), f"{far[at]:.1f} deviations from the middle")
            for at in found[:_SHOWN].tolist()
        ),
    )


def _deviations(values: Floats) -> Floats:
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    # Most rows alike: then any other is no number of deviations away.
    return (values - middle) / spread if spread > 1e-6 else np.zeros_like(values)


add(
    Check(
        "off_topic_rows",
        Embedded,
        off_topic_rows,
        cannot_see="Odd rows in a table of many subjects: of planted Spanish, code, notes and "
        "novels it lists nearly all in BANKING77 and in medical talks, a third in MR and next to "
        "none in CR and TREC.",
        error_rate="Without a plant it lists 0 of 2,500 rows of CR, 4 of MR, 3 of TREC and 13 of "
        "BANKING77.",
        holds_for=anything,
    )
)
