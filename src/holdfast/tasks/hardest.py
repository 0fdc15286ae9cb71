"""Hardest rows: the rows with the highest loss, and the wrong predictions with high confidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints, Outputs

SHOWN = 20
Entries = dict[str, list[dict[str, Any]]]


def hardest_rows(
    rows: Ints,
    losses: Floats,
    confidence: tuple[Floats, npt.NDArray[np.bool_]] | None,
    entry: Callable[[int], Mapping[str, object]],
    count: int = SHOWN,
) -> Entries:
    """``{"loss": […], "confidently_wrong": […]}``, at most ``count`` rows each, worst first.

    ``loss``: the largest ``losses`` [n], correct or wrong. ``confidently_wrong``: the wrong rows by
    confidence, both in ``confidence`` [n]; empty without it. Ties go to the lower source row. Each
    entry has its ``row`` (source position) and what ``entry`` returns for the row at a place.
    """
    places = {"loss": np.lexsort((rows, -losses))[:count], "confidently_wrong": rows[:0]}
    if confidence is not None:
        order = np.lexsort((rows, -confidence[0]))
        places["confidently_wrong"] = order[confidence[1][order]][:count]
    return {
        name: [{"row": int(rows[i]), **entry(int(i))} for i in positions]
        for name, positions in places.items()
    }


def hardest(
    outputs: Outputs, texts: Sequence[str], classes: tuple[str, ...], *, count: int = SHOWN
) -> Entries:
    """The hardest rows of a classifier.

    A loss that is not finite comes first; wrong rows are sorted by the probability of the wrong
    prediction. Each entry has ``text``, ``label``, ``prediction``, ``confidence`` and ``loss`` in
    nats; ``texts`` [n] is in the order of ``outputs``.
    """
    if not len(outputs.labels):
        return {"loss": [], "confidently_wrong": []}
    confidence = outputs.probabilities.max(axis=1)
    # A loss that is not finite comes first, since it needs attention most.
    losses = np.nan_to_num(outputs.losses.astype(np.float64), nan=np.inf)
    wrong = outputs.predictions != outputs.labels

    def entry(i: int) -> dict[str, Any]:
        return {
            "text": texts[i],
            "label": classes[outputs.labels[i]],
            "prediction": classes[outputs.predictions[i]],
            "confidence": float(confidence[i]),
            "loss": float(outputs.losses[i]),
        }

    return hardest_rows(outputs.rows, losses, (confidence, wrong), entry, count)
