"""The ``inconclusive`` verdict: the question that is open, and how many rows would decide it."""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Evidence, Floats
from holdfast.core.wording import percent_phrase
from holdfast.monitor import limits
from holdfast.monitor.detectors.progress import better_than_chance
from holdfast.monitor.detectors.rises import rise_evidence, rise_words
from holdfast.monitor.evidence import AccuracyGap
from holdfast.monitor.history import History
from holdfast.monitor.remedies import MOST_VALID, Remedies, remedies_for
from holdfast.monitor.symptom import Symptom, difference_evidence, evidence_item
from holdfast.stats.paired_tests import rows_needed_for_power

# The usual power of a planned experiment (Cohen 1988), and the confidence that the spread is not
# larger.
POWER, SURE = 0.8, 0.8
LARGER_SPLIT = 0.25 / 0.15  # the validation rows by ``MOST_VALID`` ÷ those by default
MOST_SPREADS = 1e5  # spread ÷ relevant difference: above it no number of rows is worth naming


def inconclusive(history: History) -> Symptom:
    """``inconclusive``, with the number of evaluations or validation rows that would decide.

    Its confidence is 0, since it claims nothing.
    """
    if len(history.snapshots) < 2:
        because = (
            "there is one evaluation" if history.snapshots else "there is no evaluation"
        ) + ", and a comparison needs at least 2"
        return Symptom(because, label="inconclusive", remedies=remedies_for("learning", history))
    if not history.snapshots[-1].valid_losses.size:
        because = "there are no validation rows, so nothing is known about unseen data"
        return Symptom(because, label="inconclusive", remedies=remedies_for("no rows"))
    accuracy_gap = history.accuracy_gap
    if history.has_risen or (history.at_floor and accuracy_gap and accuracy_gap.value > limits.GAP):
        return _undecided_gap(history, accuracy_gap)
    if history.labels is not None and not better_than_chance(history):
        # Nothing shows that the last checkpoint predicts better than the class frequencies.
        shares = np.bincount(history.labels) / len(history.labels)
        gap = history.valid[:, -1] + np.log(shares[history.labels])
        because = (
            f"{len(gap)} validation rows do not show that the last checkpoint predicts better than "
            f"the class frequencies: {history.loss_name} is {history.valid[:, -1].mean():.3f}, and "
            f"that of the class frequencies {history.chance:.3f}"
        )
        difference_seen = max(history.margin, abs(float(gap.mean())))
        finding = "few rows" if history.informs(-1) else "nothing learned"
        return _undecided(history, because, gap, difference_seen, remedies_for(finding, history))
    if not history.gain_over_first.high < 0:
        because = (
            f"{history.loss_name} did not fall significantly below that of the first evaluation"
        )
        difference_seen = max(history.margin, abs(history.gain_over_first.value))
        gap = history.valid[:, history.best] - history.valid[:, 0]
        return _undecided(
            history, because, gap, difference_seen, remedies_for("no progress", history)
        )
    is_falling = history.above_best.high <= history.margin
    question = (
        f"whether {history.loss_name} is still falling"
        if is_falling
        else f"whether the last checkpoint is worse than the best one, of step {history.best_step}"
    )
    gap = (
        history.valid[:, -1]
        - history.valid[:, history.window_start if is_falling else history.best]
    )
    because = f"{len(gap)} validation rows are too few to decide {question}"
    if len(gap) < limits.FEWEST_ROWS and not rows_needed(gap, history.margin):
        because += f": with fewer than {limits.FEWEST_ROWS} rows a rise may go unnoticed"
    return _undecided(history, because, gap, history.margin, remedies_for("few rows"))


