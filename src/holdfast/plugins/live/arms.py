"""A/B test: each user is answered by one of two models, and outcomes are counted outside (clicks,
sales). Which model has the higher mean outcome per user?

The unit is the user, since repeated outcomes of one person are not independent. A user's arm is a
hash of a salt and the user, so that every replica makes the same assignment at any time. Every user
is observed for the same time after the first request, and compared when that time is over. Sibling:
``shadow``, where labels give the correct class; it needs far fewer rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.plugins.live.stream import (
    SIDE_EVIDENCE,
    Peaks,
    Verdict,
    e_values,
    first_verdict,
    running_peaks,
)
from holdfast.stats.paired_tests import Bools
from holdfast.stats.streams.means import ArmSums, effect_evidence
from holdfast.stats.streams.rates import rate_evidence

# The first users, of both arms and not compared, whose values determine the range.
SCALE_USERS = 200
# Evidence of a sample-ratio mismatch, reached by chance in at most 1 % of comparisons; the prior
# puts the shares some points away from the requested one.
MISMATCH_LIMIT, PRIOR = 100.0, 100.0


def in_challenger(user: str, salt: str, share: float) -> bool:
    """Whether the challenger answers this user: the first 64 bits of a hash, as a fraction, are
    below ``share``."""
    key = salt.encode()
    if len(key) > hashlib.blake2b.MAX_KEY_SIZE:
        key = hashlib.blake2b(key).digest()
    digest = hashlib.blake2b(user.encode("utf-8", "surrogatepass"), key=key)
    return int.from_bytes(digest.digest()[:8], "big") < share * 2**64


@dataclass(frozen=True, slots=True)
class Arms:
    """The evidence about the two groups of users; an immutable value (``to_json``, ``from_json``).

    A user's value is the total of the outcomes, clipped to ``least`` and ``most``; ``most`` is the
    requested value, or the largest of the first 200 values, whose users are not compared. ``tried``
    and ``largest`` are their count and maximum; ``held`` counts the compared values that were
    clipped. ``margin`` is a share of the range from ``least`` to ``most``; ``budget`` the users
    that may be compared.

    ``entered`` counts users by arm, the shown model's first, compared or not; ``mismatch`` is the
    largest log evidence that the shares differ from the requested ones. ``sums`` are those of the
    compared users. ``peaks`` and ``decided_at`` are as in ``Shadow``.
    """

    share: float = 0.5
    margin: float = 0.01
    budget: int | None = None
    least: float = 0.0
    most: float | None = None
    tried: int = 0
    largest: float = -math.inf
    held: int = 0
    entered: tuple[int, int] = (0, 0)
    mismatch: float = 0.0
    sums: ArmSums = field(default_factory=ArmSums)
    peaks: Peaks = (0.0, 0.0, 0.0, 0.0)
    decided: Verdict = "undecided"
    decided_at: int | None = None

    def __post_init__(self) -> None:
        if self.sums.share != self.share and not self.sums.rows:
            object.__setattr__(self, "sums", ArmSums(self.share))

    @property
    def skewed(self) -> bool:
        """Whether the arms' shares of users differ from the requested ones (sample-ratio mismatch):
        then the assignment is not random, and a difference between the arms means nothing."""
        return self.mismatch >= math.log(MISMATCH_LIMIT)

    @property
    def verdict(self) -> Verdict:
        """The verdict; undecided while the shares are skewed."""
        return "undecided" if self.skewed else self.decided

    @property
    def budget_spent(self) -> bool:
        """Whether the budget is used up without a verdict."""
        open_ = self.decided == "undecided"
        return open_ and self.budget is not None and self.sums.rows >= self.budget

    @property
    def range(self) -> float | None:
        """From the least value to the most; ``None`` before the most is known."""
        return None if self.most is None else self.most - self.least

    def add_users(self, in_challenger_arm: Bools) -> Arms:
        """The state after the first requests of more users: whether each is the challenger's,
        [n]."""
        arm = np.asarray(in_challenger_arm, bool)
        if not len(arm):
            return self
        hits = self.entered[1] + np.cumsum(arm)
        rows = sum(self.entered) + np.arange(1, len(arm) + 1)
        prior = (PRIOR * self.share, PRIOR * (1 - self.share))
        evidence = float(rate_evidence(hits, rows, self.share, prior).max())
        entered = (self.entered[0] + int((~arm).sum()), self.entered[1] + int(arm.sum()))
        return replace(self, entered=entered, mismatch=max(self.mismatch, evidence))

    def add_outcomes(self, in_challenger_arm: Bools, values: Floats) -> Arms:
        """The state after more users whose observation time is over, in order of arrival: whether
        each is the challenger's, and the total of the outcomes, both [n]. Users past the budget do
        not count."""
        arm, outcomes = np.asarray(in_challenger_arm, bool), np.asarray(values, dtype=np.float64)
        after, used = self._with_scale(outcomes)
        arm, outcomes = arm[used:], outcomes[used:]
        if after.most is None or not len(outcomes):
            return after
        if after.budget is not None and after.decided == "undecided":
            room = max(after.budget - after.sums.rows, 0)
            arm, outcomes = arm[:room], outcomes[:room]
        clipped = np.clip(outcomes, after.least, after.most)
        (effect, spread, rows), sums = after.sums.add_with_path(
            arm, (clipped - after.least) / (after.most - after.least)
        )
        clipped_count = after.held + int((clipped != outcomes).sum())
        after = replace(after, sums=sums, held=clipped_count)
        return after._with_verdict(effect, spread, rows)

    def _with_scale(self, values: Floats) -> tuple[Arms, int]:
        """The state with the largest value, where these users determine it, and how many users were
        needed for that."""
        if self.most is not None:
            return self, 0
        largest = np.maximum.accumulate(np.maximum(values, self.largest))
        tried = self.tried + np.arange(1, len(values) + 1)
        known = (tried >= SCALE_USERS) & (largest > self.least)
        if not len(values):
            return self, 0
        at = int(np.argmax(known)) if known.any() else len(values) - 1
        after = replace(self, tried=int(tried[at]), largest=float(largest[at]))
        return (replace(after, most=after.largest) if known.any() else after), at + 1

    def _with_verdict(self, effect: Floats, spread: Floats, rows: Floats) -> Arms:
        if not len(rows):
            return self
        # Better, worse, better by less than the margin, worse by less.
        claims = ((effect, 0.0), (-effect, 0.0), (-effect, -self.margin), (effect, -self.margin))
        logs = [effect_evidence(gain, spread, rows, self.sums, least) for gain, least in claims]
        peaks = running_peaks(np.column_stack(logs), self.peaks)
        verdict = first_verdict(self.decided, peaks, rows, SIDE_EVIDENCE)
        return replace(self, peaks=tuple(peaks[-1].tolist()), **verdict)

    @property
    def difference(self) -> tuple[float, float, float]:
        """The challenger's gain per user, in the outcome's unit, with limits that hold at all times
        at once in 95 % of streams; NaN before there is a comparison."""
        if self.range is None or not min(self.sums.users):
            return math.nan, math.nan, math.nan
        one, two = self.sums.means
        low, high = self.sums.limits(0.05)
        return (two - one) * self.range, low * self.range, high * self.range

    @property
    def means(self) -> tuple[float, float]:
        """The mean value of a user of the shown model and of the challenger; NaN without users."""
        if self.range is None:
            return math.nan, math.nan
        one, two = self.sums.means
        return self.least + one * self.range, self.least + two * self.range

    @property
    def evidence(self) -> dict[str, float]:
        """The largest e-value of each claim so far."""
        return e_values(self.peaks)

    def to_json(self) -> dict[str, Any]:
        largest = None if math.isinf(self.largest) else self.largest
        return {**asdict(self), "largest": largest}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Arms:
        """The state from ``to_json``."""
        plain = dict(stored)
        sums = dict(plain["sums"])
        sums |= {name: tuple(sums[name]) for name in ("users", "totals")}
        plain["sums"] = ArmSums(**sums)
        plain["largest"] = -math.inf if plain["largest"] is None else plain["largest"]
        return cls(**plain | {name: tuple(plain[name]) for name in ("entered", "peaks")})
