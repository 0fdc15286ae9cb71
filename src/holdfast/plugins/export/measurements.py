"""Measurements of each exported form (how much worse its predictions are, its speed on this
machine), and the choice of the form to keep.

A form of lower precision is compared with the model on the same rows: is it no worse by a point?
The test adds one and a half imaginary rows that only the smaller file gets wrong. Without them,
rows that all agree would leave no variance, and three of them would prove anything. With one, a
discrete rule exceeds its level at some numbers of rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.wording import about

MARGIN = 0.01
LEVEL = 0.95
IMAGINARY_ROWS = 1.5
# How often a file that is worse by exactly the margin is kept: the greatest share among 84 cells of
# rows and changed predictions, 20,000 simulated validation sets each (``benchmarks/export.py``).
FALSE_ACCEPTANCE_RATE = 0.044
# Scores no further apart than this count as one prediction: more than a file may differ by.
SAME_SCORE = 2e-4
# Above this number of rows no advice on more rows is given.
MAX_ROWS = 10**7


@dataclass(frozen=True, slots=True)
class Inferiority:
    """``value`` is how much worse it is on average, ``high`` the one-sided upper limit, over ``n``
    rows of which ``changed`` have another score.

    About ``rows_needed`` more similar rows would decide; ``None`` where it is decided, or no number
    would.
    """

    value: float
    high: float
    n: int
    changed: int
    rows_needed: int | None = None

    @property
    def shown(self) -> bool:
        """Whether it is shown to be no worse by the margin."""
        return self.high < MARGIN


def inferiority(base: Floats, other: Floats, *, groups: Ints | None = None) -> Inferiority:
    """mean(base − other) of per-row scores in [0, 1], higher is better, [n] each, with its
    one-sided 95 % limit by Student's t over rows, or over ``groups`` [n] (whole numbers). No rows:
    the value is NaN and the limit infinite.
    """
    gap = np.asarray(base, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    n = len(gap)
    if not n:
        return Inferiority(math.nan, math.inf, 0, 0)
    codes = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes).astype(np.float64)
    totals = np.bincount(codes, weights=gap)
    mean, size = float(gap.mean()), n / len(sizes)
    squared_deviations = float(((totals - mean * sizes) ** 2).sum()) / size**2
    high = _limit(mean, squared_deviations, len(sizes))
    # The last digits of numbers always differ.
    changed = int((np.abs(gap) > SAME_SCORE).sum())
    more = None
    if high >= MARGIN:
        units = _units_needed(mean, squared_deviations / len(sizes), len(sizes))
        more = None if units is None else math.ceil((units - len(sizes)) * size)
    return Inferiority(mean, high, n, changed, more)


def _limit(mean: float, squared_deviations: float, units: int) -> float:
    """The upper limit of a mean over ``units`` rows (or groups), given the sum of squared
    deviations from it; the imaginary rows are added.
    """
    from scipy.special import stdtrit

    total = units + IMAGINARY_ROWS
    joined = (units * mean + IMAGINARY_ROWS) / total
    squares = squared_deviations + units * (mean - joined) ** 2 + IMAGINARY_ROWS * (1 - joined) ** 2
    return joined + float(stdtrit(total - 1, LEVEL)) * math.sqrt(squares / total / (total - 1))


def _units_needed(mean: float, variance: float, units: int) -> int | None:
    """The least number of units, rounded up to a fiftieth, with which the limit would fall below
    the margin if mean and variance stay; ``None`` where it never would.
    """
    if mean >= MARGIN:
        return None
    units_needed = units
    while units_needed < MAX_ROWS:
        units_needed = math.ceil(units_needed * 1.02) + 1
        if _limit(mean, variance * units_needed, units_needed) < MARGIN:
            return units_needed
    return None


FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
# How often each batch is run, at least and at most.
MIN_REPEATS, MAX_REPEATS = 7, 41
# Seconds that the repeats of one batch may take, over all engines.
TIME_BUDGET = 8.0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each repeat by engine, [repeats] each; the engines take turns, so that the same
    place in two of them is one moment of the machine.
    """

    batch: int
    seconds: Mapping[str, Floats]

    def median_ms(self, name: str) -> float:
        """Milliseconds a row: the median over the repeats ÷ the rows of a batch."""
        return 1000 * float(np.median(self.seconds[name])) / self.batch

    def ratio(self, name: str, base: str) -> tuple[float, float, float]:
        """The median of the time of ``name`` ÷ that of ``base`` in the same turn, with an interval:
        the order statistics between which the median lies with at least 95 % probability.
        """
        from scipy.stats import binom

        ratios = np.sort(self.seconds[name] / self.seconds[base])
        n = len(ratios)
        # The greatest k with P(fewer than k of n lie below the median) at most 2.5 %; at least 0.
        cut = max(int(binom.ppf(0.025, n, 0.5)) - 1, 0)
        return float(np.median(ratios)), float(ratios[cut]), float(ratios[n - 1 - cut])


@dataclass(frozen=True, slots=True)
class ModelForm:
    """The model in one engine and precision.

    ``valid`` is how much worse it is on the validation rows than the model itself (``None``: not
    run), ``gap`` the largest difference of a logit on synthetic rows, ``size`` the bytes of its
    file.
    """

    engine: str
    precision: str
    valid: Inferiority | None = None
    gap: float | None = None
    size: int | None = None

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}"


