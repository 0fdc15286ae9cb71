"""The same text with different labels: one of them must be wrong."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from holdfast.data.table import Table
from holdfast.quality.check import CheckResult, check, result, with_classes
from holdfast.quality.rows import normal_pair, texts
from holdfast.quality.views import TableRows


@check(
    TableRows,
    cannot_see="Conflicts between texts that differ by more than case, space and punctuation.",
    error_rate="Exact: the texts are the same; which of the labels is wrong it cannot tell.",
    holds_for=with_classes,
)
def conflicting_labels(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose text, but for case, space and punctuation, stands elsewhere with another
    label. Exact: hashes only choose the candidates. Score: their share of the labelled rows."""
    table = rows.table
    candidates = _candidates(table)
    if not len(candidates):
        return None
    chosen, same = table.take(candidates), defaultdict[str, list[int]](list)
    for start, batch in texts(chosen):
        for n, text in enumerate(batch, start):
            same[normal_pair(text)].append(int(candidates[n]))
    ids, labels = rows.ids, rows.labels
    groups = [group for group in same.values() if len(set(labels[group].tolist())) > 1]
    if not groups:
        return None
    positions = sorted(position for group in groups for position in group)
    first = sorted(groups[0])
    example = ", ".join(f"row {ids[p]} {table.classes[labels[p]]!r}" for p in first[:4])
    plural = "s have" if len(groups) > 1 else " has"
    return result(
        ids[positions],
        f"{len(groups)} text{plural} different labels in {len(positions)} rows, e.g. {example}",
        "Correct the labels of these rows, or take the doubtful ones out.",
        score=len(positions) / len(table),
    )


def _candidates(table: Table) -> npt.NDArray[np.int64]:
    """Positions whose hash occurs with more than one label."""
    hashes = np.empty(len(table), dtype=np.uint64)
    for start, batch in texts(table):
        hashes[start : start + len(batch)] = [_hash(normal_pair(text)) for text in batch]
    labels = table.column("label")
    known = np.flatnonzero(labels >= 0)
    _, group = np.unique(hashes[known], return_inverse=True)
    # A hash has several labels where its lowest and its highest differ: two passes, no groups.
    lowest = np.full(len(known), len(table.classes), dtype=np.int64)
    highest = np.full(len(known), -1, dtype=np.int64)
    np.minimum.at(lowest, group, labels[known])
    np.maximum.at(highest, group, labels[known])
    return np.asarray(known[(lowest != highest)[group]])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
