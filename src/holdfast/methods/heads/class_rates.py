"""From one population's class rates to another's: the same model, other frequencies of the classes.

A classifier that learned where the classes had the shares q says P_q(c | x) ∝ p(x | c) · q_c. In a
population with the shares t, the same texts within each class, Bayes' rule moves its logits:

    z_c + log t_c − log q_c

(Saerens et al. 2002; as an adjustment of the decision for rare classes 2007.07314, section 4.1).
Nothing is fitted, and among rows of one class nothing changes. What it assumes is that the classes
look as they did and are only more or less frequent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.seeds import generator

# A share of the way from the rows' own rates (0) to classes alike (1).
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
# It gained macro-F1 on all three sets of benchmarks/balance.py; all of the way costs accuracy.
USUAL = 0.5
RESAMPLES = 2000
# One-sided, and shared among the moves that may take the usual one's place: strict, as the best of
# several is flattered by being chosen, and a percentile interval of few rows is too short.
LEVEL = 0.01 / (len(STRENGTHS) - 1)


def shares_of(labels: Ints, classes: int) -> Floats:
    """The share of each class [classes] among these labels [n]. A class without a row counts as
    half a row, so that its logarithm is finite."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    counts[counts == 0] = 0.5
    return np.asarray(counts / counts.sum())


def between(shares: Floats, strength: float) -> Floats:
    """Rates in proportion to ``shares`` [classes] to the power 1 − ``strength``: as they are at 0,
    alike at 1."""
    powered = np.asarray(shares, dtype=np.float64) ** (1 - strength)
    return np.asarray(powered / powered.sum())


def moved(logits: Floats, learned: Floats, target: Floats) -> Floats:
    """Logits [n, classes] of a model that learned at the rates ``learned``, in a population whose
    rates are ``target``; both [classes], above 0, adding to 1."""
    return np.asarray(logits) + np.log(target) - np.log(learned)


def stated(target: Mapping[str, float], classes: Sequence[str], key: str) -> Floats:
    """The rates [classes] that a user states by name; they are divided by their sum.

    Raises ``RecipeError`` for a class that is not there, one that is left out, and a share that is
    no number above 0.
    """
    unknown = [name for name in target if name not in classes]
    missing = [name for name in classes if name not in target]
    for wrong, rule in ((unknown, "names a class that is not there"), (missing, "leaves out")):
        if wrong:
            known = ", ".join(map(repr, classes[:10])) + (" …" if len(classes) > 10 else "")
            raise RecipeError(key, rule, wrong[0], f"State a share of each of {known}.")
    values = [target[name] for name in classes]
    for name, value in zip(classes, values, strict=True):
        if type(value) not in (int, float) or not 0 < value < 1e9:
            rule = f"must be a number above 0 for {name!r}"
            raise RecipeError(key, rule, value, "A class of share 0 is no class: drop its rows.")
    rates = np.array(values, dtype=np.float64)
    return np.asarray(rates / rates.sum())


@dataclass(frozen=True, slots=True)
class Rates:
    """``rows`` [classes] are the rates of the training rows, ``target`` those that the answers are
    for; ``moved`` whether they differ."""

    classes: tuple[str, ...]
    rows: Floats
    target: Floats
    because: str

    @property
    def moved(self) -> bool:
        return not np.allclose(self.rows, self.target, rtol=0, atol=1e-12)

    @property
    def shift(self) -> Floats:
        """What is added to the logits of each class [classes], after the temperature."""
        return np.asarray(np.log(self.target) - np.log(self.rows))

    def to_json(self) -> dict[str, Any]:
        """``logits − shift`` are those at the rates of the training rows."""
        named = zip(
            self.classes, self.rows.tolist(), self.target.tolist(), self.shift.tolist(), strict=True
        )
        return {
            "because": self.because,
            "classes": {
                name: {"rows": rows, "target": target, "shift": shift}
                for name, rows, target, shift in named
            },
        }

    @property
    def decision(self) -> Decision:
        if not self.moved:
            return Decision("class rates", "as in the training rows", self.because)
        most = int(np.abs(self.shift).argmax())
        chosen = (
            f"{self.classes[most]!r} at {self.target[most]:.1%} in place of {self.rows[most]:.1%}"
        )
        return Decision("class rates", chosen, self.because, prominent=True)


@dataclass(frozen=True, slots=True)
class TargetRates:
    """Which rates the decision is for: ``target`` [classes], ``strength`` of the way to classes
    alike, and ``because``. ``gain`` in macro-F1 with its 90 % interval, a fraction."""

    target: Floats
    strength: float
    gain: float
    low: float
    high: float
    because: str


def choose_strength(logits: Floats, labels: Ints, shares: Floats, *, seed: int) -> TargetRates:
    """How far to move the decision towards classes alike, for macro-F1.

    ``logits`` [n, classes] at the rates ``shares`` of rows that the model did not learn from, with
    their ``labels`` [n]. Half of the way (``USUAL``) unless these rows prove another of
    ``STRENGTHS`` better, none of it among them: the lower end of a paired bootstrap's one-sided
    99.75 % interval of the gain in macro-F1 (1 % shared among the others) is then above 0. Rows are
    drawn within their class, so that no resample lacks one.
    """
    guesses = np.stack([moved(logits, shares, between(shares, s)).argmax(1) for s in STRENGTHS])
    whole = np.array([_f1(labels, guess, len(shares)) for guess in guesses])
    usual, best = STRENGTHS.index(USUAL), int(whole.argmax())
    where = f"on {len(labels)} validation rows"
    if whole[best] <= whole[usual]:
        because = f"half of the way to classes alike; {where} no other move has a better macro-F1"
        return TargetRates(between(shares, USUAL), USUAL, 0.0, 0.0, 0.0, because)
    rng, gains = generator(seed, "rates"), np.zeros(RESAMPLES)
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for index in range(RESAMPLES):
        rows = np.concatenate([rng.choice(place, len(place)) for place in places])
        drawn = [_f1(labels[rows], guesses[k, rows], len(shares)) for k in (usual, best)]
        gains[index] = drawn[1] - drawn[0]
    low, high = (float(one) for one in np.quantile(gains, [LEVEL, 1 - LEVEL]))
    gain = float(whole[best] - whole[usual])
    shown = f"{100 * gain:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) points of macro-F1 {where}"
    way = f"{STRENGTHS[best]:.0%} of the way to classes alike"
    if low <= 0:
        because = f"half of the way to classes alike; {way} would bring {shown}: may be chance"
        return TargetRates(between(shares, USUAL), USUAL, gain, low, high, because)
    because = f"{way} in place of half of it: {shown}"
    return TargetRates(between(shares, STRENGTHS[best]), STRENGTHS[best], gain, low, high, because)


def _f1(labels: Ints, guess: Ints, classes: int) -> float:
    """Macro-F1 over the classes that have a row here."""
    right = np.bincount(labels[guess == labels], minlength=classes)
    true = np.bincount(labels, minlength=classes)
    made = np.bincount(guess, minlength=classes)
    there = true > 0
    return float((2 * right[there] / (true + made)[there]).mean())
