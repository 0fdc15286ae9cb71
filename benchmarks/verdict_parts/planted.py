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

from cells import Cell, Result, grid, run_cells
from claims import Claim, Line, Lines, average, counts, pick, rate, share, table

from holdfast.core.records import Snapshot
from holdfast.core.run_facts import RunFacts
from holdfast.core.seeds import generator
from holdfast.monitor.judge import judge

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
    run_cells(NAME, all_cells(options.runs), simulate, minutes=options.minutes)


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


def by_rule(lines: Lines) -> list[Line]:
    """A line for each rule, its figures under the same names."""
    return [
        {**line, "rule": rule}
        | {key: line[f"{name}_{key}"] for key in ("alarms", "early", "delay", "regret", "looks")}
        for line in lines
        for rule, name in ((rule, rule.replace(" ", "_")) for rule in RULES)
    ]


def finding(lines: Lines) -> str:
    flat = by_rule(pick(lines, course="flat"))
    found = by_rule(pick(lines, course="rising", effect=2.0))
    return (
        "On simulated runs whose true loss stays flat the guard raises a false alarm in "
        f"{share(*counts(pick(flat, rule='guard'), 'alarms', 'runs'), long=True)} runs; early "
        "stopping with patience 5 stops "
        f"{share(*counts(pick(flat, rule='patience 5'), 'alarms', 'runs'), long=True)}. A large "
        "rise (effect 2: twice what a paired test finds with a power of 0.9) is found by the guard "
        "in "
        f"{share(*counts(pick(found, rule='guard'), 'alarms', 'runs'), long=True)} runs."
    )


CLAIM = Claim(
    NAME,
    "Verdicts",
    "A known turning point",
    """\
Simulated losses of single rows with heavy tails, 20 evaluations. After evaluation 8, the turning
point, the mean loss stays flat, rises to an effect, or goes on falling. An effect of 1 is the one
that a one-sided 5 % paired test of the last against the true best checkpoint finds with a power
of 0.9. Any verdict of the guard that names a fault is an alarm; "patience 3" and "patience 5"
stop after so many evaluations without a lower loss. The delay counts evaluations from the turning
point. The regret is how far the kept checkpoint's true mean loss lies above the best, as a share
of what there was to gain (lower is better).""",
    lambda: all_cells(60),
    finding,
    [
        lambda lines: table(
            {"rows": "Validation rows", "rule": "Rule"},
            {"False alarms, %": rate("alarms", "runs")},
            "Flat runs:",
            course="flat",
        )(by_rule(lines)),
        lambda lines: table(
            {"effect": "Effect", "rows": "Validation rows", "rule": "Rule"},
            {
                "Found, %": rate("alarms", "runs"),
                "Delay, median": average("delay", 1, 1, limits=False),
                "Regret": average("regret", 1, 4, limits=False),
            },
            "Rising runs:",
            course="rising",
        )(by_rule(lines)),
        lambda lines: table(
            {"rows": "Validation rows", "rule": "Rule"},
            {
                "Stopped too early, %": rate("alarms", "runs"),
                "Regret": average("regret", 1, 4, limits=False),
            },
            "Falling runs:",
            course="falling",
        )(by_rule(lines)),
    ],
    (
        "The guard finds small rises less often and later than patience does; that is the price "
        "of few false alarms."
    ),
    command="python benchmarks/verdict_parts/planted.py",
)


if __name__ == "__main__":
    main()
