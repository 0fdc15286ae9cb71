"""Pairs of rows that are alike, as findings and pages name them: for texts and pictures alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from holdfast.core.records import Ints, Severity
from holdfast.core.wording import count_phrase
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckExample, CheckResult, result
from holdfast.quality.single import excerpt
from holdfast.quality.views import TableRows

SHOWN = 20
# Of copies, which may be many, so many rows are listed and so many examples shown; from this share
# of the rows on they may move a score by a point.
LISTED, EXAMPLES, SERIOUS = 100, 8, 0.01


def rows_in(pairs: SimilarPairs) -> Ints:
    """The positions that stand in any pair, each once, in order."""
    return np.unique(np.concatenate([pairs.first, pairs.second]))


def ranked_rows(pairs: SimilarPairs) -> list[int]:
    """The positions that stand in any pair, each once, as the pairs name them."""
    return list(dict.fromkeys(np.column_stack([pairs.first, pairs.second]).ravel().tolist()))


def most_alike_first(pairs: SimilarPairs) -> SimilarPairs:
    """The pairs by their similarity, then by their positions."""
    return pairs.where(np.lexsort((pairs.second, pairs.first, -pairs.similarity)))


def differently_labelled(pairs: SimilarPairs, labels: Ints) -> SimilarPairs:
    """The pairs whose two labels are known and differ; ``labels`` [n], −1 where not known."""
    one, other = labels[pairs.first], labels[pairs.second]
    return pairs.where((one >= 0) & (other >= 0) & (one != other))


def examples_of(
    pairs: SimilarPairs,
    ids: Ints,
    others: Ints,
    likeness: str,
    file: str | None = None,
    notes: Sequence[str] = (),
    most: int = SHOWN,
) -> tuple[CheckExample, ...]:
    """The first ``most`` pairs to be looked at. ``ids`` and ``others`` are the source rows of the
    positions; ``likeness`` says a pair's similarity (``agreement {:.2f}``), after its note."""
    return tuple(
        CheckExample(
            int(ids[pairs.first[n]]),
            ", ".join([*notes[n : n + 1], likeness.format(pairs.similarity[n])]),
            int(others[pairs.second[n]]),
            file,
        )
        for n in range(min(most, len(pairs)))
    )


def leaks_result(
    found: Mapping[str, tuple[SimilarPairs, TableRows]],
    ids: Ints,
    likeness: str,
    said: tuple[str, str],
    remedy: str,
    severity: Severity,
) -> CheckResult | None:
    """What pairs with the rows of other files (by name) come to; ``None`` without any. ``said`` is
    what rows are called, and how they stand here. Score: the largest share of a file's rows that
    are met."""
    things, how = said
    told, shares = [], []
    examples: list[CheckExample] = []
    met = {name: one for name, one in found.items() if len(one[0])}
    for name, (pairs, rows) in met.items():
        count, size = len(np.unique(pairs.second)), len(rows.table)
        told.append(f"{count:,} of the {size:,} {things} of {name}")
        shares.append(count / size)
        examples += examples_of(pairs, ids, rows.ids, likeness, name)
    if not met:
        return None
    positions = np.unique(np.concatenate([pairs.first for pairs, _ in met.values()]))
    return result(
        ids[positions],
        f"{' and '.join(told)} stand here {how}",
        remedy,
        score=max(shares),
        severity=severity,
        examples=examples[:SHOWN],
    )


def conflicts_result(
    pairs: SimilarPairs,
    rows: TableRows,
    likeness: str,
    said: tuple[str, str],
    severity: Severity,
    *,
    quoted: bool,
) -> CheckResult | None:
    """What pairs of rows with different labels come to; ``None`` without any. ``said`` is how they
    are alike, and the remedy; ``quoted``: with the texts of the first. Score: the share of the rows
    that stand in such pairs."""
    pairs = differently_labelled(pairs, rows.labels)
    if not len(pairs):
        return None
    labels, classes, ids = rows.labels, rows.table.classes, rows.ids
    shown = list(zip(pairs.first[:SHOWN].tolist(), pairs.second[:SHOWN].tolist(), strict=True))
    notes = [f"{classes[labels[a]]!r} and {classes[labels[b]]!r}" for a, b in shown]
    a, b = shown[0]
    texts = f": {excerpt(rows.texts[a])} and {excerpt(rows.texts[b])}" if quoted else ""
    return result(
        ids[rows_in(pairs)],
        f"{count_phrase(len(pairs), 'pair')} of {said[0]}, e.g. rows {ids[a]} and {ids[b]} are "
        f"{notes[0]}{texts}",
        said[1],
        score=len(rows_in(pairs)) / len(labels),
        severity=severity,
        examples=examples_of(pairs, ids, ids, likeness, notes=notes),
    )