def _undecided_gap(history: History, gap: AccuracyGap | None) -> Symptom:
    """The question of the accuracy gap: its interval contains the threshold between two labels, or
    correct and wrong predictions are not known."""
    if history.has_risen:
        question = "its predictions got worse or only their probabilities"
        before, evidence = f"{rise_words(history)}, and", rise_evidence(history)
        remedies = (*remedies_for("few rows"), *remedies_for("miscalibrated"))
        if gap is None:
            before += " without the accuracy on training and validation rows it is unknown whether"
            return _with_rows_needed(f"{before} {question}", 0, None, evidence, remedies)
    assert gap is not None
    if not history.has_risen:
        question = f"it is more than {100 * limits.GAP:.0f} points lower on new rows"
        before = f"{gap.subject} on training rows is {percent_phrase(gap.train)}, and"
        evidence = (difference_evidence("valid_above_best", history.above_best, history.last_step),)
        remedies = remedies_for("few rows")
    n = len(history.raw)
    needed = rows_to_clear(n, (gap.high - gap.low) / 2, abs(gap.value - limits.GAP))
    because = f"{before} {n} validation rows are too few to decide whether {question}"
    return _with_rows_needed(because, n, needed, evidence, remedies)


def rows_needed(gap: Floats, small: float) -> int | None:
    """How many rows are needed to detect a mean difference of ``small``, to two significant digits,
    given the observed differences [n]; ``None`` where n are enough or the number is unknown.

    The power is ``POWER`` of the two-sided paired t-test that the verdict uses, at the upper
    confidence limit (level ``SURE``) of the standard deviation. With the observed standard
    deviation itself, half of these numbers would be too small.
    """
    if not gap.std() < MOST_SPREADS * small:
        return None
    needed = rows_needed_for_power(
        gap, small, sides=2, alpha=1 - limits.INTERVAL_LEVEL, power=POWER, spread_confidence=SURE
    )
    if needed is None or needed <= len(gap):
        return None
    return _two_digits(needed)


def rows_to_clear(n: int, half: float, short: float) -> int | None:
    """How many rows in place of n would separate an estimate from a threshold at distance
    ``short``, where ``half`` is the half-width of its 95 % interval: one-sided at 95 %, with power
    ``POWER``. ``None`` where n are enough, or where the estimate equals the threshold.

    The two rates are of different rows, so nothing is paired: the half-width z₀.₉₇₅ se shrinks with
    √n, and z₀.₉₅ + z_power standard errors must fit."""
    from scipy.special import ndtri

    error = half / float(ndtri(0.5 + limits.INTERVAL_LEVEL / 2))
    needed = float(ndtri(limits.INTERVAL_LEVEL) + ndtri(POWER)) * error
    if not ndtri(limits.INTERVAL_LEVEL) * error > short > MOST_SPREADS**-1:
        return None
    return _two_digits(n * (needed / short) ** 2)


def _two_digits(rows: float) -> int:
    """``rows`` rounded up to two significant digits: the spread that it is based on is no more
    precise. Up, so that it is never the number of rows that were too few."""
    unit = int(10 ** max(0, math.floor(math.log10(rows)) - 1))
    return math.ceil(rows / unit) * unit


def _undecided(
    history: History, because: str, gap: Floats, small: float, remedies: Remedies
) -> Symptom:
    evidence = (
        difference_evidence("valid_above_best", history.above_best, history.last_step),
        difference_evidence("valid_recent_change", history.recent_change, history.last_step),
        difference_evidence("valid_best_against_first", history.gain_over_first, history.last_step),
    )
    return _with_rows_needed(because, len(gap), rows_needed(gap, small), evidence, remedies)


def _with_rows_needed(
    because: str, n: int, needed: int | None, evidence: tuple[Evidence, ...], remedies: Remedies
) -> Symptom:
    """The symptom with the number of validation rows that would decide in place of ``n``, where it
    is known. Another split of the same rows is no remedy if it would not have so many."""
    if needed:
        if needed > LARGER_SPLIT * n:
            remedies = tuple(one for one in remedies if one.set != MOST_VALID)
        because += f" (about {needed:,} validation rows would decide)"
        evidence = (*evidence, evidence_item("validation_rows_needed", float(needed)))
    return Symptom(because, label="inconclusive", evidence=evidence, remedies=remedies)
