"""The queue to label: a fifth drawn evenly, the rest where a label teaches most; while two models
are compared two fifths evenly of the rows that they answer differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats
from holdfast.plugins.labelling.design import design
from holdfast.plugins.labelling.even import SHARE
from holdfast.plugins.store.records import Drawn

Bools = npt.NDArray[np.bool_]

# Of each five the first is drawn evenly, and two for a comparison where there is one.
EVERY = round(1 / SHARE)
COMPARED = (1, 3)
EVENLY = "drawn evenly at random: only such rows say how right the model is"
DIFFER = "drawn evenly of the rows that the two compared models answer differently"
TEACHES = "the model is unsure of rows like this one, and few of them are labelled"
UNSURE = "the model is among the least sure of it"
ANY = "nothing tells rows apart yet, so it is any row"


@dataclass(frozen=True, slots=True, eq=False)
class LabelPool:
    """Rows that were answered [n]: their ``place`` in [0, 1) (``even.places``), which may be drawn
    evenly (``due``: not labelled by such a draw before) and which chosen (``free``: not labelled at
    all), which are ``known`` (labelled), how much the model doubts each (in [0, 1], NaN where it
    cannot tell), and its vectors [n, d] as ``doubt.scaled`` gives them, where there are any.
    ``unlike`` are rows set apart for a comparison that its two models answer differently; they are
    not ``free``."""

    place: Floats
    due: Bools
    free: Bools
    known: Bools
    doubt: Floats
    vectors: Floats | None = None
    unlike: Bools | None = None


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """The row at a position of the pool, how it was drawn, and why."""

    position: int
    drawn: Drawn
    reason: str


def next_rows(pool: LabelPool, n: int) -> tuple[DrawnRow, ...]:
    """Up to ``n`` rows to label, in order: of each five one evenly at random among those set apart
    for it, two in the same way among the ``unlike`` where there are any, and the others by what
    their labels teach (``design``). Without vectors these are those of the
    most doubt; without doubt too, any. Where one kind runs out, the other goes on.
    """
    apart = pool.place < SHARE
    order = np.argsort(pool.place)
    evenly = [int(at) for at in order if apart[at] and pool.due[at]]
    share = -(-n // EVERY)
    compared = [] if pool.unlike is None else [int(at) for at in order if pool.unlike[at]]
    chosen = _chosen(pool, pool.free & ~apart, n - min(share, len(evenly)))
    items: list[DrawnRow] = []
    while len(items) < n and (evenly or compared or chosen):
        turn = len(items) % EVERY
        others = compared or chosen
        if evenly and (turn == 0 or not others):
            items.append(DrawnRow(evenly.pop(0), "uniform", EVENLY))
        elif compared and (turn in COMPARED or not chosen):
            items.append(DrawnRow(compared.pop(0), "unlike", DIFFER))
        else:
            items.append(chosen.pop(0))
    return tuple(items)


def _chosen(pool: LabelPool, free: Bools, n: int) -> list[DrawnRow]:
    told = np.isfinite(pool.doubt)
    doubt = np.where(told, pool.doubt, 1.0)
    if pool.vectors is not None:
        found, _ = design(pool.vectors, doubt, pool.known, free, n)
        return [DrawnRow(int(at), "chosen", TEACHES) for at in found]
    # Ties in the order of the places, which is any.
    order = np.lexsort((pool.place, -doubt))
    reason = UNSURE if told.any() else ANY
    return [DrawnRow(int(at), "chosen", reason) for at in order if free[at]][:n]
