"""Rows that a fit learns from and that stand in no row of the table: the names of classes, rows
that were labelled by the model, synthetic ones, rows of another data set.

They are part of the training side alone: nothing is measured, chosen, scored or counted on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.data.table import Table

# Where an added row came from.
ORIGINS = ("name", "description", "unlabelled", "synthetic", "mixed", "canary", "taught")


@dataclass(frozen=True, slots=True)
class Added:
    """Added rows [m].

    ``table`` has the columns of the table that they are added to, as far as a task reads them;
    its ``row`` is −1, −2, …, which no source row is. ``weights`` [m], at least 0, say how much
    each counts, a row of the table counting 1; one of weight 0 is left out of a fit.
    ``origins`` [m] are of ``ORIGINS``. See ``added_texts``, ``join_added``.
    """

    table: Table
    weights: Floats
    origins: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.table), len(self.weights), len(self.origins)}
        if len(sizes) > 1:
            raise Defect("added rows", "need a weight and an origin each", tuple(sizes))
        weights = np.asarray(self.weights)
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise Defect("added rows", "have a weight that is no finite number of at least 0")
        unknown = set(self.origins) - set(ORIGINS)
        if unknown:
            raise Defect("added rows", f"come from one of {ORIGINS}", unknown.pop())

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of which origin are learned from."""
        used = (o for o, w in zip(self.origins, self.weights, strict=True) if w > 0)
        return dict(Counter(used))

    def of(self, origins: Sequence[str] | None) -> Ints:
        """Positions of the rows of these origins (of all for ``None``) that have a weight."""
        wanted = ORIGINS if origins is None else origins
        known = np.asarray([origin in wanted for origin in self.origins], dtype=bool)
        return np.flatnonzero(known & (np.asarray(self.weights) > 0))


def added_texts(
    like: Table,
    texts: Sequence[str],
    labels: Sequence[int] | Ints,
    *,
    origin: str,
    weights: float | Sequence[float] | Floats = 1.0,
) -> Added:
    """Texts with a class each, an index into ``like.classes``, to be learned from beside ``like``.

    ``weights`` is one number for all or one a text. Raises ``Defect`` where lengths differ, a label
    is no class, or ``like`` has pairs of texts.
    """
    import datasets

    marks = np.asarray(labels, dtype=np.int64)
    if len(marks) and not (marks.min() >= 0 and marks.max() < len(like.classes)):
        raise Defect("added rows", f"have one of {len(like.classes)} classes", int(marks.max()))
    if like.has_pairs:
        raise Defect("added rows", "are pairs exactly where those of the table are")
    if len(texts) != len(marks):
        raise Defect("added rows", "need a label each", (len(texts), len(marks)))
    numbers = (-1 - np.arange(len(texts))).tolist()
    columns = {"row": numbers, "text": list(map(str, texts)), "label": marks.tolist()}
    rows = datasets.Dataset.from_dict(columns)
    return Added(
        replace(like, rows=rows, source="", source_rows=0, findings=(), decisions=()),
        np.broadcast_to(np.asarray(weights, dtype=np.float64), (len(texts),)).copy(),
        (origin,) * len(texts),
    )


def join_added(*parts: Added) -> Added:
    """Several lots of added rows as one, numbered anew."""
    import datasets

    rows = datasets.concatenate_datasets([part.table.rows for part in parts])
    numbers = (-1 - np.arange(len(rows))).tolist()
    rows = rows.remove_columns("row").add_column("row", numbers)
    return Added(
        replace(parts[0].table, rows=rows),
        np.concatenate([np.asarray(part.weights) for part in parts]),
        tuple(origin for part in parts for origin in part.origins),
    )
