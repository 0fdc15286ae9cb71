"""What the evaluations of a run show: a line each, in named columns; and all of them at a glance,
both curves on one scale, the metric, and the verdict."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from holdfast.core.printable import printable
from holdfast.core.records import Snapshot, Verdict
from holdfast.report.numbers import AT_LOOKS

BLOCKS = "▁▂▃▄▅▆▇█"
MISSING = "×"
LEAST_COLUMNS = 8
NAME = 22
NUMBER = 8


def heading(first: Snapshot) -> list[str]:
    """Two lines over the columns of ``row``."""
    found, calibrated = metric_of(first), is_calibrated(first)
    tempered = f"{'calibrated':>11}" if calibrated else ""
    defined = " (calibrated: loss after temperature scaling)" if calibrated else ""
    return [
        f"{'':11}{'train':>7}  validation{defined}",
        f"{'step':>11}{'loss':>7}{'loss':>7}{tempered}{found[0] if found else '':>11}{'left':>12}",
    ]


def row(history: Sequence[Snapshot], planned: int, kept: bool, left: str = "") -> str:
    """The newest look; ``kept`` says whether its state is the one to keep so far, ``left`` how
    long the rest will take."""
    last = history[-1]
    found = metric_of(last)
    shown = "" if found is None else share(found[1], found[2])
    mark = best(history) if kept and len(history) > 1 else ""
    tempered = f"{loss(last.refined_loss):>11}" if is_calibrated(history[0]) else ""
    return (
        f"{f'{last.step}/{planned}':>11}{loss(last.train_loss):>7}{loss(last.valid_loss):>7}"
        f"{tempered}{shown:>11}{left:>12}  {mark}"
    ).rstrip()


def is_calibrated(look: Snapshot) -> bool:
    """Whether there is a loss after a best temperature, other than the loss itself."""
    return look.valid_logits is not None or look.refined_loss != look.valid_loss


def best(history: Sequence[Snapshot]) -> str:
    """What to call an evaluation whose checkpoint is kept: ``best`` where nothing that is shown of
    the validation rows was better before, and something worse; ``best …`` with what is above all
    before; ``kept (newest)`` where nothing is, which "newest unless significantly worse" may keep.
    """
    last, before = history[-1], history[:-1]
    numbers = [("loss", _low(last.valid_loss), [_low(s.valid_loss) for s in before])]
    found = metric_of(last)
    if found is not None:
        values = [value[1] for s in before if (value := metric_of(s)) is not None]
        numbers.insert(0, (found[0], found[1], values))
    if is_calibrated(history[0]):
        refined = [_low(s.refined_loss) for s in before]
        numbers.insert(0, ("calibrated", _low(last.refined_loss), refined))
    known = [(name, now, then) for name, now, then in numbers if math.isfinite(now)]
    good = [name for name, now, then in known if all(now > one for one in then)]
    if good and all(now >= one for _, now, then in known for one in then):
        return "best"
    return f"best {good[0]}" if good else "kept (newest)"


def metric_of(snapshot: Snapshot) -> tuple[str, float, bool] | None:
    """Heading, value and whether it is a share; ``None`` where it is not a number."""
    for name, (title, is_share) in AT_LOOKS.items():
        if name in snapshot.valid_metrics:
            value = snapshot.valid_metrics[name]
            return (title, value, is_share) if math.isfinite(value) else None
    return None


def share(value: float, is_share: bool = True) -> str:
    """``75.6 %``, or ``0.756`` of what is no share."""
    return f"{100 * value:.1f} %" if is_share else f"{value:.3f}"


def loss(value: float) -> str:
    """Three decimals; an en dash where it is not a number."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _low(value: float) -> float:
    # So that of every number that is compared the larger is the better one.
    return -value


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
