"""Which settings mattered in a search: functional ANOVA by Optuna (Hutter et al. 2014), held
against what the same trials give when their scores are dealt out at random.

A forest finds something in any dozen of trials. A setting is said to matter only where its share is
above the largest share of any setting in 19 of 20 random dealings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.seeds import derive_seed, generator
from holdfast.core.wording import counted
from holdfast.search.storage import calm

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Whole trials below which nothing is said, also as a multiple of the settings.
LEAST, TIMES = 12, 1
DEALINGS, TREES = 19, 16


@dataclass(frozen=True, slots=True)
class Importance:
    """``shares`` of the variance of the trials' scores by setting, the largest first; ``chance``
    the largest share that dealings at random gave; ``why`` there are none."""

    shares: dict[str, float]
    chance: float | None = None
    why: str | None = None

    @property
    def matter(self) -> list[str]:
        """The settings of which more is seen than chance shows."""
        chance = 1.0 if self.chance is None else self.chance
        return [key for key, share in self.shares.items() if share > chance]

    def to_json(self) -> dict[str, Any]:
        if self.why is not None:
            return {"shares": {}, "chance": None, "matter": [], "why": self.why}
        shares = {key: round(share, 4) for key, share in self.shares.items()}
        chance = None if self.chance is None else round(self.chance, 4)
        return {"shares": shares, "chance": chance, "matter": self.matter}


def importance(trials: Sequence[FrozenTrial], seed: int) -> Importance:
    """Of the trials that were told a value. A setting that stood in some of them alone (one that
    depends on another) is left out: the forest needs all of them."""
    import optuna
    from optuna.trial import TrialState

    whole = [one for one in trials if one.state == TrialState.COMPLETE and one.params]
    shared = set.intersection(*(set(one.params) for one in whole)) if whole else set()
    moved = [key for key in shared if len({repr(one.params[key]) for one in whole}) > 1]
    need = max(LEAST, TIMES * len(moved))
    if len(whole) < need:
        why = f"not enough evidence: {counted(len(whole), 'whole trial')}, {need} are needed"
        return Importance({}, None, why)
    values = np.array([one.value for one in whole], dtype=np.float64)
    if not moved or np.ptp(values) == 0:
        return Importance({}, None, "not enough evidence: all trials scored the same")
    dealt = generator(seed, "importance")

    def shares(of: Sequence[float]) -> dict[str, float]:
        with calm():
            study = optuna.create_study(direction="maximize")
            study.add_trials(
                [
                    optuna.trial.create_trial(
                        value=float(value),
                        params={key: one.params[key] for key in moved},
                        distributions={key: one.distributions[key] for key in moved},
                    )
                    for one, value in zip(whole, of, strict=True)
                ]
            )
            judge = optuna.importance.FanovaImportanceEvaluator(
                n_trees=TREES, seed=derive_seed(seed, "forest")
            )
            found = judge.evaluate(study, params=sorted(moved))
        return {key: float(value) for key, value in found.items()}

    told = shares(list(values))
    chance = max(max(shares(list(dealt.permutation(values))).values()) for _ in range(DEALINGS))
    ranked = dict(sorted(told.items(), key=lambda one: (-one[1], one[0])))
    return Importance(ranked, chance)
