"""One class written in several ways: ``Yes``, ``yes `` and ``YES`` become what most rows say.

The reader of rows does so by itself (``data/labels/spelling.py``); this writes it into a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from holdfast.core.decisions import decisions_to
from holdfast.data.labels.spelling import merge_spellings
from holdfast.quality.clean.treatment import Edit, NoSettings, RowSet, TableTreatment, add


def unified(side: RowSet, settings: NoSettings | None = None) -> Sequence[Edit]:
    """Every label that differs from its class's most frequent spelling in case or space alone."""
    if side.label is None:
        return ()
    labels = side.columns[side.label]
    with decisions_to(None):
        spelled = merge_spellings(Counter(one for one in labels if one and one.strip()))
    return [
        Edit(n, side.label, spelled[one], f"is written {spelled[one]!r} in most rows")
        for n, one in enumerate(labels)
        if one is not None and spelled.get(one, one) != one
    ]


add(TableTreatment("labels", NoSettings, unified, order=70))
