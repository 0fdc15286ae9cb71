"""Planted truth: is a known turning point found, how soon, and how often is one found for nothing?

    python benchmarks/verdict_parts/planted.py              # every cell, ten minutes of a core
    python benchmarks/verdict_parts/planted.py --minutes 3  # start no new cell after that

A simulator of per-example losses: the rows are fixed, their difficulty is heavy-tailed, and each
row's own loss wanders along the path. The mean falls until a turning point and then rises to an
effect at the last look, stays flat (``flat``), or falls to the end (``falling``); the train probe
falls throughout. The effect is in units of the one for which a one-sided 5 % paired test of the
last state against the true best would have a power of 0.9.

The whole guard (``judge``) reads every look; it raises an alarm when it gives any label of a fault.
Beside it stands patience on the same mean losses. Each rule's run ends at its alarm, and the state
of the lowest validation loss so far is kept: its *regret* is how far its true mean lies above the
best true mean, in parts of what there was to lose or to gain.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cells import Cell, Result, grid, publish, run_cells

from holdfast.core.records import Snapshot
from holdfast.core.run_facts import RunFacts
from holdfast.core.seeds import generator
from holdfast.monitor.judge import judge
from holdfast.stats.intervals import clopper_pearson, wilson

NAME = "verdicts_planted"
SEED = 1  # of runs that no rule was chosen on
LOOKS, TURN, STEP = 20, 8, 100
QUIET = ("learning", "healthy", "inconclusive")
START, BEST, PROBE_END = 0.69, 0.40, 0.15
RULES = ("guard", "patience 3", "patience 5")


@dataclass(frozen=True)
class Planted:
    """One simulated run: its snapshots, the true mean loss at each look, the true best look."""

    history: tuple[Snapshot, ...]
    truth: np.ndarray
    best: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--runs", type=int, default=60)
    options = parser.parse_args()
    cells = all_cells(options.runs)
    results = run_cells(NAME, cells, simulate, minutes=options.minutes)
    publish(NAME, section(cells, results))


def all_cells(runs: int) -> list[dict[str, Any]]:
    """Flat courses first and most: a rate of 5 % takes more runs than a power."""
    sizes = [50, 150, 500]
    cells = grid(course=["flat"], effect=[0.0], rows=sizes, part=[0, 1, 2, 3, 4], runs=[runs])
    cells += grid(course=["rising"], effect=[0.5, 1.0, 2.0], rows=sizes, part=[0], runs=[runs])
    return cells + grid(course=["falling"], effect=[0.0], rows=sizes, part=[0], runs=[runs])


def simulate(cell: Cell) -> Result:
    """What each rule does on the cell's runs: alarms, delays in looks, regrets."""
    mark = "/".join(str(cell[name]) for name in ("course", "effect", "rows", "part"))
    rng = generator(SEED, NAME, mark)
    seconds, looked = 0.0, 0
    alarms: dict[str, list[float]] = {rule: [] for rule in RULES}
    regrets: dict[str, list[float]] = {rule: [] for rule in RULES}
    for _ in range(int(cell["runs"])):
        run = plant(rng, int(cell["rows"]), str(cell["course"]), float(cell["effect"]))
        start = time.perf_counter()
        found = {"guard": first_alarm(run.history, str(cell["course"]))}
        seconds, looked = seconds + time.perf_counter() - start, looked + (found["guard"] or LOOKS)
        found |= {f"patience {p}": waited(run.history, p) for p in (3, 5)}
        for rule, look in found.items():
            alarms[rule].append(math.nan if look is None else float(look))
            regrets[rule].append(regret(run, look))
    result: Result = {"judge_ms": 1000 * seconds / max(1, looked)}
    for rule in RULES:
        at = np.array(alarms[rule])
        raised = at[np.isfinite(at)]
        name = rule.replace(" ", "_")
        result[f"{name}_alarms"] = len(raised)
        result[f"{name}_early"] = int((raised <= TURN).sum())
        result[f"{name}_delay"] = float(np.median(raised - TURN)) if len(raised) else None
        result[f"{name}_regret"] = float(np.mean(regrets[rule]))
        result[f"{name}_looks"] = float(np.mean(np.where(np.isfinite(at), at + 1, LOOKS)))
    return result


