"""The rows to read first: those that cost the most, and those that are wrong and sure of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.core.records import Ints, Outputs


def hardest(
    outputs: Outputs, texts: Sequence[str], classes: tuple[str, ...], *, count: int = 20
) -> dict[str, list[dict[str, Any]]]:
    """``{"loss": […], "confidently_wrong": […]}``, at most ``count`` rows each, worst first.

    ``loss``: the largest losses, right or wrong (one that is not finite stands first).
    ``confidently_wrong``: wrong rows by the probability of the wrong prediction; empty when every
    row is right. Ties go to the lower source row. Each entry has ``row`` (source position),
    ``text``, ``label``, ``prediction``, ``confidence`` and ``loss`` in nats; ``texts`` [n] is in
    the order of ``outputs``.
    """
    if not len(outputs.labels):
        return {"loss": [], "confidently_wrong": []}
    confidence = outputs.probabilities.max(axis=1)
    # What is no number must be looked at first, not sorted to the end.
    losses = np.nan_to_num(outputs.losses.astype(np.float64), nan=np.inf)
    wrong = outputs.predictions != outputs.labels
    by_loss = np.lexsort((outputs.rows, -losses))[:count]
    by_confidence = np.lexsort((outputs.rows, -confidence))
    sure = by_confidence[wrong[by_confidence]][:count]

    def entries(positions: Ints) -> list[dict[str, Any]]:
        return [
            {
                "row": int(outputs.rows[i]),
                "text": texts[i],
                "label": classes[outputs.labels[i]],
                "prediction": classes[outputs.predictions[i]],
                "confidence": float(confidence[i]),
                "loss": float(outputs.losses[i]),
            }
            for i in positions
        ]

    return {"loss": entries(by_loss), "confidently_wrong": entries(sure)}
