"""Harmless classifiers of every size: how often is one called overfit or memorizing?

    python benchmarks/verdict_parts/harmless.py              # every cell, about ten minutes
    python benchmarks/verdict_parts/harmless.py --minutes 3  # start no new cell after that

A simulator of two-class models that learn until look 8 and then stay as good as they are, while
the margin of each row goes on wandering and 98 % of the training rows are right. The true share of
right answers on unseen rows lies 0, 5 or 8 points below that, so nothing is overfit by the line of
10 points, and no loss truly rises. Whatever names it so is a false alarm: of the verdict on the
whole run, and of any of its 20 looks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, ReadmeRow, counts, rate, share, table
from scipy.special import ndtri

from holdfast.core.labels import OVERFITTED
from holdfast.core.records import Snapshot
from holdfast.core.run_facts import RunFacts
from holdfast.core.seeds import generator
from holdfast.monitor.judge import judge
from holdfast.stats.temperature import best_temperature, losses_at

NAME = "verdicts_harmless"
LOOKS, TURN, STEP = 20, 8, 100
ROWS, GAPS = (10, 20, 50, 150, 500), (0.0, 0.05, 0.08)
RIGHT, WANDER = 0.98, 0.35


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--live", type=int, default=10, help="runs judged at every look")
    options = parser.parse_args()
    todo = cells(options.runs, options.live)
    run_cells(NAME, todo, simulate, minutes=options.minutes)


def simulate(cell: Cell) -> Result:
    mark = f"{cell['gap']}/{cell['rows']}/{cell['part']}"
    rng = generator(0, NAME, mark)
    found: Result = {"named": 0, "live": 0, "inconclusive": 0, "healthy": 0}
    for run in range(int(cell["runs"])):
        history = plant(rng, int(cell["rows"]), RIGHT - float(cell["gap"]))
        label = judge(history, known()).label
        found["named"] += label in OVERFITTED
        found["inconclusive"] += label == "inconclusive"
        found["healthy"] += label == "healthy"
        if run < int(cell["live"]):
            found["live"] += any(
                judge(history[: look + 1], known()).label in OVERFITTED for look in range(1, LOOKS)
            )
    return found


def known() -> RunFacts:
    return RunFacts(classes=2, planned_steps=STEP * (LOOKS - 1), planned_looks=LOOKS)


def plant(rng: np.random.Generator, rows: int, right: float) -> tuple[Snapshot, ...]:
    """One run: validation of ``rows`` rows and a train probe of 50 or more."""
    probe = max(50, rows)
    valid, train = margins(rng, rows, right), margins(rng, probe, RIGHT)
    labels, own = rng.integers(0, 2, rows), rng.integers(0, 2, probe)
    return tuple(snapshot(k, train[:, k], own, valid[:, k], labels) for k in range(LOOKS))


def margins(rng: np.random.Generator, n: int, right: float) -> np.ndarray:
    """Margins of the right answer [n, looks]: the share above 0 is an even guess at look 0 and
    ``right`` from the turning point on; a row's own part forgets itself slowly."""
    own = np.zeros((n, LOOKS))
    own[:, 0] = rng.standard_normal(n)
    for k in range(1, LOOKS):
        fresh = rng.standard_normal(n)
        own[:, k] = np.cos(WANDER) * own[:, k - 1] + np.sin(WANDER) * fresh
    shift = float(ndtri(right)) * np.minimum(1.0, np.arange(LOOKS) / TURN)
    return np.asarray(2.0 * (own + shift))


def snapshot(
    look: int, train: np.ndarray, own: np.ndarray, valid: np.ndarray, labels: np.ndarray
) -> Snapshot:
    scores, probe = logits(valid, labels), logits(train, own)
    temperature, refined = best_temperature(scores, labels)
    return Snapshot(
        step=STEP * look,
        epoch=look / 5,
        examples_seen=16 * STEP * look,
        phase="planted",
        train_losses=losses_at(probe, own, 1.0),
        valid_losses=losses_at(scores, labels, 1.0),
        train_metrics={},
        valid_metrics={},
        refined_loss=refined,
        temperature=temperature,
        learning_rate=1e-4,
        gradient_norm=None,
        relative_update=None,
        distance=None,
        seconds=0.0,
        train_correct=train > 0,
        valid_correct=valid > 0,
        valid_logits=scores,
    )


def logits(margin: np.ndarray, labels: np.ndarray) -> np.ndarray:
    signs = np.where(np.arange(2)[None] == labels[:, None], 0.5, -0.5)
    return np.asarray(margin[:, None] * signs, dtype=np.float32)


def cells(runs: int = 60, live: int = 10) -> list[dict[str, Any]]:
    return grid(gap=list(GAPS), rows=list(ROWS), part=[0, 1, 2], runs=[runs], live=[live])


def finding(lines: Lines) -> str:
    return (
        "Simulated classifiers that do not overfit are called overfit or memorizing in "
        f"{share(*counts(lines, 'named', 'runs'), long=True)} runs; target: at most 5 %."
    )


def rows_of_readme(lines: Lines) -> list[ReadmeRow]:
    what = "False alarms: simulated runs without overfitting that are called overfit or memorizing "
    what += "(most runs are inconclusive)"
    return [(what, share(*counts(lines, "named", "runs"), long=True), "")]


CLAIM = Claim(
    NAME,
    "Verdicts",
    "Simulated classifiers that do not overfit",
    """\
Simulated two-class models that learn until evaluation 8 and then neither improve nor get worse,
while the margin of each row goes on changing. 98 % of the training rows are correct. The true
accuracy gap (training minus new rows) is 0, 0.05 or 0.08. Overfitting means a gap above 0.10 or a
true loss that rises; here neither is the case.""",
    cells,
    finding,
    [
        table(
            {"rows": "Validation rows", "gap": "True accuracy gap"},
            {
                "Called overfit or memorizing, %": rate("named", "runs"),
                "Inconclusive, %": rate("inconclusive", "runs"),
            },
        )
    ],
    (
        "Most runs are called inconclusive at every size: few false alarms do not mean that a "
        "sound run is recognized as sound."
    ),
    command="python benchmarks/verdict_parts/harmless.py",
    readme=rows_of_readme,
)


if __name__ == "__main__":
    main()
