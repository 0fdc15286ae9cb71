"""Which setting a search takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.search.rules.shrunken import Shrunken, scores_of, shrunken

# Below this chance of being better than the default, the difference is called noise; and by so much
# of the score a cheaper setting may be expected to be worse. Where a search goes by the expected
# gain alone, it ends half a point below the default on one recorded set of three; at 0.8 on none.
# The second costs less than a tenth of a point, and saves 6 and 12 % of a winner's updates at 8 and
# 32 trials.
SURE, WITHIN = 0.8, 0.002


@dataclass(frozen=True, slots=True)
class Winner:
    """The setting that a search takes: its ``key``, and ``because`` in a sentence.

    ``noise``: the rows cannot tell the trial that looked best from the default, or the gain is too
    small to count; the default is taken.
    ``looked_best`` is the trial of the largest expected ``gain`` over the default, in shares of the
    score, and ``sure`` the chance that it is better than the default.
    """

    key: str
    because: str
    noise: bool
    looked_best: str
    gain: float
    sure: float


def winner(
    losses: Mapping[str, Floats],
    correct: Mapping[str, Floats] | None,
    costs: Mapping[str, float],
    default: str,
) -> Winner:
    """The trial with the largest gain over the default as ``shrunken`` has it; the default, or a
    cheaper trial, where the difference is noise.

    Where the chance that it is better than the default is below 80 %, or its gain below 0.2 points,
    that is noise, and the default is taken: it was measured on many sets, and these rows are few.
    Of trials cheaper than the one with the largest gain, those that are expected to be worse by at
    most 0.2 points take its place, the cheapest first.

    Parameters
    ----------
    losses : of each trial [n] in nats, the same validation rows in the same order.
    correct : of each trial [n], 1 where a row is right; it only says what the sentence says of
        answers, since the rule goes by the probability of what was right.
    costs : of each trial, in any unit (updates, seconds), above 0.
    default : the trial that is taken where nothing says otherwise.

    Raises ``Defect`` for rows that differ between trials, a default that is no trial, and a trial
    without a cost.
    """
    _check(losses, costs)
    found = shrunken(scores_of(losses), default)
    best = int(np.argmax(found.mean))
    sure = chance_better(found, best)
    top, base = found.keys[best], found.at(default)
    gain = float(found.mean[best])
    if best == base:
        return Winner(default, _default_stays(found, losses), False, default, 0.0, 1.0)
    if sure < SURE or gain <= WITHIN:
        told = (
            f"by the probability that it gave to what was right {top} is ahead, but "
            f"{len(losses[default])} validation rows cannot tell it from {default} (the chance "
            f"that it is better is {sure:.0%}, the gain that is expected to last {100 * gain:.1f} "
            "points): the difference is noise, and the default is taken"
        )
        if sure >= SURE:
            told = (
                f"by the probability that it gave to what was right {top} is ahead of {default}, "
                f"but by {100 * gain:.2f} points that are expected to last, and less than "
                f"{100 * WITHIN:g} is not worth another setting: the difference counts as noise, "
                "and the default is taken"
            )
        return Winner(default, told, True, top, gain, sure)
    price = np.array([costs[key] for key in found.keys])
    near = found.mean[best] - found.mean <= WITHIN
    near[base] = False
    taken = int(np.argmin(np.where(near, price, np.inf)))
    return Winner(
        found.keys[taken],
        _taken(found, taken, best, correct, default, sure),
        False,
        top,
        gain,
        sure,
    )


def chance_better(found: Shrunken, place: int) -> float:
    """The chance that a trial is better than the default: Φ(mean ÷ deviation) of its true gain."""
    mean, deviation = float(found.mean[place]), float(found.deviation[place])
    if deviation == 0:
        return 1.0 if mean >= 0 else 0.0
    return 0.5 * math.erfc(-mean / deviation / math.sqrt(2))


def _check(losses: Mapping[str, Floats], costs: Mapping[str, float]) -> None:
    for key in losses:
        if not costs.get(key, 0.0) > 0:
            raise Defect(
                "the cost of a trial", "must be there and above 0", f"{key}: {costs.get(key)}"
            )


def _default_stays(found: Shrunken, losses: Mapping[str, Floats]) -> str:
    trials = len(found.keys) - 1
    if not trials:
        return "no other setting was tried"
    return (
        f"of {trials} other settings none is expected to be better than it, by "
        f"{len(next(iter(losses.values())))} validation rows"
    )


def _taken(
    found: Shrunken,
    taken: int,
    best: int,
    correct: Mapping[str, Floats] | None,
    default: str,
    sure: float,
) -> str:
    key = found.keys[taken]
    told = (
        f"it gave what was right {100 * found.measured[taken]:+.1f} points more probability than "
        f"{default}, of which {100 * found.mean[taken]:+.1f} are expected to last (the chance that "
        f"{found.keys[best]} is better than {default} is {sure:.0%})"
    )
    if correct is not None:
        gap = float(np.mean(correct[key]) - np.mean(correct[default]))
        told += f"; of the answers {100 * gap:+.1f} points more are right"
    if taken != best:
        told += (
            f"; {found.keys[best]} is expected to be better by less than 0.2 points, and costs more"
        )
    return told
