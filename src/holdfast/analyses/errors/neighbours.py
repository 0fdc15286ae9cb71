"""Rows that the model gets wrong, and the training rows nearest to them: what it learned there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.analyses.row_texts import given_labels
from holdfast.analyses.slices.topics import WordSpace
from holdfast.contract.predictions import Predictions
from holdfast.core.records import Floats, Ints

HARDEST, NEAREST = 10, 3
# Below this cosine a training row has little in common with the row.
ALIKE = 0.35
SHOWN = 300
# Kinds of the data map (``training/listeners/examples.py``) that a wrong label makes of a row.
SUSPECT = ("unlearnable", "memorized", "relearned")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingNeighbours:
    """Training rows by which others are looked up: source ``rows`` [n], ``texts`` [n], labels as
    the source writes them, ``vectors`` [n, d] of unit length in ``space``, and what the data map
    says of them by row."""

    rows: Ints
    texts: tuple[str, ...]
    labels: tuple[object, ...]
    vectors: Floats
    space: WordSpace
    kinds: Mapping[int, str]

    def nearest(self, vector: Floats, count: int, among: Ints | None = None) -> list[int]:
        """The places of the nearest rows, the nearest first, that are at all alike."""
        # Rounded, so that rows that are as near stand in the order of the source.
        near = np.round(self.vectors @ vector, 6)
        if among is not None:
            near = np.where(among, near, -1.0)
        order = np.argsort(-near, kind="stable")[:count]
        return [int(place) for place in order if near[place] >= ALIKE]

    def entry(self, place: int, vector: Floats) -> dict[str, Any]:
        """A row for JSON."""
        row = int(self.rows[place])
        return {
            "row": row,
            "text": self.texts[place][:SHOWN],
            "label": self.labels[place],
            "alike": round(float(self.vectors[place] @ vector), 3),
            "kind": self.kinds.get(row),
        }


def hardest_rows(
    told: Predictions,
    texts: tuple[str, ...] | None,
    vectors: Floats | None,
    learned: TrainingNeighbours | None,
    values: Floats,
    what: str,
) -> list[dict[str, Any]]:
    """The ten rows of the largest loss among those that are wrong (of numbers, tags and written
    texts those of the largest ``values`` [n], which are of ``what``), each with its three nearest
    training rows and a sentence that says what these let one suspect."""
    known = np.isfinite(values)
    bad = known & (values > 0)
    by = told.losses if told.wrong is not None and what == "wrong" else values
    order = np.lexsort((told.rows, -np.nan_to_num(by, nan=np.inf)))
    chosen = [int(place) for place in order if bad[place]][:HARDEST]
    labels = given_labels(told.table)
    found = []
    for place in chosen:
        said = None if told.predictions is None else told.predictions[place]
        entry: dict[str, Any] = {
            "row": int(told.rows[place]),
            "text": None if texts is None else texts[place][:SHOWN],
            "label": labels[place],
            "prediction": said,
            "confidence": None
            if told.probabilities is None or what != "wrong"
            else float(told.probabilities[place].max()),
            what: float(values[place]),
            "loss": float(told.losses[place]),
        }
        if learned is not None and vectors is not None:
            near = learned.nearest(vectors[place], NEAREST)
            entry["nearest"] = [learned.entry(k, vectors[place]) for k in near]
            entry["because"] = _suspicion(entry, what)
        found.append(entry)
    return found


def _suspicion(entry: Mapping[str, Any], what: str) -> str:
    """What the nearest training rows say of an error."""
    near = entry["nearest"]
    if not near:
        return "no training row is similar to it"
    if what != "wrong":
        return f"{len(near)} training rows are similar to it"
    doubted = [n for n in near if n["kind"] in SUSPECT and n["label"] == entry["prediction"]]
    if doubted:
        return (
            f"training row {doubted[0]['row']} is similar, has the predicted label, and was hard "
            "to learn: check whether that label is wrong"
        )
    as_said = sum(n["label"] == entry["prediction"] for n in near)
    as_labelled = sum(n["label"] == entry["label"] for n in near)
    if 2 * as_said > len(near):
        return (
            f"{as_said} of the {len(near)} nearest training rows have the predicted label: check "
            "whether this row's label is wrong"
        )
    if as_labelled:
        return f"{as_labelled} of the {len(near)} nearest training rows have this row's label"
    return "the nearest training rows have other labels: examples like this one are missing"
