"""What to say where nothing can be said: which question is open, and what would settle it."""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Floats, Remedy
from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors.overfit import rise_evidence, rise_words
from holdfast.monitor.detectors.plateau import better_than_chance
from holdfast.monitor.remedies import (
    for_few_rows,
    for_learning,
    for_miscalibrated,
    for_no_progress,
    for_no_rows,
)
from holdfast.monitor.sign import Sign, item, shown
from holdfast.stats.settle import rows_to_settle

Remedies = tuple[Remedy, ...]
POWER, SURE = 0.8, 0.8
MOST_SPREADS = 1e5  # of what matters: beyond it no number of rows is worth naming


def inconclusive(case: Case) -> Sign:
    """``inconclusive``, with the number of looks or of validation rows that would tell.

    Its confidence is 0: it claims nothing.
    """
    if len(case.history) < 2:
        looked = "one look is" if case.history else "no looks are"
        because = f"{looked} too few to compare: 2 looks are needed"
        return Sign(because, label="inconclusive", remedies=for_learning(case.history))
    if not case.history[-1].valid_losses.size:
        because = "there are no validation rows, so nothing can be said about unseen data"
        return Sign(because, label="inconclusive", remedies=for_no_rows())
    if case.rose and case.accuracy_gap is None:
        because = (
            f"{rise_words(case)}, and without right or wrong answers on both sides nothing tells "
            "whether its answers suffer or only its certainty"
        )
        return Sign(
            because,
            label="inconclusive",
            evidence=rise_evidence(case),
            remedies=(*for_few_rows(), *for_miscalibrated()),
        )
    if case.rose:
        question = "its answers suffer or only its certainty"
        return _open_gap(case, f"{rise_words(case)}, and", question, *for_miscalibrated())
    if case.at_floor and case.accuracy_gap and case.accuracy_gap.value > limits.GAP:
        return _open_gap(
            case,
            "nearly all training rows are right, and",
            f"unseen rows are more than {100 * limits.GAP:.0f} points behind",
        )
    if case.labels is not None and not better_than_chance(case):
        return _open_chance(case)
    if not case.learned.high < 0:
        because = f"{case.loss_name} at its best is not clearly below that of the first snapshot"
        seen = max(case.margin, abs(case.learned.value))
        gap = case.valid[:, case.best] - case.valid[:, 0]
        return _open(case, because, gap, seen, for_no_progress(case.history))
    falling = case.above_best.high <= case.margin
    question = (
        "whether it is still falling"
        if falling
        else f"whether the last state is worse than the best at step {case.best_step}"
    )
    gap = case.valid[:, -1] - case.valid[:, case.before if falling else case.best]
    because = f"{len(gap)} validation rows cannot tell {question}"
    if len(gap) < limits.FEWEST_ROWS:
        because += f": what does not show in fewer than {limits.FEWEST_ROWS} is not excluded"
    return _open(case, because, gap, case.margin, for_few_rows())


def _open_chance(case: Case) -> Sign:
    """Nothing shows that the last state knows more than the class frequencies."""
    assert case.labels is not None
    shares = np.bincount(case.labels) / len(case.labels)
    gap = case.valid[:, -1] + np.log(shares[case.labels])
    because = (
        f"{len(gap)} validation rows do not show that the last state knows more than how often "
        f"each class occurs: {case.loss_name} is {case.valid[:, -1].mean():.3f}, and "
        f"{case.chance:.3f} without reading a row"
    )
    remedies = (
        Remedy("check that the labels belong to these rows"),
        *for_no_progress(case.history),
    )
    return _open(case, because, gap, case.margin, remedies)


def _open_gap(case: Case, before: str, question: str, *more: Remedy) -> Sign:
    """The interval of the gap of right answers holds the line between two labels."""
    gap = case.accuracy_gap
    assert gap is not None
    n = len(case.raw)
    needed = rows_to_clear(n, (gap.high - gap.low) / 2, abs(gap.value - limits.GAP))
    told = f"; about {needed:,.0f} validation rows would settle it" if needed else ""
    rows = (item("validation_rows_needed", float(needed)),) if needed else ()
    seen = (
        rise_evidence(case)
        if case.rose
        else (shown("valid_above_best", case.above_best, case.now),)
    )
    return Sign(
        f"{before} {n} validation rows cannot tell whether {question}{told}",
        label="inconclusive",
        remedies=(*for_few_rows(), *more),
        evidence=(*seen, *rows),
    )


def rows_needed(gap: Floats, small: float) -> int | None:
    """How many rows would find a mean difference of ``small``, in two significant digits, from the
    differences [n] that were seen; ``None`` where so many are there, or where there is no telling.

    Found in ``POWER`` of the cases by the two-sided paired t test that the verdict reads, with the
    spread's upper limit at ``SURE``: of the spread itself half of such answers are too small.
    """
    if not gap.std() < MOST_SPREADS * small:
        return None
    needed = rows_to_settle(gap, small, sides=2, alpha=1 - limits.USUAL, power=POWER, sure=SURE)
    if needed is None or needed <= len(gap):
        return None
    return int(float(f"{needed:.2g}"))


def rows_to_clear(n: int, half: float, short: float) -> int | None:
    """How many rows in the place of n would clear a line that lies ``short`` of an estimate whose
    interval has the half-width ``half``, in ``POWER`` of the cases; ``None`` where n do, or where
    the estimate stands on the line. Rates of different rows, so nothing is paired: the half-width
    z₀.₉₇₅ se shrinks with √n, and z₀.₉₇₅ + z_power errors must fit."""
    from scipy.special import ndtri

    if not half > short > MOST_SPREADS**-1:
        return None
    errors = 1 + float(ndtri(POWER) / ndtri((1 + limits.USUAL) / 2))
    return int(float(f"{math.ceil(n * (errors * half / short) ** 2):.2g}"))


def _open(case: Case, because: str, gap: Floats, small: float, remedies: Remedies) -> Sign:
    needed = rows_needed(gap, small)
    told = f"; about {needed:,} validation rows would settle it" if needed else ""
    rows = (item("validation_rows_needed", float(needed)),) if needed else ()
    return Sign(
        because + told,
        label="inconclusive",
        remedies=remedies,
        evidence=(
            shown("valid_above_best", case.above_best, case.now),
            shown("valid_recent_change", case.recent, case.now),
            shown("valid_best_against_first", case.learned, case.now),
            *rows,
        ),
    )
