"""What a search's trials say together: which one is kept, what it may be expected to score, whom
the best has left behind, and whether another is worth its price.

A race holds two trials against each other, row by row: who is dropped before all rows have spoken.
Rows arrive in pieces, a fold at a time, or all of them at an evaluation of a run. Evidence is an
e-value, so that it may be read after every row: a trial that is no worse than a leader that was
named before is dropped with a chance of ``ERROR`` at most, however often one checks. A leader that
these very rows made the best of many has their luck too: of trials that are all alike 8 % are
dropped on 240 rows behind the best of 8, and 18 to 25 % on 240 to 600 rows behind the best of 32
(300 simulated searches each). That costs a trial as good as the leader, and never the leader; so no
p-value is reported. Sibling: ``stats.streams.means.sums_evidence`` holds under a law that drifts,
and needs four times as many rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect, TrainingError
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.search.rules.shrinkage import WRONG, Shrunken, probability_scores, shrink_gains
from holdfast.search.rules.winner import LEVEL, ScoreRange, expected_score, select_winner
from holdfast.search.study import TrialResult

ERROR = 0.1


# Bets, from tiny effects to one that a single row can nearly lose.
STAKES = np.geomspace(0.05, 0.9, 12)


def race(trial: Floats, leader: Floats, *, margin: float = 0.0, error: float = ERROR) -> str | None:
    """The reason to stop a trial, by its rows against the leader's in the order in which they came;
    ``None`` while there is none.

    With g_i the leader's predicted probability of the correct label minus the trial's on row i,
    within ±1, the evidence after each row is the mean over stakes λ of ∏ (1 + λ (g_i − margin) ÷ (1
    + margin)), an e-value against "the trial is not worse by more than ``margin``" (2010.09686). If
    the trial is not worse, its mean is 1 at most, and it reaches 1/error with probability ``error``
    at most (Ville), whatever the distribution of g. If it reaches 1/error, the trial is dropped.

    Parameters
    ----------
    trial, leader : [n] losses of the same rows in nats; their order must not depend on them.
    margin : in shares of the score, in [0, 1).
    error : in (0, 1).

    Raises ``Defect`` for rows of different numbers, or a margin or an error outside. No rows: no
    evidence.
    """
    if len(trial) != len(leader):
        raise Defect("the trials of a race", "must be of the same rows", (len(trial), len(leader)))
    if not 0 <= margin < 1 or not 0 < error < 1:
        rule = "need 0 ≤ margin < 1 and 0 < error < 1"
        raise Defect("the margin and the error of a race", rule, (margin, error))
    if not len(trial):
        return None
    scores = probability_scores({"trial": trial, "leader": leader})
    gap = scores["leader"] - scores["trial"]
    bets = np.log1p(STAKES * ((gap - margin) / (1 + margin))[:, None])
    evidence = float(np.exp(bets.cumsum(axis=0)).mean(axis=1).max())
    if evidence < 1 / error:
        return None
    margin_text = f" by more than {100 * margin:g} points" if margin else ""
    return (
        f"its mean score (exp(−loss) of a row: for classes, the probability of the correct one) is "
        f"{100 * float(gap.mean()):.1f} points lower than the best trial's over {len(gap)} rows, "
        f"and it is worse{margin_text} (e-value {evidence:.3g}, which includes the best trial's "
        "selection bias)"
    )


# What a trial that costs as much as the default must be expected to bring, in shares of the score;
# and how many trials are seen before that is tested. Chosen on the cheap arena.
PRICE, MIN_TRIALS = 0.001, 4


def stop_reason(
    losses: Mapping[str, Floats], costs: Mapping[str, float], default: str, *, price: float = PRICE
) -> str | None:
    """The reason to stop a search, or ``None`` if the next trial is worth its cost.

    ``losses`` [n] of each trial in nats and ``costs`` as for ``winner``. The cost of a trial is the
    average of the trials; its price is ``price`` times that over the default's cost. Stops at once
    if ``price`` is infinite, never if it is 0; the first four trials are always run.
    """
    if len(losses) - 1 < MIN_TRIALS:
        return None
    estimates = shrink_gains(probability_scores(losses), default)
    gain = next_gain(estimates)
    others = [costs[key] for key in losses if key != default]
    required_gain = price * float(np.mean(others)) / costs[default]
    if gain >= required_gain:
        return None
    return (
        f"the next trial is expected to gain {100 * gain:.2f} points on unseen rows, less than the "
        f"{100 * required_gain:.2f} that would justify its cost"
    )


def next_gain(estimates: Shrunken) -> float:
    """The expected increase of the winner's expected score by one more random trial.

    A new setting has the true gain δ ~ N(μ, τ²), and is measured with the noise s² of the earlier
    ones. Its posterior mean, μ + τ² (D − μ) ÷ (τ² + s²), is N(μ, σ²) with σ² = τ⁴ ÷ (τ² + s²).
    Above the best posterior mean so far, b, that is worth σ (φ(z) + z Φ(z)), z = (μ − b) ÷ σ: the
    expected improvement (Jones and others 1998) of the posterior mean, not of the measured score,
    which chance improves for ever. It is averaged over μ and τ as the trials showed them; a setting
    that fails gains nothing.
    """
    from scipy.special import ndtr

    errors = estimates.errors[estimates.errors > 0]
    noise = float(np.median(errors)) ** 2 if len(errors) else 0.0
    spread = estimates.spreads**2 / np.sqrt(estimates.spreads**2 + noise)
    z = (estimates.centres - float(estimates.mean.max())) / spread
    expected_gain = spread * (np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) + z * ndtr(z))
    return float((1 - WRONG) * (estimates.weights @ expected_gain))


DEFAULT = "the default"


@dataclass(frozen=True, slots=True, eq=False)
class SearchVerdict:
    """The ``winner`` with the reason; ``noise``: no trial is shown to be better than the default.
    ``most_promising`` is the trial with the largest expected ``gain`` over the default, a share of
    the score. ``p_value`` says whether it is better, ``p_average`` whether the average trial is
    (corrected for the number of trials). ``top`` is the trial with the best measured score,
    ``default`` the default's. ``expected`` is the winner's expected score, ``optimism`` the
    selection bias of its measured score; ``expected_by_number`` the expected score of every
    complete trial, by number."""

    winner: TrialResult
    top: TrialResult
    default: TrialResult | None
    because: str
    noise: bool
    most_promising: TrialResult
    gain: float
    p_value: float
    p_average: float
    expected: ScoreRange
    optimism: ScoreRange
    expected_by_number: dict[int, float]


def judge_trials(
    results: Sequence[TrialResult], metric: str, test_rows: int, units: Ints | None = None
) -> SearchVerdict:
    """``test_rows`` is the number of rows for which the expected score is given; ``units`` [n] are
    those of the scored rows (``winner``), left out if trials are scored on pieces of rows. Raises
    ``TrainingError`` if no trial finished."""
    scored = [one for one in results if one.is_fully_scored]
    if not scored:
        because = results[0].because if results else "none was started"
        remedy = "Try `holdfast train` with its defaults, or a more moderate search space."
        raise TrainingError("the search", "has no finished trial", because, remedy)
    baseline = reference_trial(scored)
    by_name = {trial_name(one): one for one in scored}
    losses = {key: one.losses for key, one in by_name.items()}
    correct = {key: one.correct for key, one in by_name.items() if one.correct is not None}
    has_accuracy = metric == "accuracy" and len(correct) == len(by_name)
    # Doubt speaks for a default, and not for the trial in the middle that takes its place.
    level = LEVEL if baseline.origin == "default" else 1.0
    answers = correct if has_accuracy else None
    units = units if units is not None and len(units) == len(baseline.losses) else None
    selection = select_winner(
        losses, answers, trial_costs(scored), trial_name(baseline), level=level, units=units
    )
    # More is better in both: of losses the expected score is that of their negative.
    row_scores = correct if has_accuracy else {key: -rows for key, rows in losses.items()}
    sign = 1.0 if has_accuracy else -1.0
    expected_scores = {
        key: expected_score(
            row_scores,
            key,
            trial_name(baseline),
            losses=losses,
            test_rows=test_rows or None,
            units=units,
        )
        for key in by_name
    }
    expected = expected_scores[selection.key]
    return SearchVerdict(
        winner=by_name[selection.key],
        top=max(scored, key=lambda one: (float(row_scores[trial_name(one)].mean()), -one.number)),
        default=baseline if baseline.origin == "default" else None,
        because=selection.because,
        noise=selection.noise or selection.key == trial_name(baseline),
        most_promising=by_name[selection.most_promising],
        gain=selection.gain,
        p_value=selection.p_value,
        p_average=selection.p_average,
        expected=expected.signed(sign),
        optimism=expected.optimism,
        expected_by_number={
            by_name[key].number: sign * one.value for key, one in expected_scores.items()
        },
    )


def reference_trial(scored: Sequence[TrialResult]) -> TrialResult:
    """The default; if it did not finish, the median trial."""
    default = next((one for one in scored if one.origin == "default"), None)
    ranked = sorted(scored, key=lambda one: (float(one.losses.mean()), one.number))
    return default or ranked[len(ranked) // 2]


def trial_name(one: TrialResult) -> str:
    """A trial's name in sentences."""
    return DEFAULT if one.origin == "default" else f"trial {one.number}"


