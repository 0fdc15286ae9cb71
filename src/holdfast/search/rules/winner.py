"""The configuration that a search chooses, and its expected score on unseen rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.core.wording import count_phrase, p_value_phrase, signed
from holdfast.search.rules.shrinkage import Shrunken, probability_scores, shrink_gains
from holdfast.stats.intervals import design_effect, wilson
from holdfast.stats.paired_tests import by_groups, paired_t
from holdfast.stats.two_samples import weighted_holm

# A search takes another setting than a default as good as any other with this chance at most,
# however many trials it has.
LEVEL = 0.05
# By so much of the score a cheaper setting may be expected to be worse, and a gain below it is not
# worth another setting. It costs less than a tenth of a point.
MIN_GAIN = 0.002


@dataclass(frozen=True, slots=True)
class Winner:
    """The configuration that a search chooses: its ``key``, and ``because`` in a sentence.

    ``noise``: no trial is shown to be better than the default, or only by too little; the default
    is chosen. ``most_promising`` is the trial with the largest expected ``gain`` over the default,
    in shares of the score, and ``p_value`` that of "it is not better than the default",
    ``p_average`` that of "the average trial is not" (both corrected; 1 for the default itself).
    """

    key: str
    because: str
    noise: bool
    most_promising: str
    gain: float
    p_value: float
    p_average: float


def select_winner(
    losses: Mapping[str, Floats],
    correct: Mapping[str, Floats] | None,
    costs: Mapping[str, float],
    default: str,
    *,
    level: float = LEVEL,
    units: Ints | None = None,
) -> Winner:
    """The trial with the largest gain over the default, as ``shrunken`` has it, of those that are
    shown to be better than the default; the default where none is.

    Shown is what one-sided paired t-tests of the probability of the label say at ``level``, after
    a correction for all of them (``p_values``): of the trial itself, or of the average trial. A
    default that is worse than the average trial is a bad one, which many trials show with fewer
    rows than any single one; of a good default neither is true. The trial must also predict no
    fewer validation rows correctly and be expected to gain more than 0.2 points. The default was
    measured on many sets and these rows are few, so the doubt is on the trials' side. Of the
    trials that may replace it, those that are expected to be at most 0.2 points worse than the best
    of them take its place, the cheapest first.

    Parameters
    ----------
    losses : of each trial [n] in nats, the same validation rows in the same order.
    correct : of each trial [n], 1 where a row is right. Without them only the probability counts.
    costs : of each trial, in any unit (updates, seconds), above 0.
    default : the trial that is taken where nothing says otherwise.
    level : the chance, at most, to leave a default that no trial is better than; 1 asks for no
        evidence, where the trial compared with is no default.
    units : [n] of each row, whole numbers: rows of one unit (a group, copies) are no evidence of
        their own. Without them each row is.

    Raises ``Defect`` for rows that differ between trials, a default that is no trial, and a trial
    without a cost.
    """
    for key in losses:
        if not costs.get(key, 0.0) > 0:
            cost_text = f"{key}: {costs.get(key)}"
            raise Defect("the cost of a trial", "must be above 0", cost_text)
    scores = probability_scores(losses)
    gains = shrink_gains(scores, default, units)
    best, base = int(np.argmax(gains.mean)), gains.index(default)
    rows = count_phrase(len(losses[default]), "validation row")
    if best == base:
        others = count_phrase(len(losses) - 1, "other setting")
        because = f"none of {others} is expected to be better, on {rows}"
        if len(losses) == 1:
            because = "no other setting was tried"
        return Winner(default, because, False, default, 0.0, 1.0, 1.0)
    p, average = p_values(scores, default, units)
    # By what share of the rows each predicts more correctly than the default.
    correct_gain = np.zeros(len(losses))
    if correct is not None:
        base_rate = np.mean(correct[default])
        correct_gain = np.array([float(np.mean(correct[key]) - base_rate) for key in losses])
    is_proven = (np.minimum(p, average) <= level) & (correct_gain >= 0) & (gains.mean > MIN_GAIN)
    is_proven[base] = False
    best_key, gain = gains.keys[best], float(gains.mean[best])
    quantity = "exp(−loss) of a row" if correct is None else "probability of the correct label"
    evidence = _Evidence(gains, default, p, average, quantity)
    if not is_proven.any():
        because = (
            f"{evidence.kept_because(best, rows, correct_gain[best], level)}, so {default} is kept"
        )
        return Winner(default, because, True, best_key, gain, float(p[best]), average)
    lead = int(np.argmax(np.where(is_proven, gains.mean, -np.inf)))
    as_good = is_proven & (gains.mean[lead] - gains.mean <= MIN_GAIN)
    cost = np.array([costs[key] for key in gains.keys])
    selected = int(np.argmin(np.where(as_good, cost, np.inf)))
    because = evidence.selected_because(
        selected, lead, None if correct is None else correct_gain[selected]
    )
    return Winner(gains.keys[selected], because, False, best_key, gain, float(p[best]), average)


def p_values(
    scores: Mapping[str, Floats], default: str, units: Ints | None = None
) -> tuple[Floats, float]:
    """For each trial [K] the p-value of "not better than the default", and that of "the average
    trial is not": one-sided paired t-tests of the ``scores`` by ``units``, corrected together.

    Holm's procedure with weights: half of the level is for the average of the K − 1 trials, the
    other half for the trials in equal parts. So a default that no trial, and not the average trial,
    improves on is declared worse with probability ``level`` at most. A single trial is its own
    average. The p-value is 1 for the default itself, and for all if there is only one row.
    """
    others = [key for key in scores if key != default]
    if not others:
        return np.ones(len(scores)), 1.0
    rows = [scores[key] for key in others]
    rows += [np.mean(rows, axis=0)] if len(others) > 1 else []
    uncorrected = np.array([1 - paired_t(one, scores[default], groups=units).above for one in rows])
    weights = np.ones(len(rows))
    weights[len(others) :] = len(others)
    corrected = weighted_holm(np.nan_to_num(uncorrected, nan=1.0), weights)
    by_key = dict(zip(others, corrected[: len(others)], strict=True))
    return np.array([by_key.get(key, 1.0) for key in scores]), float(corrected[-1])


@dataclass(frozen=True, slots=True)
class _Evidence:
    """The tests that show trials to be better than the default, in words; ``quantity`` names what
    exp(−loss) of a row is."""

    gains: Shrunken
    default: str
    p: Floats
    average: float
    quantity: str

    def test_text(self, place: int) -> str:
        """The test of one trial: its own, or that of the average trial."""
        if self.p[place] <= self.average:
            return self._p_text(self.p[place])
        return f"{self.default} is worse than the average trial: {self._p_text(self.average)}"

    def selected_because(self, selected: int, lead: int, correct_gain: float | None) -> str:
        """Why this trial is chosen, where ``lead`` has the largest expected gain."""
        gains = self.gains
        because = (
            f"its mean {self.quantity} differs from {self.default} by "
            f"{signed(100 * gains.measured[selected])} points ({self.test_text(selected)}); "
            f"{signed(100 * gains.mean[selected])} points are expected on unseen rows"
        )
        if correct_gain is not None:
            because += f"; validation accuracy {signed(100 * correct_gain)} points"
        if selected != lead:
            because += (
                f"; {gains.keys[lead]} is expected to be better by less than {100 * MIN_GAIN:g} "
                "points and costs more"
            )
        return because

    def kept_because(self, best: int, rows: str, correct_gain: float, level: float) -> str:
        """Why the trial with the largest expected gain is not chosen."""
        top, gain = self.gains.keys[best], float(self.gains.mean[best])
        if min(self.p[best], self.average) > level:
            return (
                f"{top} is expected to be better by {100 * gain:.1f} points, but {rows} do not "
                f"show a difference from {self.default} ({self._p_text(self.p[best])})"
            )
        if correct_gain < 0:
            return (
                f"{top} has a higher mean {self.quantity} "
                f"({self.test_text(best)}), but its validation accuracy is lower by "
                f"{-100 * correct_gain:.1f} points"
            )
        return (
            f"{top} is better than {self.default} ({self.test_text(best)}), but only by an "
            f"expected {100 * gain:.2f} points, less than the {100 * MIN_GAIN:g} points that "
            "justify a change"
        )

    def _p_text(self, p_value: float) -> str:
        trials = count_phrase(len(self.gains.keys) - 1, "trial")
        return p_value_phrase(p_value, f"paired t-test, Holm's correction for {trials}")


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """A number with its interval."""

    value: float
    low: float
    high: float

    def signed(self, sign: float) -> ScoreRange:
        """The range of ``sign`` times the number: for a loss, whose negative is the score."""
        low, high = sorted((sign * self.low, sign * self.high))
        return ScoreRange(sign * self.value, low, high)


@dataclass(frozen=True, slots=True)
class ExpectedScore(ScoreRange):
    """The expected score of the chosen configuration on unseen rows, ``value`` with an interval, in
    the unit of the score. ``measured`` is its score on the rows that chose it, and ``optimism`` the
    selection bias: measured − value, with the resulting interval."""

    measured: float
    optimism: ScoreRange


def expected_score(
    score: Mapping[str, Floats],
    selected: str,
    default: str,
    *,
    losses: Mapping[str, Floats] | None = None,
    test_rows: int | None = None,
    level: float = 0.95,
    units: Ints | None = None,
) -> ExpectedScore:
    """The score of ``selected`` on rows to come, without the luck that choosing it has bought.

    Of the chosen setting's gain over the default in the probability of what was right, D, the part
    D − E(δ | all trials) is luck (``shrunken``). The score's own differences go with it, row by
    row, by a slope β = cov(score, probability) ÷ var(probability), so the optimism of the score is
    β (D − E δ), and 0 for the default, which nothing chose. It takes no resampling, and is as near
    the truth as the bootstrap's (1708.07180) in the arena.

    The interval is Wilson's for a score of 0 and 1 (around the corrected rate, by Student's
    quantile), Student's for any other, corrected for the skew of the rows (losses have a long tail:
    on 60 rows Student's own held the truth in 89 %), for the mean over all rows to come; with
    ``test_rows`` for the mean over so many of them.

    Parameters
    ----------
    score : of each trial [n], the same validation rows: 1 and 0 for right and wrong, or any score
        whose mean is the metric (such as −loss).
    selected, default : of the trials.
    losses : of each trial [n] in nats; without them ``score`` itself says what was luck.
    level : of the interval, in (0, 1).
    units : [n] of each row, whole numbers: rows of one unit (a group, copies) are no evidence of
        their own, so Wilson's rows are n ÷ their design effect. Without them each row is.

    Raises ``Defect`` for rows that differ between trials, or a key that is no trial.
    """
    for key in (selected, default):
        if key not in score:
            raise Defect("a setting of a search", "must be one of its trials", key)
    rows = {key: np.asarray(values, dtype=np.float64) for key, values in score.items()}
    luck = _selection_luck(rows, selected, default, losses, units)
    measured = float(rows[selected].mean())
    rate = bool(np.isin(rows[selected], (0.0, 1.0)).all())
    value = min(1.0, max(0.0, measured - luck)) if rate else measured - luck
    low, high = _interval(rows[selected], value, rate, test_rows, level, units)
    optimism = ScoreRange(measured - value, measured - high, measured - low)
    return ExpectedScore(value, low, high, measured, optimism)


def _selection_luck(
    rows: Mapping[str, Floats],
    selected: str,
    default: str,
    losses: Mapping[str, Floats] | None,
    units: Ints | None,
) -> float:
    """The expected drop of the mean of ``selected`` on other rows."""
    if selected == default:
        return 0.0
    row_probabilities = probability_scores(losses) if losses is not None else rows
    gains = shrink_gains(row_probabilities, default, units)
    place = gains.index(selected)
    excess = float(gains.measured[place] - gains.mean[place])
    if losses is None:
        return excess
    gap, probability_gap = (
        rows[selected] - rows[default],
        row_probabilities[selected] - row_probabilities[default],
    )
    variance = float(probability_gap.var())
    return (
        float(np.mean((gap - gap.mean()) * probability_gap)) / variance * excess
        if variance > 0
        else 0.0
    )


def _interval(
    rows: Floats,
    value: float,
    is_rate: bool,
    test_rows: int | None,
    level: float,
    units: Ints | None,
) -> tuple[float, float]:
    from scipy.special import stdtrit

    count = len(rows)
    n = count if units is None else len(np.unique(units))
    if is_rate:
        # A mean over m rows of its own has their noise too: as if fewer rows had been seen.
        effective = count if test_rows is None else count * test_rows / (count + test_rows)
        effective /= 1.0 if units is None or n < 2 else design_effect(rows > 0, units)
        # Student's quantile: what was taken off as luck is itself worked out from these rows.
        return wilson(
            value * effective, effective, quantile=float(stdtrit(max(1, n - 1), 0.5 + level / 2))
        )
    if n < 2:
        return -math.inf, math.inf
    rows = rows if units is None else by_groups(rows, units)
    spread = float(rows.std(ddof=1))
    share = (1 if test_rows is None else 1 + count / test_rows) / n
    quantile = float(stdtrit(n - 1, 0.5 + level / 2))
    if spread == 0:
        return value, value
    skew, root = float(np.mean((rows - rows.mean()) ** 3)) / spread**3, math.sqrt(n)

    def unskewed(q: float) -> float:
        """The quantile of t = (mean − truth) ÷ error for rows of this skewness: with g the
        skewness, (3√n ÷ g) (∛(1 + g (q ÷ √n − g ÷ 6n)) − 1), the inverse of Hall's transformation
        (1992)."""
        if abs(skew) < 1e-6:
            return q
        return 3 * root / skew * (float(np.cbrt(1 + skew * (q / root - skew / (6 * n)))) - 1)

    wide = spread * math.sqrt(share)
    return value - wide * unskewed(quantile), value - wide * unskewed(-quantile)
