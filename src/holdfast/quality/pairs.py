"""Findings and examples for pairs of similar rows: texts or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from holdfast.core.records import Ints, Severity
from holdfast.core.wording import count_phrase, has_or_have
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckExample, CheckResult, result
from holdfast.quality.single import excerpt
from holdfast.quality.views import TableRows

MAX_PAIRS_SHOWN = 20
# Duplicates may be many: the most rows that are listed and examples that are shown, and the share
# of rows from which on duplicates may change a score by a point.
MAX_ROWS_LISTED, MAX_EXAMPLES, SERIOUS_SHARE = 100, 8, 0.01


def paired_rows(pairs: SimilarPairs) -> Ints:
    """The positions that are in any pair, each once, in ascending order."""
    return np.unique(np.concatenate([pairs.first, pairs.second]))


def ranked_rows(pairs: SimilarPairs) -> list[int]:
    """The positions that are in any pair, each once, in the order of the pairs."""
    return list(dict.fromkeys(np.column_stack([pairs.first, pairs.second]).ravel().tolist()))


def sort_by_similarity(pairs: SimilarPairs) -> SimilarPairs:
    """The pairs by descending similarity, then by position."""
    return pairs.where(np.lexsort((pairs.second, pairs.first, -pairs.similarity)))


def differently_labelled(pairs: SimilarPairs, labels: Ints) -> SimilarPairs:
    """The pairs whose two labels are known and differ; ``labels`` [n], −1 if unknown."""
    one, other = labels[pairs.first], labels[pairs.second]
    return pairs.where((one >= 0) & (other >= 0) & (one != other))


def pair_examples(
    pairs: SimilarPairs,
    ids: Ints,
    other_ids: Ints,
    similarity_format: str,
    file: str | None = None,
    notes: Sequence[str] = (),
    max_examples: int = MAX_PAIRS_SHOWN,
) -> tuple[CheckExample, ...]:
    """The first ``max_examples`` pairs as examples. ``ids`` and ``other_ids`` are the source rows
    of the positions; ``similarity_format`` (``similarity {:.2f}``) follows a pair's note."""
    return tuple(
        CheckExample(
            int(ids[pairs.first[n]]),
            ", ".join([*notes[n : n + 1], similarity_format.format(pairs.similarity[n])]),
            int(other_ids[pairs.second[n]]),
            file,
        )
        for n in range(min(max_examples, len(pairs)))
    )


def leaks_result(
    pairs_by_file: Mapping[str, tuple[SimilarPairs, TableRows]],
    ids: Ints,
    similarity_format: str,
    wording: tuple[str, str, str, str],
    remedy: str,
    severity: Severity,
) -> CheckResult | None:
    """The finding for pairs with rows of other files (by name); ``None`` without pairs. ``wording``
    is the noun for rows, what one of them is, what several are, and an addition. Score: the largest
    share of a file's rows that are in a pair."""
    noun, one_is, several_are, addition = wording
    sentences, shares = [], []
    examples: list[CheckExample] = []
    matched = {name: one for name, one in pairs_by_file.items() if len(one[0])}
    for name, (pairs, rows) in matched.items():
        count, size = len(np.unique(pairs.second)), len(rows.table)
        condition = f"is {one_is}" if count == 1 else f"are {several_are}"
        sentences.append(f"{count:,} of the {size:,} {noun} of {name} {condition}")
        shares.append(count / size)
        examples += pair_examples(pairs, ids, rows.ids, similarity_format, name)
    if not matched:
        return None
    positions = np.unique(np.concatenate([pairs.first for pairs, _ in matched.values()]))
    return result(
        ids[positions],
        f"{'; '.join(sentences)} of the source{addition}",
        remedy,
        score=max(shares),
        severity=severity,
        examples=examples[:MAX_PAIRS_SHOWN],
    )


def conflicts_result(
    pairs: SimilarPairs,
    rows: TableRows,
    similarity_format: str,
    wording: tuple[str, str],
    severity: Severity,
    *,
    quote_texts: bool,
) -> CheckResult | None:
    """The finding for pairs of rows with different labels; ``None`` without pairs. ``wording`` is
    what the rows are, and the remedy; ``quote_texts`` adds the texts of the first pair.
    Score: the share of rows in such pairs."""
    pairs = differently_labelled(pairs, rows.labels)
    if not len(pairs):
        return None
    labels, classes, ids = rows.labels, rows.table.classes, rows.ids
    shown = list(
        zip(
            pairs.first[:MAX_PAIRS_SHOWN].tolist(),
            pairs.second[:MAX_PAIRS_SHOWN].tolist(),
            strict=True,
        )
    )
    notes = [f"{classes[labels[a]]!r} and {classes[labels[b]]!r}" for a, b in shown]
    a, b = shown[0]
    texts = f" for {excerpt(rows.texts[a])} and {excerpt(rows.texts[b])}" if quote_texts else ""
    return result(
        ids[paired_rows(pairs)],
        f"{count_phrase(len(pairs), 'pair')} of {wording[0]} {has_or_have(len(pairs))} different "
        f"labels, e.g. rows {ids[a]} and {ids[b]}: {notes[0]}{texts}",
        wording[1],
        score=len(paired_rows(pairs)) / len(labels),
        severity=severity,
        examples=pair_examples(pairs, ids, ids, similarity_format, notes=notes),
    )
