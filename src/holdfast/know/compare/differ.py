"""Where two models differ: the rows side by side, and the classes that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.core.records import Ints
from holdfast.know.compare.pairs import Pairs
from holdfast.stats.many import holm

SHOWN, CHARACTERS, CLASSES = 10, 300, 10


def differing_rows(
    pairs: Pairs,
    rows: Ints,
    texts: Sequence[str],
    labels: Sequence[Any],
    first: Sequence[Any],
    second: Sequence[Any],
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


def by_class(pairs: Pairs, labels: Sequence[Any]) -> list[dict[str, Any]] | None:
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
