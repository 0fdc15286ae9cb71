"""What a search's trials say together: which one is kept, and what it may be expected to score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.core.errors import TrainingError
from holdfast.search.rules.expected import Expected, expected_test
from holdfast.search.rules.winner import winner
from holdfast.search.study import Tried


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The ``winner`` with the reason; ``noise``: no trial is better than the default beyond what
    chance does. ``top`` is the trial with the best score seen, ``default`` the default's."""

    winner: Tried
    top: Tried
    default: Tried | None
    because: str
    noise: bool
    expected: Expected


def whole_trials(tried: Sequence[Tried]) -> list[Tried]:
    """Those that every row has judged."""
    return [one for one in tried if one.whole]


def judged(tried: Sequence[Tried], metric: str, rises: bool, seed: int) -> Judged:
    """Raises ``TrainingError`` where no trial came to its end."""
    whole = whole_trials(tried)
    if not whole:
        because = tried[0].because if tried else "none was begun"
        remedy = "Try `holdfast train` with its defaults, or a gentler space."
        raise TrainingError("the search", "has no trial that came to its end", because, remedy)
    default = next((one for one in whole if one.origin == "default"), None)
    known = {str(one.number): one for one in whole}
    losses = {key: one.losses for key, one in known.items()}
    scores = scores_of(whole, metric)
    correct = scores if metric == "accuracy" else None
    costs = {key: one.cost for key, one in known.items()}
    first = default or min(whole, key=lambda one: float(one.losses.mean()))
    won = winner(losses, correct, costs, str(first.number))
    expected = expected_test(scores, won.key, str(first.number))
    sign = 1 if rises else -1
    top = max(whole, key=lambda one: (sign * scores[str(one.number)].mean(), -one.number))
    return Judged(known[won.key], top, default, won.because, won.noise, expected)


def scores_of(whole: Sequence[Tried], metric: str) -> dict[str, Any]:
    """The metric of each row, by trial."""
    if metric == "accuracy":
        return {str(one.number): one.correct for one in whole}
    return {str(one.number): one.losses for one in whole}
