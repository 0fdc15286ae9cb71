"""What a search's trials say together: which one is kept, what it may be expected to score, whether
another is worth its price, and whom the best has left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import TrainingError
from holdfast.core.records import Floats, Ints
from holdfast.search.rules.shrinkage import scores_of, shrunken
from holdfast.search.rules.stop import end_now, race
from holdfast.search.rules.winner import LEVEL, ScoreRange, expected_test, winner
from holdfast.search.study import TrialResult

DEFAULT = "the default"


@dataclass(frozen=True, slots=True, eq=False)
class SearchVerdict:
    """The ``winner`` with the reason; ``noise``: no trial is shown to be better than the default.
    ``looked_best`` is the trial of the largest expected ``gain`` over the default, a share of the
    score. ``p_value`` says whether it is better, ``p_average`` whether the average trial is
    (corrected for the number of trials). ``top`` is the trial with the best score seen,
    ``default`` the default's. ``expected`` is what the winner may be expected to score,
    ``optimism`` by how much its score is too good; ``each`` what every whole trial may be expected
    to score, by number."""

    winner: TrialResult
    top: TrialResult
    default: TrialResult | None
    because: str
    noise: bool
    looked_best: TrialResult
    gain: float
    p_value: float
    p_average: float
    expected: ScoreRange
    optimism: ScoreRange
    each: dict[int, float]


def judged(
    tried: Sequence[TrialResult], metric: str, test_rows: int, units: Ints | None = None
) -> SearchVerdict:
    """``test_rows`` is how many the expected score is said of; ``units`` [n] are those of the rows
    that judge (``winner``), left out where trials are judged by pieces of rows. Raises
    ``TrainingError`` where no trial came to its end."""
    whole = [one for one in tried if one.whole]
    if not whole:
        because = tried[0].because if tried else "none was begun"
        remedy = "Try `holdfast train` with its defaults, or a gentler space."
        raise TrainingError("the search", "has no trial that came to its end", because, remedy)
    first = reference(whole)
    known = {name_of(one): one for one in whole}
    losses = {key: one.losses for key, one in known.items()}
    correct = {key: one.correct for key, one in known.items() if one.correct is not None}
    right = metric == "accuracy" and len(correct) == len(known)
    # Doubt speaks for a default, and not for the trial in the middle that takes its place.
    level = LEVEL if first.origin == "default" else 1.0
    answers = correct if right else None
    units = units if units is not None and len(units) == len(first.losses) else None
    won = winner(losses, answers, costs_of(whole), name_of(first), level=level, units=units)
    # More is better in both: of losses the expected score is that of their negative.
    score = correct if right else {key: -rows for key, rows in losses.items()}
    sign = 1.0 if right else -1.0
    found = {
        key: expected_test(
            score, key, name_of(first), losses=losses, test_rows=test_rows or None, units=units
        )
        for key in known
    }
    kept = found[won.key]
    ends = sorted((sign * kept.low, sign * kept.high))
    return SearchVerdict(
        winner=known[won.key],
        top=max(whole, key=lambda one: (float(score[name_of(one)].mean()), -one.number)),
        default=first if first.origin == "default" else None,
        because=won.because,
        noise=won.noise or won.key == name_of(first),
        looked_best=known[won.looked_best],
        gain=won.gain,
        p_value=won.p_value,
        p_average=won.p_average,
        expected=ScoreRange(sign * kept.value, ends[0], ends[1]),
        optimism=kept.optimism,
        each={known[key].number: sign * one.value for key, one in found.items()},
    )


def reference(whole: Sequence[TrialResult]) -> TrialResult:
    """The default; where it did not come to its end, the trial in the middle."""
    default = next((one for one in whole if one.origin == "default"), None)
    ranked = sorted(whole, key=lambda one: (float(one.losses.mean()), one.number))
    return default or ranked[len(ranked) // 2]


def name_of(one: TrialResult) -> str:
    """As sentences call it."""
    return DEFAULT if one.origin == "default" else f"trial {one.number}"


def costs_of(whole: Sequence[TrialResult]) -> dict[str, float]:
    """What each trial cost: rows passed, so that no clock decides who wins."""
    return {name_of(one): max(one.cost, 1.0) for one in whole}


def ends_of(tried: Sequence[TrialResult]) -> str | None:
    """Why another trial is not worth its price; ``None`` where it is."""
    whole = [one for one in tried if one.whole]
    losses = {name_of(one): one.losses for one in whole}
    return end_now(losses, costs_of(whole), name_of(reference(whole)))


def behind_leader(trial: TrialResult, tried: Sequence[TrialResult]) -> str | None:
    """Why a trial of which some folds are done has no other: the best of the whole trials is better
    on the rows of these, beyond what chance does. The default goes on whatever it shows, since all
    are compared with it."""
    whole = [one for one in tried if one.whole]
    if not whole or trial.origin == "default":
        return None
    leader = leader_of(whole)
    seen = np.flatnonzero(np.isfinite(trial.losses))
    return race(trial.losses[seen], leader.losses[seen])


def leader_of(whole: Sequence[TrialResult]) -> TrialResult:
    """The trial that is expected to be best."""
    names = {name_of(one): one for one in whole}
    rows: dict[str, Floats] = {key: one.losses for key, one in names.items()}
    found = shrunken(scores_of(rows), name_of(reference(whole)))
    return names[found.keys[int(np.argmax(found.mean))]]
