from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.stats.streams.means import ARM_STAKES as STAKES
from holdfast.stats.streams.means import ArmSums, effect_evidence, sums_evidence


def _loop(share: float, arm: list[bool], value: list[float]) -> list[float]:
    """δ of each user, by the definition, one after the other."""
    found, seen = [], []
    for second, y in zip(arm, value, strict=True):
        centre = sum(seen) / len(seen) if seen else 0.5
        found.append((y - centre) * (1 / share if second else -1 / (1 - share)))
        seen.append(y)
    return found


def test_sums_are_those_of_a_plain_loop_over_users() -> None:
    rng = np.random.default_rng(0)
    arm, value = rng.random(60) < 0.3, rng.random(60)
    gaps = _loop(0.3, arm.tolist(), value.tolist())
    found = ArmSums(0.3).add(arm, value)
    assert found.effect == pytest.approx(sum(gaps))
    earlier = [sum(gaps[:i]) / i if i else 0.0 for i in range(60)]
    spread = sum((gap - mean) ** 2 for gap, mean in zip(gaps, earlier, strict=True))
    assert found.spread == pytest.approx(spread)
    assert found.means[1] == pytest.approx(value[arm].mean())
    assert found.users == ((~arm).sum(), arm.sum())
    step = ArmSums(0.3)
    for start in (0, 1, 20, 35):
        part = slice(start, {0: 1, 1: 20, 20: 35, 35: 60}[start])
        step = step.add(arm[part], value[part])
    assert step.effect == pytest.approx(found.effect)
    assert step.spread == pytest.approx(found.spread)
    assert step.users == found.users


def test_its_evidence_is_that_of_bounded_differences_with_its_own_stakes() -> None:
    rng = np.random.default_rng(1)
    gap = rng.uniform(-1.9, 2, 200)
    # Its centre has a row of 0 before the first.
    earlier = np.concatenate([[0.0], np.cumsum(gap)[:-1]]) / np.arange(1, 201)
    spread = float(((gap - earlier) ** 2).sum())
    ours = sums_evidence(np.array(gap.sum()), np.array(spread), np.array(200.0), 2.0, 0.0)
    stakes = 0.7 * 0.5 ** np.arange(12)
    bets = [gap.sum() / 4 * x - spread / 16 * (-math.log1p(-x) - x) for x in stakes]
    assert math.exp(float(ours)) == pytest.approx(np.mean(np.exp(bets)))
    arms = ArmSums(0.5)
    plain = np.mean(
        [math.exp(float(gap.sum()) / 4 * x - spread / 16 * (-math.log1p(-x) - x)) for x in STAKES]
    )
    found = effect_evidence(float(gap.sum()), spread, 200.0, arms, 0.0)
    assert math.exp(float(found)) == pytest.approx(float(plain))
    # Against another mean it is the evidence of a total that is less by so much a row.
    near = effect_evidence(float(gap.sum()), spread, 200.0, arms, 0.05)
    less = effect_evidence(float(gap.sum()) - 10, spread, 200.0, arms, 0.0)
    assert float(near) == pytest.approx(float(less))


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_chance_alone_gives_one_on_average_at_most(share: float) -> None:
    """Every way in which eight users may fall, values being what they are: no promise of users."""
    value = np.array([1, 1, 1, 0, 0, 0.5, 0, 1])
    mean = 0.0
    for way in range(2**8):
        arm = np.array([way >> i & 1 for i in range(8)], bool)
        chance = share ** arm.sum() * (1 - share) ** (~arm).sum()
        one = ArmSums(share).add(arm, value)
        mean += chance * math.exp(float(effect_evidence(one.effect, one.spread, 8, one, 0.0)))
    assert mean <= 1 + 1e-12


def test_limits_hold_the_gain_and_close_in() -> None:
    rng = np.random.default_rng(4)
    arm = rng.random(40_000) < 0.5
    value = (rng.random(40_000) < np.where(arm, 0.33, 0.30)).astype(float)
    found = ArmSums().add(arm, value)
    low, high = found.limits()
    assert 0 < low < 0.03 < high
    wide = ArmSums().add(arm[:2000], value[:2000]).limits()
    assert wide[0] < low
    assert wide[1] > high
    # Not far from those of one look (Welch).
    once = stats.ttest_ind(value[arm], value[~arm]).confidence_interval(0.95)
    assert high - low < 2.2 * (once.high - once.low)
    assert ArmSums().limits() == (-1.0, 1.0)


def test_what_is_no_value_or_no_share_is_refused() -> None:
    with pytest.raises(Defect):
        ArmSums().add(np.array([True]), np.array([1.5]))
    with pytest.raises(Defect):
        ArmSums().add(np.array([True]), np.array([np.nan]))
    with pytest.raises(Defect):
        ArmSums().add(np.array([True, False]), np.array([0.5]))
    with pytest.raises(Defect):
        ArmSums(1.0)
    assert ArmSums().add(np.array([], bool), np.array([])) == ArmSums()
