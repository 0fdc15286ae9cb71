"""The run at a glance: both curves on one scale, the metric, and the verdict."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from holdfast.core.printable import printable
from holdfast.core.records import Snapshot, Verdict
from holdfast.terminal.looks import is_calibrated, metric_of, share

BLOCKS = "▁▂▃▄▅▆▇█"
MISSING = "×"
LEAST_COLUMNS = 8
NAME = 22
NUMBER = 8


def glance(history: Sequence[Snapshot], verdict: Verdict | None, columns: int) -> list[str]:
    """Lines of at most ``columns`` columns: a row of blocks each for the loss of the train probe,
    of the validation rows, and of these after the best temperature (which decides), where there is
    one, then for what is right; the verdict with its reason.

    The losses share one scale, from the lowest to the highest of the looks shown, so that the
    parting of the curves can be seen. A loss that is not a number is a cross.
    """
    if not history:
        return []
    losses = {
        "train loss": [s.train_loss for s in history],
        "validation loss": [s.valid_loss for s in history],
    }
    if any(map(is_calibrated, history)):
        losses[" calibrated loss"] = [s.refined_loss for s in history]
    room = max(LEAST_COLUMNS, columns - NAME - NUMBER - 4)
    shown = {name: _thinned(values, room) for name, values in losses.items()}
    low, high = _ends([value for values in shown.values() for value in values])
    lines = [
        _line(name, _loss(losses[name][-1]), blocks(values, low, high))
        for name, values in shown.items()
    ]
    return [*lines, *_right(history, room), *(verdict_lines(verdict, columns) if verdict else [])]


def verdict_lines(verdict: Verdict, columns: int) -> list[str]:
    """The label, since when, and the reason, wrapped."""
    since = f" since step {verdict.since_step}" if verdict.since_step is not None else ""
    cause = f" Likeliest cause: {verdict.cause}." if verdict.cause else ""
    text = printable(f"{verdict.label}{since}: {verdict.because}{cause}")
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


def _right(history: Sequence[Snapshot], room: int) -> list[str]:
    """The metric's line, on a scale of its own."""
    found = [metric_of(s) for s in history]
    last = found[-1]
    if last is None:
        return []
    values = _thinned([one[1] if one else math.nan for one in found], room)
    return [_line(f"validation {last[0]}", share(last[1], last[2]), blocks(values, *_ends(values)))]


def _line(name: str, number: str, drawn: str) -> str:
    return f"  {name:{NAME}}{number:>{NUMBER}}  {drawn}"


def _ends(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 1.0)


def _thinned(values: Sequence[float], room: int) -> list[float]:
    """At most ``room`` values, evenly spaced, the newest among them."""
    if len(values) <= room:
        return list(values)
    last = len(values) - 1
    return [values[round(i * last / (room - 1))] for i in range(room)]


def _loss(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "no number"
