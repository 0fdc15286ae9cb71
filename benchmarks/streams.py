"""Do the looks at a stream keep their word when one looks after every row?

    python benchmarks/streams.py [--runs 3000]

Streams of 500 rows whose null is true, by laws from fair coins to rare events and heavy tails; an
alarm at any row is false. Demanded: at most 5 % for every law (one-sided 99 % limits beside: a law
is within the bound where the upper one is, over it where the lower one is, else open). For the
sequences of limits an alarm is a row where the true mean lies outside or on a limit. ``plain`` is a
normal 95 % interval read after every row from the 30th. The mixture claims nothing before row 300,
so its streams have 3,000 rows; beside it stands the same from row 30 on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cells import NOT_RUN, Cell, Result, grid, publish, run_cells

from holdfast.core.seeds import generator
from holdfast.stats.intervals import clopper_pearson
from holdfast.stats.streams.means import (
    bernstein_limits,
    betting_limits,
    mean_evidence,
    mixture_sprt,
)

ROWS = 500
LONG = 3000
BOUND = 5.0  # per cent
# Name, true mean, draw; values in [0, 1]. The means lie on a grid of 20 steps, so that there the
# betting limits are not rounded and a refusal of the very mean is seen.
GRID = 20
BOUNDED: dict[str, tuple[float, Callable[[np.random.Generator], Any]]] = {
    "coin": (0.5, lambda rng: 1.0 * (rng.random(ROWS) < 0.5)),
    "rare": (0.05, lambda rng: 1.0 * (rng.random(ROWS) < 0.05)),
    "skewed": (0.2, lambda rng: rng.beta(0.3, 1.2, ROWS)),
    "narrow": (0.25, lambda rng: rng.beta(10, 30, ROWS)),
}
# Differences with mean 0, of any size.
FREE: dict[str, Callable[[np.random.Generator], Any]] = {
    "normal": lambda rng: rng.standard_normal(LONG),
    "t3": lambda rng: rng.standard_t(3, LONG),
    "three values": lambda rng: rng.choice([-1.0, 0.0, 1.0], LONG, p=[0.05, 0.9, 0.05]),
    "rare, one side": lambda rng: (rng.random(LONG) < 0.05) - 0.05,
    "exponential": lambda rng: rng.exponential(1.0, LONG) - 1,
    "log-normal": lambda rng: rng.lognormal(0.0, 1.0, LONG) - np.exp(0.5),
}
# The row from which each edition of the mixture claims anything.
MIXTURES = {"mixture SPRT": 300, "mixture SPRT from row 30": 30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3000)
    runs = parser.parse_args().runs
    cells = grid(system=["Bernstein", "e-value", "plain"], law=BOUNDED, runs=[runs])
    cells += grid(system=MIXTURES, law=FREE, rows=[LONG], runs=[runs])
    cells += grid(system=["betting"], law=BOUNDED, runs=[runs])
    results = run_cells("streams", cells, simulate)
    publish("streams", section(cells, results))


def simulate(cell: Cell) -> Result:
    started = time.process_time()
    rng = generator(0, "streams", cell["system"], cell["law"])
    alarms = sum(alarm(cell["system"], cell["law"], rng) for _ in range(cell["runs"]))
    return {"alarms": alarms, "processor_s": round(time.process_time() - started, 1)}


def alarm(system: str, law: str, rng: np.random.Generator) -> bool:
    if system in MIXTURES:
        found = mixture_sprt(FREE[law](rng), 0.2, first=MIXTURES[system])
        return bool(found.p_value[-1] <= 0.05)
    mean, draw = BOUNDED[law]
    x = draw(rng)
    if system == "e-value":
        return bool(mean_evidence(x - mean, max(mean, 1 - mean)).p_value[-1] <= 0.05)
    if system == "plain":
        return plain(x, mean)
    limits = betting_limits(x, grid=GRID) if system == "betting" else bernstein_limits(x)
    return bool(np.any((limits.low > mean - 1e-9) | (limits.high < mean + 1e-9)))


def plain(x: Any, mean: float) -> bool:
    n = np.arange(1, len(x) + 1)
    running = np.cumsum(x) / n
    error = np.sqrt(np.maximum(np.cumsum(x**2) / n - running**2, 0) / n)
    return bool(np.any(np.abs(running - mean)[29:] > 1.96 * error[29:]))


def section(cells: list[dict[str, Any]], results: list[Result | None]) -> str:
    pairs = list(zip(cells, results, strict=True))
    lines = [
        "## Looks at a stream",
        "",
        " ".join(__doc__.split("\n\n")[2].split()),
        "",
        verdict(pairs),
        "",
        "| system | law | streams | false alarms in per cent | 99 % lower and upper limit |"
        f" within {BOUND:g} % |",
        "|---" * 6 + "|",
    ]
    return "\n".join(lines + [line(cell, result) for cell, result in pairs])


def verdict(pairs: list[tuple[dict[str, Any], Result | None]]) -> str:
    """The laws that are over the bound or open, by system: no mean over laws hides one."""
    found: dict[str, list[str]] = {"over": [], "open": []}
    for cell, result in pairs:
        word = within(cell, result)
        if word in found:
            found[word].append(f"{cell['system']} / {cell['law']}")
    told = [f"{word.capitalize()}: {', '.join(names)}." for word, names in found.items() if names]
    return " ".join(told) or f"Every law of every system is within {BOUND:g} %."


def line(cell: Cell, result: Result | None) -> str:
    head = f"| {cell['system']} | {cell['law']} | "
    if result is None:
        return head + f"{NOT_RUN} | | | |"
    share = 100 * result["alarms"] / cell["runs"]
    low, high = limits_of(cell, result)
    word = within(cell, result)
    shown = "yes" if word == "within" else f"**{word}**"
    return f"{head}{cell['runs']} | {share:.2f} | {low:.2f}, {high:.2f} | {shown} |"


def within(cell: Cell, result: Result | None) -> str:
    if result is None:
        return NOT_RUN
    low, high = limits_of(cell, result)
    return "within" if high <= BOUND else "over" if low > BOUND else "open"


def limits_of(cell: Cell, result: Result) -> tuple[float, float]:
    """One-sided 99 % limits of the share of alarms, in per cent (Clopper and Pearson)."""
    low, high = clopper_pearson(result["alarms"], cell["runs"], 0.98)
    return 100 * low, 100 * high


if __name__ == "__main__":
    main()