def plant(rng: np.random.Generator, rows: int, course: str, effect: float) -> Planted:
    """A run of ``rows`` validation rows and a train probe of the same size."""
    end = effect * needed(rows)
    truth = true_means(course, end)
    probe = START + (PROBE_END - START) * (1 - np.exp(-np.arange(LOOKS) / 5.0))
    valid, train = (rows_of(rng, rows, means) for means in (truth, probe))
    history = tuple(snapshot(STEP * k, train[:, k], valid[:, k]) for k in range(LOOKS))
    return Planted(history, truth, int(truth.argmin()) if course != "flat" else TURN)


def true_means(course: str, end: float) -> np.ndarray:
    looks = np.arange(LOOKS)
    if course == "falling":
        return START + (BEST - START) * looks / (LOOKS - 1)
    fall = START + (BEST - START) * np.minimum(1.0, looks / TURN)
    return np.asarray(fall + end * np.maximum(0, looks - TURN) / (LOOKS - 1 - TURN))


WANDER = 0.12  # the standard deviation of a row's own change from one look to the next


def rows_of(rng: np.random.Generator, n: int, means: np.ndarray) -> np.ndarray:
    """Losses [n, looks]: difficulty × mean, and a wandering of each row's own that forgets itself
    slowly, with the heavy tail of cross-entropy (t with 4 degrees of freedom)."""
    hard = rng.gamma(1.5, 1 / 1.5, size=(n, 1))
    moves = WANDER * rng.standard_t(4, size=(n, len(means))) / math.sqrt(2)
    own = np.zeros((n, len(means)))
    for k in range(1, len(means)):
        own[:, k] = 0.9 * own[:, k - 1] + moves[:, k]
    return np.asarray(means * hard + own)


def needed(rows: int) -> float:
    """The rise at which a one-sided 5 % paired test of the last state against the true best has a
    power of 0.9: (z₀.₉₅ + z₀.₉) · sd ÷ √n, the sd of the simulator's own paired difference."""
    return (1.645 + 1.282) * pair_sd() / math.sqrt(rows)


def pair_sd() -> float:
    """The standard deviation of a row's own (last − turning point), in closed form: an
    autoregression with 0.9 that started at 0."""

    def variance(k: int) -> float:
        return WANDER**2 * (1 - 0.81**k) / (1 - 0.81)

    apart, last = LOOKS - 1 - TURN, LOOKS - 1
    return math.sqrt(variance(last) + variance(TURN) - 2 * 0.9**apart * variance(TURN))


def snapshot(step: int, train: np.ndarray, valid: np.ndarray) -> Snapshot:
    return Snapshot(
        step=step,
        epoch=step / 500,
        examples_seen=16 * step,
        phase="planted",
        train_losses=train,
        valid_losses=valid,
        train_metrics={},
        valid_metrics={},
        refined_loss=float(valid.mean()),
        temperature=1.0,
        learning_rate=1e-4,
        gradient_norm=None,
        relative_update=None,
        distance=None,
        seconds=0.0,
    )


def first_alarm(history: Sequence[Snapshot], course: str) -> int | None:
    """The first look at which the guard names a fault. A course that falls to the end *is* underfit
    there, which is no reason to stop."""
    quiet = (*QUIET, "underfit") if course == "falling" else QUIET
    known = RunFacts(planned_looks=len(history), planned_steps=history[-1].step)
    for look in range(1, len(history)):
        if judge(history[: look + 1], known).label not in quiet:
            return look
    return None


def waited(history: Sequence[Snapshot], patience: int) -> int | None:
    """The look at which patience gives up."""
    best, since = math.inf, 0
    for look, one in enumerate(history):
        since = 0 if one.valid_loss < best else since + 1
        best = min(best, one.valid_loss)
        if since >= patience:
            return look
    return None


def regret(run: Planted, stopped: int | None) -> float:
    """True mean of the kept state less the best true mean."""
    last = len(run.history) - 1 if stopped is None else stopped
    kept = int(np.argmin([one.valid_loss for one in run.history[: last + 1]]))
    return float(run.truth[kept] - run.truth.min())


