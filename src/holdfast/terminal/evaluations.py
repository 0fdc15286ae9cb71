"""The evaluations of a run as text: one line each, in named columns; and all of them as learning
curves on one scale, with the metric and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.core.labels import verdict_title
from holdfast.core.printable import printable
from holdfast.core.records import Snapshot, Verdict
from holdfast.core.wording import lower_first, main_clause
from holdfast.report.numbers import EVALUATION_METRICS
from holdfast.terminal.layout import wrap

BLOCKS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "×"
MIN_BLOCKS = 8
NAME_WIDTH = 22
NUMBER_WIDTH = 8


def heading(first: Snapshot) -> list[str]:
    """Two heading lines above the columns of ``evaluation_row``."""
    metric, calibrated = metric_of(first), is_calibrated(first)
    calibrated_column = f"{'calibrated':>11}" if calibrated else ""
    definition = " (calibrated: loss after temperature scaling)" if calibrated else ""
    return [
        f"{'':11}{'train':>7}  validation{definition}",
        f"{'step':>11}"
        f"{'loss':>7}{'loss':>7}{calibrated_column}{metric[0] if metric else '':>11}{'left':>12}",
    ]


def evaluation_row(history: Sequence[Snapshot], planned: int, is_best: bool, left: str = "") -> str:
    """The newest evaluation. ``is_best``: its checkpoint is the best so far; ``left``: the
    remaining time."""
    last = history[-1]
    metric = metric_of(last)
    metric_text = "" if metric is None else format_metric(metric[1], metric[2])
    mark = best_mark(history) if is_best and len(history) > 1 else ""
    calibrated_text = f"{format_loss(last.refined_loss):>11}" if is_calibrated(history[0]) else ""
    return (
        f"{f'{last.step}/{planned}':>11}{format_loss(last.train_loss):>7}{format_loss(last.valid_loss):>7}"
        f"{calibrated_text}{metric_text:>11}{left:>12}  {mark}"
    ).rstrip()


def is_calibrated(snapshot: Snapshot) -> bool:
    """Whether there is a calibrated loss (after temperature scaling) besides the raw loss."""
    return snapshot.valid_logits is not None or snapshot.refined_loss != snapshot.valid_loss


def best_mark(history: Sequence[Snapshot]) -> str:
    """The mark of an evaluation whose checkpoint is kept. ``best``: no validation number shown was
    better before, and at least one was worse; ``best NAME``: this number is above all before;
    ``kept (newest)``: none is, and the rule "newest unless significantly worse" keeps it.
    """
    last, before = history[-1], history[:-1]
    numbers = [("loss", _negated(last.valid_loss), [_negated(s.valid_loss) for s in before])]
    metric = metric_of(last)
    if metric is not None:
        values = [value[1] for s in before if (value := metric_of(s)) is not None]
        numbers.insert(0, (metric[0], metric[1], values))
    if is_calibrated(history[0]):
        refined = [_negated(s.refined_loss) for s in before]
        numbers.insert(0, ("calibrated", _negated(last.refined_loss), refined))
    finite = [(name, now, earlier) for name, now, earlier in numbers if math.isfinite(now)]
    improved = [name for name, now, earlier in finite if all(now > one for one in earlier)]
    if improved and all(now >= one for _, now, earlier in finite for one in earlier):
        return "best"
    return f"best {improved[0]}" if improved else "kept (newest)"


def metric_of(snapshot: Snapshot) -> tuple[str, float, bool] | None:
    """Heading, value and whether it is a share; ``None`` where the value is not finite."""
    for name, (title, is_share) in EVALUATION_METRICS.items():
        if name in snapshot.valid_metrics:
            value = snapshot.valid_metrics[name]
            return (title, value, is_share) if math.isfinite(value) else None
    return None


def format_metric(value: float, is_share: bool = True) -> str:
    """``75.6 %`` for a share, else ``0.756``."""
    return f"{100 * value:.1f} %" if is_share else f"{value:.3f}"


def format_loss(value: float) -> str:
    """Three decimals; an en dash where the value is not finite."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _negated(value: float) -> float:
    # So that the larger of two compared numbers is always the better one.
    return -value


def curve_summary(
    history: Sequence[Snapshot], verdict: Verdict | None, columns: int, verbose: bool = False
) -> list[str]:
    """Learning curves in lines of at most ``columns`` characters: one row of blocks each for the
    loss on the training sample, the validation loss, the calibrated validation loss (which
    decides) if there is one, and the metric; then the verdict with its reason.

    The losses share one scale, from the lowest to the highest value shown, so that a gap between
    the curves is visible. A loss that is not finite is a cross.
    """
    if not history:
        return []
    losses = {
        "training loss": [s.train_loss for s in history],
        "validation loss": [s.valid_loss for s in history],
    }
    if any(map(is_calibrated, history)):
        losses[" calibrated loss"] = [s.refined_loss for s in history]
    max_blocks = max(MIN_BLOCKS, columns - NAME_WIDTH - NUMBER_WIDTH - 4)
    shown = {name: _subsample(values, max_blocks) for name, values in losses.items()}
    low, high = _finite_range([value for values in shown.values() for value in values])
    lines = [
        _line(name, _final_loss(losses[name][-1]), blocks(values, low, high))
        for name, values in shown.items()
    ]
    return [
        *lines,
        *_metric_line(history, max_blocks),
        *(verdict_lines(verdict, columns, verbose) if verdict else []),
    ]


def verdict_lines(verdict: Verdict, columns: int, verbose: bool = False) -> list[str]:
    """The verdict's title, the step since when it holds, and the reason, wrapped; with every
    measurement if ``verbose``."""
    since = f" since step {verdict.since_step}" if verdict.since_step is not None else ""
    cause = f" Likely cause: {verdict.cause}." if verdict.cause else ""
    because = verdict.because if verbose else main_clause(verdict.because)
    text = printable(f"{verdict_title(verdict.label)}{since}: {lower_first(because)}{cause}")
    return wrap(text, columns - 2, "  ", "    ")


def blocks(values: Sequence[float], low: float, high: float) -> str:
    """One block for each value: the lowest block at ``low``, the highest at ``high``."""
    span = (high - low) or 1.0
    top = len(BLOCKS) - 1

    def one(value: float) -> str:
        if not math.isfinite(value):
            return NOT_FINITE
        return BLOCKS[round(top * min(1.0, max(0.0, (value - low) / span)))]

    return "".join(map(one, values))


def _metric_line(history: Sequence[Snapshot], max_blocks: int) -> list[str]:
    """The line of the metric, on its own scale."""
    metrics = [metric_of(s) for s in history]
    last = metrics[-1]
    if last is None:
        return []
    values = _subsample([one[1] if one else math.nan for one in metrics], max_blocks)
    return [
        _line(
            f"validation {last[0]}",
            format_metric(last[1], last[2]),
            blocks(values, *_finite_range(values)),
        )
    ]


def _line(name: str, number: str, blocks_text: str) -> str:
    return f"  {name:{NAME_WIDTH}}{number:>{NUMBER_WIDTH}}  {blocks_text}"


def _finite_range(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (0.0, 1.0)


def _subsample(values: Sequence[float], max_values: int) -> list[float]:
    """At most ``max_values`` values, evenly spaced, including the newest."""
    if len(values) <= max_values:
        return list(values)
    last = len(values) - 1
    return [values[round(i * last / (max_values - 1))] for i in range(max_values)]


def _final_loss(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "NaN"
