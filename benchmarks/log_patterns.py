"""Patterns in training logs: how often a planted one is named, and a plain log is given one.

    python benchmarks/log_patterns.py

Simulated logs: a training loss logged 10 to 60 times an epoch over 2 to 12 epochs, with noise, and
one to four evaluations an epoch; rates, noise and lengths are drawn. A plain log has none of the
patterns. Each pattern is planted in other logs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cells import Cell, run_cells
from claims import Claim, Lines, runs, share, table

from holdfast.core.curves import Curves, Series
from holdfast.core.records import Floats
from holdfast.core.seeds import generator
from holdfast.monitor.curves.patterns import patterns_of

NAME = "log_patterns"
PLAIN = "none"
PATTERNS = ("stairs", "validation below training", "loss and metric part", "spikes")
LOGS = {PLAIN: 1000, **dict.fromkeys(PATTERNS, 250)}


def simulated(kind: str, rng: np.random.Generator) -> Curves:
    """One log, with the pattern ``kind`` or none."""
    epochs, per_epoch = int(rng.integers(3, 13)), int(rng.integers(10, 61))
    points = epochs * per_epoch
    time = np.arange(1, points + 1) / per_epoch
    start, floor = float(rng.uniform(0.7, 4)), float(rng.uniform(0.02, 0.6))
    speed = float(rng.uniform(0.3, 2.5))
    noise = float(rng.uniform(0.01, 0.12)) * start
    clean: Floats = floor * start + (1 - floor) * start * np.exp(-speed * time)
    if kind == "stairs":
        clean = _stairs(time, start, rng)
        noise = min(noise, 0.06 * start)
    train = clean + noise * rng.standard_normal(points) * np.sqrt(clean / start + 0.1)
    if kind == "spikes":
        count = int(rng.integers(1, 5))
        at = rng.choice(np.arange(8, points - 4), size=count, replace=False)
        train[at] += rng.uniform(1.0, 4.0, size=count) * start
    places = _evaluations(time, per_epoch, rng)
    at = time[places]
    gap = float(rng.uniform(1.05, 1.6))
    valid = gap * clean[places] + 0.02 * start * rng.standard_normal(len(places))
    quality = 0.95 - 0.6 * np.exp(-speed * at) + 0.004 * rng.standard_normal(len(places))
    if kind == PLAIN and rng.random() < 0.5:
        # Half of the plain logs overfit, with a metric that gets worse too.
        turn = float(rng.uniform(0.3, 0.6)) * epochs
        late = np.maximum(at - turn, 0) / epochs
        valid = valid + late * start * rng.uniform(0.3, 1.2)
        reached = 0.95 - 0.6 * np.exp(-speed * np.minimum(at, turn / 2))
        quality = reached - 0.3 * late + 0.004 * rng.standard_normal(len(places))
    if kind == "validation below training":
        valid = float(rng.uniform(0.6, 0.85)) * clean[places]
        valid += 0.01 * start * rng.standard_normal(len(places))
    if kind == "loss and metric part":
        turn = float(rng.uniform(0.2, 0.4)) * epochs
        late = np.maximum(at - turn, 0) / epochs
        valid += late * start * rng.uniform(0.4, 1.5)
        base = 0.6 + 0.25 * (1 - np.exp(-speed * at))
        quality = base + 0.15 * late / late.max() + 0.003 * rng.standard_normal(len(places))
    steps = np.arange(1.0, points + 1)
    epochs_seen = Series("epoch", steps, time)
    return Curves(
        "simulated",
        "step",
        Series("train_loss", steps, np.maximum(train, 1e-3)),
        Series("eval_loss", steps[places], np.maximum(valid, 1e-3)),
        None,
        Series("eval_accuracy", steps[places], np.clip(quality, 0, 1), True),
        epochs=epochs_seen,
    )


def _evaluations(time: Floats, per_epoch: int, rng: np.random.Generator) -> Any:
    each = max(1, per_epoch // int(rng.integers(1, 5)))
    return np.arange(each - 1, len(time), each)


def _stairs(time: Floats, start: float, rng: np.random.Generator) -> Floats:
    """A level for each epoch, a fifth to a half below the one before, and little fall within."""
    number = np.ceil(time - 1e-9).astype(int)
    factors = rng.uniform(0.45, 0.75, size=number.max())
    levels = start * np.cumprod(np.r_[1.0, factors[:-1]])
    within = 1 - float(rng.uniform(0, 0.06)) * (time - (number - 1))
    return np.asarray(levels[number - 1] * within)


def cells() -> list[dict[str, Any]]:
    return [
        {"pattern": kind, "draw": draw} for kind, count in LOGS.items() for draw in range(count)
    ]


def run_one(cell: Cell) -> dict[str, Any]:
    rng = generator(cell["draw"], "benchmark", NAME, cell["pattern"])
    found = [one.name for one in patterns_of(simulated(cell["pattern"], rng))]
    return {"found": found, "named": cell["pattern"] in found}


def named(lines: Lines) -> str:
    return share(sum(bool(one["named"]) for one in lines), len(lines))


def wrong(lines: Lines) -> str:
    others = [one for one in lines if set(one["found"]) - {one["pattern"]}]
    return share(len(others), len(lines))


def finding(lines: Lines) -> str:
    plain = [one for one in lines if one["pattern"] == PLAIN]
    alarms = share(sum(bool(one["found"]) for one in plain), len(plain), long=True)
    rates = {
        kind: share(sum(bool(o["named"]) for o in some), len(some))
        for kind in PATTERNS
        if (some := [one for one in lines if one["pattern"] == kind])
    }
    parts = ", ".join(f"{kind} {rate} %" for kind, rate in rates.items())
    return (
        f"Planted patterns that are named (95 % CI): {parts}. Plain logs with a pattern: {alarms}."
    )


CLAIM = Claim(
    NAME,
    "Verdicts",
    "Patterns in training logs",
    """\
Simulated logs of 3 to 12 epochs with 10 to 60 training losses and one to four evaluations an epoch;
rates, noise and lengths are drawn. Half of the plain logs overfit. Stairs: the training loss falls
by 25 to 55 % from epoch to epoch, and by at most 6 % within one. Spikes: one to four points, one to
four times the first loss above the curve. Validation below training: by 15 to 40 %.""",
    cells,
    finding,
    [
        lambda lines: table(
            {"pattern": "Pattern"},
            {"Logs": runs, "Named, %": named, "Another pattern named, %": wrong},
        )(lines)
    ],
    "The thresholds were chosen on other draws of the same simulation; real logs differ from it.",
)


def main() -> None:
    run_cells(NAME, cells(), run_one)


if __name__ == "__main__":
    main()
