"""What to say where nothing can be said: which question is open, and what would settle it."""

from __future__ import annotations

import math

from holdfast.core.records import Remedy
from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors.overfit import rise_evidence, rise_words
from holdfast.monitor.remedies import (
    for_few_rows,
    for_learning,
    for_miscalibrated,
    for_no_progress,
    for_no_rows,
)
from holdfast.monitor.sign import Sign, item, shown
from holdfast.stats.paired import Difference

Remedies = tuple[Remedy, ...]


def inconclusive(case: Case) -> Sign:
    """``inconclusive``, with the number of looks or of validation rows that would tell.

    Its confidence is 0: it claims nothing.
    """
    if len(case.history) < 2:
        because = f"{len(case.history)} snapshots are too few to compare: 2 looks are needed"
        return Sign(because, label="inconclusive", remedies=for_learning(case.history))
    if not case.history[-1].valid_losses.size:
        because = "there are no validation rows, so nothing can be said about unseen data"
        return Sign(because, label="inconclusive", remedies=for_no_rows())
    if case.rose:
        question = "its answers suffer or only its certainty"
        return _open_gap(case, f"{rise_words(case)}, and", question, *for_miscalibrated())
    if case.at_floor and case.accuracy_gap and case.accuracy_gap.value > limits.GAP:
        return _open_gap(
            case,
            "the training rows are at their floor, and",
            f"unseen rows are more than {100 * limits.GAP:.0f} points behind",
        )
    if not case.learned.high < 0:
        because = f"{case.loss_name} at its best is not clearly below that of the first snapshot"
        seen = max(case.margin, abs(case.learned.value))
        return _open(case, because, case.learned, seen, for_no_progress(case.history))
    falling = case.above_best.high <= case.margin
    question = (
        "whether it is still falling"
        if falling
        else f"whether the last state is worse than the best at step {case.best_step}"
    )
    gap = case.recent if falling else case.above_best
    because = f"{gap.n} validation rows cannot tell {question}"
    if gap.n < limits.FEWEST_ROWS:
        because += f": what does not show in fewer than {limits.FEWEST_ROWS} is not excluded"
    return _open(case, because, gap, case.margin, for_few_rows())


def _open_gap(case: Case, before: str, question: str, *more: Remedy) -> Sign:
    """The interval of the gap of right answers holds the line between two labels."""
    gap = case.accuracy_gap
    assert gap is not None
    n = len(case.raw)
    # The half-width shrinks with the root of the rows, and must clear the line on one side.
    short, half = abs(gap.value - limits.GAP), (gap.high - gap.low) / 2
    needed = float(f"{math.ceil(n * (half / short) ** 2):.2g}") if half > short > 0 else None
    told = f"; about {needed:,.0f} would settle it" if needed else ""
    rows = (item("validation_rows_needed", needed),) if needed else ()
    seen = rise_evidence(case) if case.rose else (shown("valid_above_best", case.above_best,
                                                        case.now),)  # fmt: skip
    return Sign(
        f"{before} {n} validation rows cannot tell whether {question}{told}",
        label="inconclusive",
        remedies=(*for_few_rows(), *more),
        evidence=(*seen, *rows),
    )


def rows_needed(gap: Difference, small: float) -> int | None:
    """How many rows would shrink the half-width of this interval to a size that matters; ``None``
    where they are enough, or where one row gives no width."""
    half = (gap.high - gap.low) / 2
    if not math.isfinite(half) or half <= small:
        return None
    return int(float(f"{math.ceil(gap.n * (half / small) ** 2):.2g}"))


def _open(case: Case, because: str, gap: Difference, small: float, remedies: Remedies) -> Sign:
    needed = rows_needed(gap, small)
    told = f"; about {needed:,} validation rows would settle it" if needed else ""
    rows = (item("validation_rows_needed", float(needed)),) if needed else ()
    return Sign(
        because + told, label="inconclusive", remedies=remedies,
        evidence=(
            shown("valid_above_best", case.above_best, case.now),
            shown("valid_recent_change", case.recent, case.now),
            shown("valid_best_against_first", case.learned, case.now), *rows,
        ),
    )  # fmt: skip
