"""Pairs of rows that are alike, as findings and pages name them: for texts and pictures alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Ints
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckExample
from holdfast.quality.views import TableRows

SHOWN = 20


def rows_in(pairs: SimilarPairs) -> Ints:
    """The positions that stand in any pair, each once, in order."""
    return np.unique(np.concatenate([pairs.first, pairs.second]))


def differently_labelled(pairs: SimilarPairs, labels: Ints) -> SimilarPairs:
    """The pairs whose two labels are known and differ; ``labels`` [n], −1 where not known."""
    one, other = labels[pairs.first], labels[pairs.second]
    return pairs.where((one >= 0) & (other >= 0) & (one != other))


def both_labels(pairs: SimilarPairs, rows: TableRows) -> list[str]:
    """The two class names of each pair that is shown."""
    labels, classes = rows.labels, rows.table.classes
    return [
        f"{classes[labels[a]]!r} and {classes[labels[b]]!r}"
        for a, b in zip(pairs.first[:SHOWN], pairs.second[:SHOWN], strict=True)
    ]


def examples_of(
    pairs: SimilarPairs,
    ids: Ints,
    others: Ints,
    likeness: str,
    file: str | None = None,
    notes: Sequence[str] = (),
) -> tuple[CheckExample, ...]:
    """The first pairs to be looked at. ``ids`` and ``others`` are the source rows of either side's
    positions; ``likeness`` says a pair's similarity (``agreement {:.2f}``), after its note."""
    return tuple(
        CheckExample(
            int(ids[pairs.first[n]]),
            ", ".join([*notes[n : n + 1], likeness.format(pairs.similarity[n])]),
            int(others[pairs.second[n]]),
            file,
        )
        for n in range(min(SHOWN, len(pairs)))
    )


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Rows that are met in other files: ``positions`` of the table, ``met`` how many of a file's
    ``sizes`` rows they meet, ``examples``."""

    positions: Ints
    met: Mapping[str, int]
    sizes: Mapping[str, int]
    examples: tuple[CheckExample, ...]

    @property
    def share(self) -> float:
        """The largest share of a file's rows that are met."""
        return max(count / self.sizes[name] for name, count in self.met.items())

    def said(self, things: str) -> str:
        """How many of each file's rows are met, in words; ``things`` is what rows are called."""
        return " and ".join(
            f"{count:,} of the {self.sizes[name]:,} {things} of {name}"
            for name, count in self.met.items()
        )


def elsewhere(
    found: Mapping[str, tuple[SimilarPairs, TableRows]], ids: Ints, likeness: str
) -> Elsewhere | None:
    """What pairs with the rows of other files (by name) come to; ``None`` without any."""
    held = {name: (pairs, rows) for name, (pairs, rows) in found.items() if len(pairs)}
    if not held:
        return None
    examples = [
        example
        for name, (pairs, rows) in held.items()
        for example in examples_of(pairs, ids, rows.ids, likeness, name)
    ]
    return Elsewhere(
        np.unique(np.concatenate([pairs.first for pairs, _ in held.values()])),
        {name: len(np.unique(pairs.second)) for name, (pairs, _) in held.items()},
        {name: len(rows.table) for name, (_, rows) in held.items()},
        tuple(examples[:SHOWN]),
    )
