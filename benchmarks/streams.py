"""Do the looks at a stream keep their word when one looks after every row?

    python benchmarks/streams.py [--runs 3000]

Streams of 500 rows whose null is true, by laws from fair coins to rare events and heavy tails; an
alarm at any row is false. Demanded: at most 5 % (99 % upper bound beside), in at least 10,000
streams. For the sequences of limits an alarm is a row where the true mean lies outside or on a
limit. ``plain`` is a normal 95 % interval read after every row from the 30th.
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
from holdfast.stats.streams import (
    bernstein_limits,
    betting_limits,
    mean_evidence,
    mixture_sprt,
)

ROWS = 500
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
    "normal": lambda rng: rng.standard_normal(ROWS),
    "t3": lambda rng: rng.standard_t(3, ROWS),
    "three values": lambda rng: rng.choice([-1.0, 0.0, 1.0], ROWS, p=[0.05, 0.9, 0.05]),
    "skewed": lambda rng: rng.exponential(1.0, ROWS) - 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3000)
    runs = parser.parse_args().runs
    cells = grid(system=["Bernstein", "e-value", "plain"], law=BOUNDED, runs=[runs])
    cells += grid(system=["mixture SPRT"], law=FREE, runs=[runs])
    cells += grid(system=["betting"], law=BOUNDED, runs=[runs])
    results = run_cells("streams", cells, simulate)
    publish("streams", section(cells, results))


def simulate(cell: Cell) -> Result:
    started = time.process_time()
    rng = generator(0, "streams", cell["system"], cell["law"])
    alarms = sum(alarm(cell["system"], cell["law"], rng) for _ in range(cell["runs"]))
    return {"alarms": alarms, "processor_s": round(time.process_time() - started, 1)}


def alarm(system: str, law: str, rng: np.random.Generator) -> bool:
    if system == "mixture SPRT":
        return bool(mixture_sprt(FREE[law](rng), 0.2).p_value[-1] <= 0.05)
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
    lines = [
        "## Looks at a stream", "", " ".join(__doc__.split("\n\n")[2].split()), "",
        "| system | law | streams | false alarms in per cent | 99 % upper bound |",
        "|---" * 5 + "|",
    ]  # fmt: skip
    for system in dict.fromkeys(cell["system"] for cell in cells):
        here = [(c, r) for c, r in zip(cells, results, strict=True) if c["system"] == system]
        lines += [line(system, c["law"], [r], c["runs"]) for c, r in here]
        lines.append(line(system, "**all**", [r for _, r in here], here[0][0]["runs"]))
    return "\n".join(lines)


def line(system: str, law: str, results: list[Result | None], runs: int) -> str:
    if any(result is None for result in results):
        return f"| {system} | {law} | {NOT_RUN} | | |"
    alarms, total = sum(r["alarms"] for r in results if r), runs * len(results)
    upper = clopper_pearson(alarms, total, 0.98)[1]
    return f"| {system} | {law} | {total} | {100 * alarms / total:.2f} | {100 * upper:.2f} |"


if __name__ == "__main__":
    main()
