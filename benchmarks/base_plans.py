"""What a plan for an encoder of base size should be: epochs, learning rate, contrast.

    python benchmarks/base_plans.py [--minutes M] [--jobs J]

From all-mpnet-base-v2, on sets of ``peers/sets.py`` with 100 and 400 labelled rows; one thread. The
table gives, for each plan, the mean accuracy over sets and seeds, the seconds of training, and the
mean on each set of the plan that is best on the others.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import Claim, Lines, Metric, average, comparison, paired, pick, runs, table
from peers.arms import Arm, run_arm
from peers.rows import labelled_counts
from peers.sets import parts_of
from peers.strong import strong_folder

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
    given = parser.parse_args()
    plans = list(PLANS[given.rows])
    todo = grid(seed=range(2), data=SETS, rows=(given.rows,), plan=plans)
    run_cells(NAME, todo, run_one, minutes=given.minutes, jobs=given.jobs)


def finding(lines: Lines) -> str:
    parts = []
    for rows, plans in PLANS.items():
        found = {plan: pick(lines, rows=rows, plan=plan) for plan in plans}
        means = {p: np.mean([line["accuracy"] for line in of]) for p, of in found.items() if of}
        best, *others = sorted(means, key=lambda plan: -means[plan])[:2] or [None]
        gap = (
            paired(pick(lines, rows=rows), "accuracy", best, others[0], arm="plan")
            if others
            else None
        )
        if gap:
            parts.append(
                f"with {rows} labelled rows `{best}` has {gap.words(100, 1, ' points')} of "
                f"accuracy against `{others[0]}`"
            )
    return (
        f"The best plan and the second for an encoder of base size: {'; '.join(parts)}."
        if parts
        else ""
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "The training plan for an encoder of base size",
    """\
all-mpnet-base-v2, fine-tuned with different epochs, learning rates and with contrastive steps,
one thread. The difference is to 12 epochs, on the same rows.""",
    lambda: [
        cell
        for rows, plans in PLANS.items()
        for cell in grid(seed=range(2), data=SETS, rows=(rows,), plan=list(plans))
    ],
    finding,
    [
        table(
            {"rows": "Rows", "plan": "Plan"},
            {
                "Cells": runs,
                "Accuracy, %": average("accuracy", 100, limits=False),
                "Training, s": average("train_s", 1, 0, limits=False),
            },
        ),
        comparison(
            [(plan, "12 epochs") for plan in {**PLANS[100], **PLANS[400]} if plan != "12 epochs"],
            {"Accuracy, points": Metric("accuracy", 100)},
            "rows",
            arm="plan",
        ),
    ],
    "No difference between plans is shown where its interval contains 0.",
)


if __name__ == "__main__":
    main()
