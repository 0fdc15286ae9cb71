"""One line an evaluation, in named columns: losses, the metric, and what is best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.core.records import Snapshot
from holdfast.report.numbers import AT_LOOKS


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
