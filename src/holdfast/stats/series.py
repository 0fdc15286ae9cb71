"""Noise and spikes of a series of losses."""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Floats

SMOOTHED_FROM = 6
# A spike: standard deviations of the noise; as a share of the values around it, and of what the
# curve learned; the values on each side that count as around it.
SPIKE, SPIKE_SHARE, AROUND = 10.0, 0.1, 4


def noise_of(values: Floats) -> float:
    """The standard deviation of single points: the smaller of the estimates from second differences
    and from the residuals of a line through all points. Curvature inflates the second, alternating
    jumps the first. 0 with fewer than three points."""
    if len(values) < 3:
        return 0.0
    bends = 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / math.sqrt(6)
    if len(values) < SMOOTHED_FROM:
        return bends
    places = np.arange(len(values))
    left = values - np.polyval(np.polyfit(places, values, 1), places)
    return min(bends, math.sqrt(float(np.sum(left**2)) / (len(values) - 2)))


def spike_places(values: Floats, least: float = 0.0) -> list[int]:
    """The places of the spikes in a training loss: single values far above those around them, and
    by more than ``least``, which come back at once."""
    if len(values) < 4 * AROUND:
        return []
    noise = noise_of(values)
    learned = max(float(np.median(values[:3]) - np.median(values[-3:])), 0.0)
    least = max(least, SPIKE * noise, SPIKE_SHARE * learned)
    return [place for place in range(AROUND, len(values) - 2) if _is_spike(values, place, least)]


def around(values: Floats, place: int) -> float:
    """The median of the values near a place, without its own."""
    near = np.r_[values[max(0, place - AROUND) : place], values[place + 1 : place + 1 + AROUND]]
    return float(np.median(near))


def _is_spike(values: Floats, place: int, least: float) -> bool:
    usual = around(values, place)
    rise = float(values[place]) - usual
    if rise <= max(least, SPIKE_SHARE * usual):
        return False
    # A step down between two levels is none: the point before is as high.
    jump, after = float(values[place] - values[place - 1]), values[place + 1 : place + 3]
    return jump > rise / 2 and float(after.min()) - usual <= rise / 3
