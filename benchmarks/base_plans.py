"""What a plan for an encoder of base size should be: epochs, learning rate, contrast.

    python benchmarks/base_plans.py [--minutes M] [--jobs J]
    python benchmarks/base_plans.py --tables

From all-mpnet-base-v2, on sets of ``peers/sets.py`` with 100 and 400 labelled rows; one thread. The
table gives, for each plan, the mean accuracy over sets and seeds, the seconds of training, and the
mean on each set of the plan that is best on the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cells import RESULTS, Cell, grid, publish, run_cells, stored
from peers.arms import Arm, run_arm
from peers.rows import labelled_counts
from peers.sets import parts_of
from peers.strong import strong_folder
from peers.tables import markdown

NAME = "base_plans"
SETS = ("cr", "trec", "packages", "clinic", "mr", "ai_text", "instructions", "novels")
PLANS: dict[int, dict[str, dict[str, Any]]] = {
    100: {
        "12 epochs": {"train.epochs": 12},
        "6 epochs at 5e-5": {"train.epochs": 6, "train.learning_rate": 5e-5},
        "contrast, 75 steps": {"methods.contrast.steps": 75, "train.learning_rate": 3e-5},
        "contrast, 40 steps at 5e-5": {"methods.contrast.steps": 40, "train.learning_rate": 5e-5},
    },
    400: {
        "12 epochs": {"train.epochs": 12},
        "6 epochs": {"train.epochs": 6},
        "4 epochs at 5e-5": {"train.epochs": 4, "train.learning_rate": 5e-5},
        "contrast, 75 steps at 5e-5": {"methods.contrast.steps": 75, "train.learning_rate": 5e-5},
    },
}


def run_one(cell: Cell) -> dict[str, Any]:
    settings = {"model.name": str(strong_folder()), **PLANS[cell["rows"]][cell["plan"]]}
    if "contrast" in cell["plan"]:
        settings["train.epochs"] = settings["methods.contrast.steps"] * 16 / cell["rows"] / 0.82
    parts = parts_of(cell["data"], labelled_counts(cell["rows"]), cell["seed"])
    return run_arm(Arm("holdfast", settings), parts, seed=cell["seed"], threads=1).result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--rows", type=int, choices=list(PLANS), default=100)
    parser.add_argument("--tables", action="store_true")
    given = parser.parse_args()
    if not given.tables:
        plans = list(PLANS[given.rows])
        todo = grid(seed=range(2), data=SETS, rows=(given.rows,), plan=plans)
        run_cells(NAME, todo, run_one, minutes=given.minutes, jobs=given.jobs)
    publish(NAME, report())


def report() -> str:
    done = stored(RESULTS / f"{NAME}.jsonl")
    records = [{**json.loads(key), **result} for key, result in done.items()]
    return "\n\n".join(
        ["## Plans for a base encoder", *(table(records, rows) for rows in sorted(PLANS))]
    )


def table(records: Sequence[Mapping[str, Any]], rows: int) -> str:
    """Mean accuracies of the plans on the cells that all of them have."""
    of = {
        plan: {
            (r["data"], r["seed"]): r for r in records if r["rows"] == rows and r["plan"] == plan
        }
        for plan in PLANS[rows]
    }
    shared = sorted(set.intersection(*(set(found) for found in of.values())))
    if not shared:
        return f"{rows} rows: not run"
    lines = []
    for plan, found in of.items():
        by_set = [
            f"{100 * np.mean([found[c]['accuracy'] for c in shared if c[0] == data]):.1f}"
            for data in dict.fromkeys(data for data, _ in shared)
        ]
        mean = 100 * np.mean([found[cell]["accuracy"] for cell in shared])
        seconds = np.mean([found[cell]["train_s"] for cell in shared])
        lines.append([plan, f"{mean:.1f}", f"{seconds:.0f}", *by_set])
    lines.append(["best of the other sets", f"{100 * left_out(of, shared):.1f}", "", ""])
    sets = list(dict.fromkeys(data for data, _ in shared))
    width = 3 + len(sets)
    padded = [[*line, *[""] * (width - len(line))] for line in lines]
    return markdown([f"{rows} rows", "Accuracy, %", "Training, s", *sets], padded)


def left_out(of: Mapping[str, Mapping[Any, Any]], shared: Sequence[tuple[str, int]]) -> float:
    """The accuracy on each set of the plan that is best on the others, averaged."""
    scores = []
    for data in dict.fromkeys(data for data, _ in shared):
        others = [cell for cell in shared if cell[0] != data]
        best = max(
            of, key=lambda plan: np.mean([of[plan][c]["accuracy"] for c in others or shared])
        )
        scores.append(np.mean([of[best][c]["accuracy"] for c in shared if c[0] == data]))
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