def trial_costs(scored: Sequence[TrialResult]) -> dict[str, float]:
    """The cost of each trial: rows passed, so that the winner does not depend on a clock."""
    return {trial_name(one): max(one.cost, 1.0) for one in scored}


def search_stop_reason(results: Sequence[TrialResult]) -> str | None:
    """Why another trial is not worth its cost; ``None`` if it is."""
    scored = [one for one in results if one.is_fully_scored]
    losses = {trial_name(one): one.losses for one in scored}
    return stop_reason(losses, trial_costs(scored), trial_name(reference_trial(scored)))


def trial_stop_reason(trial: TrialResult, results: Sequence[TrialResult]) -> str | None:
    """Why a trial with some finished folds is stopped: the best complete trial is significantly
    better on the rows of these folds. The default always continues, since all trials are compared
    with it."""
    scored = [one for one in results if one.is_fully_scored]
    if not scored or trial.origin == "default":
        return None
    leader = leading_trial(scored)
    # The race holds for rows in random order, and sources are often sorted by class.
    order = generator(0, "race").permutation(len(trial.losses))
    judged_rows = order[np.isfinite(trial.losses[order])]
    return race(trial.losses[judged_rows], leader.losses[judged_rows])


def leading_trial(scored: Sequence[TrialResult]) -> TrialResult:
    """The trial with the highest expected score."""
    names = {trial_name(one): one for one in scored}
    rows: dict[str, Floats] = {key: one.losses for key, one in names.items()}
    estimates = shrink_gains(probability_scores(rows), trial_name(reference_trial(scored)))
    return names[estimates.keys[int(np.argmax(estimates.mean))]]
