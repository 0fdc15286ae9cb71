"""Where two models differ: the rows side by side, and the classes that tell them apart.

Two models' answers to the same rows → one number a row: how much better the first is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.stats.two_samples import holm
from holdfast.tasks.tags.entities import TagTable, entity_counts

SHOWN, CHARACTERS, CLASSES = 10, 300, 10


def differing_rows(
    pairs: PairedRows,
    rows: Ints,
    texts: Sequence[str],
    labels: Sequence[object],
    first: Sequence[object],
    second: Sequence[object],
) -> dict[str, list[dict[str, Any]]]:
    """``a_better`` and ``b_better``: the rows [n] with the largest differences on either side, ten
    each, the first in the source first among equals."""
    found = {}
    for name, gap in (("a_better", pairs.gap), ("b_better", -pairs.gap)):
        order = np.argsort(-gap, kind="stable")
        chosen = [int(i) for i in order[:SHOWN] if gap[i] > 0]
        found[name] = [
            {
                "row": int(rows[i]),
                "text": _cut(texts[i]),
                "label": labels[i],
                "a": first[i],
                "b": second[i],
            }
            for i in chosen
        ]
    return found


def by_class(pairs: PairedRows, labels: Sequence[object]) -> list[dict[str, Any]] | None:
    """Each class with the rows of it that one model alone has right, and the p-value of "equally
    many" (exact sign test, Holm over the classes: by chance one of them is below 5 % in at most 5 %
    of comparisons). At most ten, the smallest p-values first; ``None`` where answers are not right
    or wrong."""
    if pairs.right is None:
        return None
    from scipy.special import bdtr

    names = sorted(set(map(str, labels)))
    own = np.array([str(one) for one in labels], dtype=object)
    lines: list[dict[str, Any]] = []
    for name in names:
        gap = pairs.gap[own == name]
        only = int((gap > 0).sum()), int((gap < 0).sum())
        least, total = min(only), sum(only)
        p_value = min(1.0, 2 * float(bdtr(least, total, 0.5))) if total else 1.0
        lines.append({"class": name, "n": len(gap), "only_a": only[0], "only_b": only[1]})
        lines[-1]["p_value"] = p_value
    adjusted = holm(np.array([line["p_value"] for line in lines]))
    for line, p_value in zip(lines, adjusted, strict=True):
        line["p_value"] = float(p_value)
    lines.sort(key=lambda line: (line["p_value"], -abs(line["only_a"] - line["only_b"])))
    return lines[:CLASSES]


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"


AnswerKind = Literal["class", "several", "number", "tags", "text"]
Rows = Sequence[Any]


@dataclass(frozen=True, slots=True)
class PairedRows:
    """``gap`` [n] is how much better the first answers each row; its mean times ``scale`` is
    ``metric`` of the first (``first``) less that of the second (``second``). A point of margin is
    0.01 of ``gap``'s unit: of a share, or of the labels' standard deviation. ``right`` are the
    rows [n] that each has right, where there is a right and a wrong."""

    metric: str
    higher_is_better: bool
    first: float
    second: float
    gap: Floats
    scale: float = 1.0
    right: tuple[Any, Any] | None = None


def paired(kind: AnswerKind, labels: Rows, first: Rows, second: Rows) -> PairedRows:
    """The pairs of rows with these ``labels`` [n], answered ``first`` and ``second``; an answer of
    ``None`` is none, and counts as wrong.

    ``class``: accuracy. ``several``: F1 over all (row, label) answers. ``number``: mean absolute
    error, in the labels' unit; a missing number counts as the mean of the labels. ``tags``: entity
    F1. ``text``: ROUGE-L with the label. An F1 is a ratio of sums; a row's part in it is its
    influence (the linearisation 2 (h_i − F1 (a_i + l_i) ÷ 2) ÷ mean(a + l), Efron 1982).
    """
    made: dict[AnswerKind, Callable[[Rows, Rows, Rows], PairedRows]] = {
        "class": _classes,
        "several": _sets,
        "number": _numbers,
        "tags": _tags,
        "text": _texts,
    }
    return made[kind](labels, first, second)


def _classes(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    right = tuple(
        np.array([a == b for a, b in zip(labels, one, strict=True)], dtype=bool)
        for one in (first, second)
    )
    values = [float(one.mean()) for one in right]
    gap = right[0].astype(float) - right[1]
    return PairedRows("accuracy", True, values[0], values[1], gap, right=(right[0], right[1]))


def _sets(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    held = [set(one) for one in labels]
    counts = []
    for said in (first, second):
        sets = [set(one or ()) for one in said]
        hits = np.array([len(a & b) for a, b in zip(held, sets, strict=True)], dtype=float)
        counts.append((hits, np.array([len(one) for one in sets], dtype=float)))
    return _ratio("f1_micro", np.array([len(one) for one in held], dtype=float), *counts)


def _tags(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    said_of_all = (tag for said in (labels, first, second) for row in said for tag in row or ())
    names = sorted({OUTSIDE, *said_of_all})
    table, place = TagTable.of(names), {name: i for i, name in enumerate(names)}
    counts = np.array([len(row) for row in labels], dtype=np.int64)

    def spelled(said: Rows) -> Any:
        # A row of another number of words is one of which nothing is right.
        pairs = zip(said, counts, strict=True)
        rows = [row if row and len(row) == n else [OUTSIDE] * n for row, n in pairs]
        return np.array([place[tag] for row in rows for tag in row], dtype=np.int64)

    truth, types = spelled(labels), len(table.entities)
    found, labelled = [], np.zeros(len(counts))
    for said in (first, second):
        each = entity_counts(truth, spelled(said), counts, table).reshape(len(counts), 3, types)
        hits, answered, labelled = each.sum(axis=2).T
        found.append((hits, answered))
    return _ratio("entity_f1", labelled, *found)


def _ratio(
    metric: str, labelled: Floats, one: tuple[Floats, Floats], two: tuple[Floats, Floats]
) -> PairedRows:
    values, parts = [], []
    for hits, answered in (one, two):
        size = answered + labelled
        value = 2 * float(hits.sum()) / float(size.sum()) if size.sum() else float("nan")
        values.append(value)
        parts.append(
            value + (2 * hits - value * size) / size.mean() if size.sum() else hits * value
        )
    return PairedRows(metric, True, values[0], values[1], parts[0] - parts[1])


def _numbers(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    real = np.array([float(one) for one in labels])
    spread = float(real.std()) or 1.0
    errors = []
    for said in (first, second):
        made = np.array([real.mean() if one is None else float(one) for one in said])
        errors.append(np.abs(made - real))
    values = [float(one.mean()) for one in errors]
    return PairedRows("mae", False, values[0], values[1], (errors[1] - errors[0]) / spread, -spread)


def _texts(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    from holdfast.metrics.texts import need_packages, rouge_rows

    need_packages()
    references = [str(one) for one in labels]
    scores = [
        rouge_rows(references, [str(one or "") for one in said], ("rougeL",))[0][:, 0]
        for said in (first, second)
    ]
    values = [float(one.mean()) for one in scores]
    return PairedRows("rouge_l", True, values[0], values[1], cast("Floats", scores[0] - scores[1]))
