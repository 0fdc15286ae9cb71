"""The run at a glance: both curves on one scale, the gap between them, and the verdict."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from holdfast.core.records import Snapshot, Verdict

BLOCKS = "▁▂▃▄▅▆▇█"
MISSING = "×"
LEAST_COLUMNS = 8
NAMES = ("train probe", "validation")


def glance(history: Sequence[Snapshot], verdict: Verdict | None, columns: int) -> list[str]:
    """Lines of at most ``columns`` columns: a row of blocks for the train probe and one for the
    validation rows (after the best temperature), the gap, and the verdict with its reason.

    Both rows share one scale, from the lowest to the highest loss of the looks shown, so that the
    parting of the curves can be seen. A loss that is not a number is a cross.
    """
    if not history:
        return []
    curves = ([s.train_loss for s in history], [s.refined_loss for s in history])
    room = max(LEAST_COLUMNS, columns - 34)
    shown = [_thinned(values, room) for values in curves]
    known = [v for values in shown for v in values if math.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    lines = [f"  {blocks(values, low, high):{room}} {name} {_loss(curve[-1])}"
             for values, name, curve in zip(shown, NAMES, curves, strict=True)]  # fmt: skip
    gap = curves[1][-1] - curves[0][-1]
    if math.isfinite(gap):
        lines.append(f"  {'':{room}} gap {gap:+.3f}")
    return lines + (verdict_lines(verdict, columns) if verdict else [])


def verdict_lines(verdict: Verdict, columns: int) -> list[str]:
    """The label, since when, and the reason, wrapped."""
    since = f" since step {verdict.since_step}" if verdict.since_step is not None else ""
    cause = f" Likeliest cause: {verdict.cause}." if verdict.cause else ""
    text = f"{verdict.label}{since}: {verdict.because}{cause}"
    return textwrap.wrap(text, columns - 2, initial_indent="  ", subsequent_indent="    ")


def blocks(values: Sequence[float], low: float, high: float) -> str:
    """One block a value: the lowest at ``low``, the highest at ``high``."""
    span = (high - low) or 1.0
    top = len(BLOCKS) - 1

    def one(value: float) -> str:
        if not math.isfinite(value):
            return MISSING
        return BLOCKS[round(top * min(1.0, max(0.0, (value - low) / span)))]

    return "".join(map(one, values))


def _thinned(values: Sequence[float], room: int) -> list[float]:
    """At most ``room`` values, evenly spaced, the newest among them."""
    if len(values) <= room:
        return list(values)
    last = len(values) - 1
    return [values[round(i * last / (room - 1))] for i in range(room)]


def _loss(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "not a number"