@dataclass(frozen=True)
class FormMeasurements:
    """All forms, the model itself first, and the ``times`` of each; a form without a file (of
    torch) is for comparison only.
    """

    forms: tuple[ModelForm, ...]
    times: tuple[Times, ...]
    tokens: int | None
    threads: int
    cpu: str

    def to_json(self) -> dict[str, Any]:
        """``speed`` of ``export.json``: the conditions, and a line for each form."""
        rows = [self.line(one) for one in self.forms]
        return {"cpu": self.cpu, "threads": self.threads, "tokens": self.tokens, "rows": rows}

    def line(self, form: ModelForm) -> dict[str, Any]:
        """Milliseconds per row at each batch size, the speed relative to the model itself with an
        interval, and the form's result on the validation rows.
        """
        base = self.forms[0].name
        line: dict[str, Any] = {"engine": form.engine, "precision": form.precision}
        line["ms"] = {str(t.batch): round(t.median_ms(form.name), 3) for t in self.times}
        line["times_as_fast"] = {
            str(t.batch): _inverse(t.ratio(form.name, base)) for t in self.times
        }
        if form.gap is not None:
            line["logit_gap"] = form.gap
        if form.valid is not None:
            line["valid"] = {
                "n": form.valid.n,
                "changed": form.valid.changed,
                "worse": form.valid.value,
                "at_most": form.valid.high,
                "no_worse": form.valid.shown,
                "more_rows": form.valid.rows_needed,
            }
        if form.size is not None:
            line["bytes"] = form.size
        return line

    def fastest(self) -> ModelForm:
        """Of the forms that are no worse, the one that takes the least time for single rows."""
        safe = [f for f in self.forms if f is self.forms[0] or (f.valid and f.valid.shown)]
        return min(safe, key=lambda form: self.times[0].median_ms(form.name))


def _inverse(ratio: tuple[float, float, float]) -> dict[str, float]:
    value, low, high = ratio
    return {"value": round(1 / value, 3), "low": round(1 / high, 3), "high": round(1 / low, 3)}


def measure(
    batch: int,
    engines: Mapping[str, Callable[[], object]],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time the engines in turn, after one unmeasured turn; as often as the budget allows."""
    started = clock()
    for run in engines.values():
        run()
    turn = max(clock() - started, 1e-9)
    repeats = int(np.clip(TIME_BUDGET / turn, MIN_REPEATS, MAX_REPEATS))
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(repeats):
        for name, run in engines.items():
            before = clock()
            run()
            seconds[name].append(clock() - before)
    return Times(batch, {name: np.asarray(durations) for name, durations in seconds.items()})


def faster(times: Sequence[Times], name: str, base: str) -> tuple[bool, str]:
    """Whether ``name`` is faster than ``base``: with confidence at the first batch size, and not
    slower with confidence at any other; with the ratios in words.
    """
    ratios, is_faster = [], True
    for place, one in enumerate(times):
        value, low, high = one.ratio(name, base)
        ratios.append(f"{1 / value:.1f} times as fast at batch {one.batch}")
        is_faster = is_faster and (high < 1 if place == 0 else low <= 1)
    return is_faster, " and ".join(ratios)


def choose_form(
    measurements: FormMeasurements,
    plain: ModelForm,
    smaller_forms: Sequence[ModelForm],
    metric: str,
    obstacles: Mapping[str, str],
) -> tuple[ModelForm, str]:
    """The form to write, with the reason: the first of ``smaller_forms`` that is no worse and
    faster than ``plain``, else ``plain``. ``obstacles`` says why a form could not be written.
    """
    reasons = [f"{name} cannot be written: {why}" for name, why in obstacles.items()]
    for form in smaller_forms:
        obstacle, reason = _obstacle(measurements, form, plain, metric)
        if not obstacle:
            return form, "; ".join([f"{form.precision} {reason}", *reasons])
        reasons.append(f"{form.precision} is not kept: {reason}")
    return plain, "; ".join(reasons)


def _obstacle(
    measurements: FormMeasurements, form: ModelForm, plain: ModelForm, metric: str
) -> tuple[bool, str]:
    valid, margin = form.valid, f"{100 * MARGIN:.0f} point"
    if valid is None or not valid.n:
        return True, "there are no validation rows to compare it on"
    rows = f"{valid.n} validation rows"
    limit = f"at most {100 * valid.high:.1f} points worse in {metric} (95 % limit)"
    if valid.value >= MARGIN:
        return True, f"it is {100 * valid.value:.1f} points worse in {metric} on {rows}"
    if not valid.shown:
        more = f"; {about(valid.rows_needed)} more rows would decide" if valid.rows_needed else ""
        return True, f"{rows} cannot show that it loses less than {margin} ({limit}{more})"
    is_faster, ratios = faster(measurements.times, form.name, plain.name)
    accuracy_words = f"loses less than {margin} on {rows} ({limit})"
    if not is_faster:
        return True, (
            f"it {accuracy_words}, but it is not shown to be faster on this machine: {ratios}"
        )
    return False, (
        f"{accuracy_words}, and {ratios} as float32; this rule keeps at most "
        f"{100 * FALSE_ACCEPTANCE_RATE:.0f} in 100 of the files that are {margin} "
        "worse"
    )