def section(cells: Sequence[Cell], results: Sequence[Result | None]) -> str:
    """The tables of ``RESULTS.md``."""
    lines = [
        "## Verdicts: planted truth",
        "",
        f"`python benchmarks/verdict_parts/planted.py`: {LOOKS} looks, the turning point at look "
        f"{TURN}; effects in units of the one that a fixed paired test finds with a power of 0.9. "
        "An alarm of the guard is any label of a fault, at any look.",
        "",
        "False alarms on flat courses (after the true best nothing changes):",
        "",
        "| rows | runs | guard | 95 % interval | 99 % upper bound | patience 3 | patience 5 |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_flat_line(rows, cells, results) for rows in (50, 150, 500)]
    columns = " | ".join(f"{rule}: found, early, delay, regret" for rule in RULES)
    lines += [
        "",
        "A known turning point: share found (before it: false), looks from it to the "
        "alarm (median), and true regret of the kept state:",
        "",
        f"| rows | effect | {columns} |",
        "|---|---|" + "---|" * len(RULES),
    ]
    lines += [
        _rising_line(cell, result)
        for cell, result in zip(cells, results, strict=True)
        if cell["course"] == "rising"
    ]
    lines += [
        "",
        "Courses that fall to the end: stopped too early, looks taken, regret:",
        "",
        "| rows | " + " | ".join(RULES) + " |",
        "|---|" + "---|" * len(RULES),
    ]
    lines += [
        _falling_line(cell, result)
        for cell, result in zip(cells, results, strict=True)
        if cell["course"] == "falling"
    ]
    times = [r["judge_ms"] for r in results if r]
    if times:
        lines += ["", f"A look of the guard took {np.mean(times):.1f} ms on average."]
    return "\n".join(lines)


def _flat_line(rows: int, cells: Sequence[Cell], results: Sequence[Result | None]) -> str:
    own = [
        r
        for c, r in zip(cells, results, strict=True)
        if r and c["course"] == "flat" and c["rows"] == rows
    ]
    runs = sum(
        int(c["runs"])
        for c, r in zip(cells, results, strict=True)
        if r and c["course"] == "flat" and c["rows"] == rows
    )
    if not runs:
        return f"| {rows} | not run | | | | | |"
    counts = {rule: sum(r[f"{rule.replace(' ', '_')}_alarms"] for r in own) for rule in RULES}
    low, high = wilson(counts["guard"], runs)
    upper = clopper_pearson(counts["guard"], runs, 0.98)[1]
    shares = [f"{counts[rule] / runs:.1%}" for rule in RULES]
    return (
        f"| {rows} | {runs} | {shares[0]} | {low:.1%} to {high:.1%} | {upper:.1%} | "
        f"{shares[1]} | {shares[2]} |"
    )


def _rising_line(cell: Cell, result: Result | None) -> str:
    head = f"| {cell['rows']} | {cell['effect']} | "
    if result is None:
        return head + " | ".join(["not run"] * len(RULES)) + " |"
    return head + " | ".join(_shown(cell, result, rule) for rule in RULES) + " |"


def _shown(cell: Cell, result: Result, rule: str) -> str:
    name, runs = rule.replace(" ", "_"), int(cell["runs"])
    early, found = result[f"{name}_early"], result[f"{name}_alarms"] - result[f"{name}_early"]
    delay = result[f"{name}_delay"]
    return (
        f"{found / runs:.0%}, {early / runs:.0%}, {'–' if delay is None else f'{delay:g}'}, "
        f"{result[f'{name}_regret']:.4f}"
    )


def _falling_line(cell: Cell, result: Result | None) -> str:
    if result is None:
        return f"| {cell['rows']} | " + " | ".join(["not run"] * len(RULES)) + " |"
    shown = [
        f"{result[f'{n}_alarms'] / int(cell['runs']):.0%}, {result[f'{n}_looks']:.1f}, "
        f"{result[f'{n}_regret']:.4f}"
        for n in (rule.replace(" ", "_") for rule in RULES)
    ]
    return f"| {cell['rows']} | " + " | ".join(shown) + " |"


if __name__ == "__main__":
    main()
