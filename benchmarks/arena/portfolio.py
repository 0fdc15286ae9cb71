"""Where a search could begin: a handful of settings that did well on sets of other people.

Learned on two sets and asked on the third, such a handful is no better than as many random ones,
and the one best setting of two sets is the default or, on the third, three points below it. So a
search begins with the default alone, which has been learned on more sets than these.
"""

from __future__ import annotations

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats


def greedy(gains: Floats, size: int) -> list[int]:
    """The places of at most ``size`` settings, the best to begin with first.

    ``gains`` [settings, sets] over the default, place 0. The default comes first; each next is the
    one that raises the mean over the sets of the best so far most, as long as one does: by chance
    alone the best of many would be raised, so that the gains must be of rows that are many.
    Raises ``Defect`` for a table without a setting or a set.
    """
    table = np.asarray(gains, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise Defect("the table of a portfolio", "needs settings and sets", table.shape)
    chosen, best = [0], table[0]
    while len(chosen) < size:
        raised = np.maximum(table, best).mean(axis=1)
        place = int(raised.argmax())
        if raised[place] <= best.mean():
            break
        chosen.append(place)
        best = np.maximum(best, table[place])
    return chosen
