"""Generated texts of a bounded, fixed sample of rows: scores, counts, and what the report shows.

Shared by every task that generates: the task brings the texts, this file the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Ints
from holdfast.core.seeds import generator
from holdfast.evaluate.copying import COUNTS, count_copies
from holdfast.evaluate.overlap import OVERLAPS, estimate, need_packages, overlap_scores
from holdfast.tasks.metrics import TextMetric, Texts

SHOWN = 20
SHOWN_CHARACTERS = 1500

__all__ = [
    "COUNTS",
    "OVERLAPS",
    "Generated",
    "count_copies",
    "generations_block",
    "need_packages",
    "overlap_scores",
    "sample_positions",
    "score_generated",
]


@dataclass(frozen=True, slots=True)
class Generated:
    """Texts of some rows: ``rows`` source positions, the ``sources`` they were made from, their
    ``references``, the ``texts`` of the trained model and of the ``untuned`` one (``None`` where it
    was not asked), ``groups`` or ``None``, the ``tables`` that written code runs on; all [n]."""

    rows: Ints
    sources: Sequence[str]
    references: Sequence[str]
    texts: Sequence[str]
    untuned: Sequence[str] | None = None
    groups: object = None
    tables: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.rows)


def sample_positions(n: int, most: int, seed: int, *names: str) -> Ints:
    """Which of ``n`` rows are generated: at most ``most``, fixed by the seed, in rising order."""
    order = generator(seed, "generation sample", *names).permutation(n)
    return np.sort(order[:most])


def score_generated(
    made: Generated,
    *,
    seed: int = 0,
    level: float = 0.95,
    untuned: bool = False,
    extra: Sequence[TextMetric] = (),
) -> dict[str, Estimate]:
    """The metrics of ``overlap_scores``, and the ``extra`` ones, for the trained model's texts or
    the ``untuned`` one's."""
    texts = made.untuned if untuned else made.texts
    if texts is None:
        return {}
    scores = overlap_scores(made.references, texts, groups=made.groups, seed=seed, level=level)
    written = Texts(made.references, texts, made.sources, made.tables)
    for metric in extra:
        scores[metric.name] = estimate(metric, written, groups=made.groups, seed=seed, level=level)
    return scores


def generations_block(
    train: Generated, test: Generated, training_answers: Sequence[str], settings: dict[str, Any]
) -> dict[str, Any]:
    """``generations`` of ``result.json``: the first rows of both samples side by side, the counts
    on both sides for both models, what the counts mean, and how the texts were made."""
    counts: dict[str, Any] = {}
    for side, made in (("train", train), ("test", test)):
        arguments = (made.sources, made.references)
        counts[side] = count_copies(*arguments, made.texts, training_answers)
        if made.untuned is not None:
            counts[f"{side}_untuned"] = count_copies(*arguments, made.untuned, training_answers)
    return {
        "settings": settings,
        "train": _shown(train),
        "test": _shown(test),
        "counts": counts,
        "meaning": dict(COUNTS),
    }


def _shown(made: Generated) -> list[dict[str, Any]]:
    untuned: Sequence[str | None] = made.untuned or [None] * len(made)
    lines = zip(made.rows, made.sources, made.references, made.texts, untuned, strict=True)
    return [
        {
            "row": int(row),
            "source": _cut(source),
            "reference": _cut(reference),
            "generated": _cut(text),
            "untuned": None if other is None else _cut(other),
        }
        for row, source, reference, text, other in list(lines)[:SHOWN]
    ]


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
