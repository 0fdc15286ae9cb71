"""Whole runs with a faulty recipe, with and without the policy `adapt`: how much of what the fault
costs is recovered.

    python benchmarks/repairs.py --jobs 2

The sets and rows are those of ``quality.py``, the start is the embedded encoder. A fault is a
setting of the recipe (``FAULTS``), or a fifth of wrong labels as in ``dropped_labels.py``. The run
without the fault is the default under the policy `stop`.
"""

from __future__ import annotations

from typing import Any

from cells import Cell, grid, run_command
from claims import Claim, Lines, Metric, comparison, paired, pick
from dropped_labels import with_faultless, with_wrong_labels
from peers.arms import Arm, run_arm

from quality import possible, rows_of

NAME = "repairs"
# MiniLM's default learning rate is 1e-4.
FAULTS: dict[str, dict[str, Any]] = {
    "learning rate ÷ 30": {"train.learning_rate": 1e-4 / 30},
    "learning rate × 10": {"train.learning_rate": 1e-3},
    "50 epochs without decay": {"train.epochs": 50, "train.schedule": "constant"},
    "8 updates": {"train.max_steps": 8},
}
WRONG = "a fifth of wrong labels"
NONE = "none"
POLICIES = ("stop", "adapt")
REPAIRED_SETS = ("trec", "packages", "queries", "instructions", "cr")
SIZES, SEEDS = (100, 400), 3
GOOD = "without the fault"
RUN = ("rows", "data", "seed", "fault")


def cells() -> list[dict[str, Any]]:
    """Seed by seed, the run without a fault first."""
    return possible(
        cell
        for seed in range(SEEDS)
        for rows in SIZES
        for fault in (NONE, *FAULTS, WRONG)
        for cell in grid(
            seed=[seed],
            rows=[rows],
            data=REPAIRED_SETS,
            fault=[fault],
            arm=POLICIES[:1] if fault == NONE else POLICIES,
        )
    )


def run_one(cell: Cell) -> dict[str, Any]:
    parts = rows_of(cell["data"], cell["rows"], cell["seed"])
    if cell["fault"] == WRONG:
        parts = with_wrong_labels(parts, {**cell, "wrong": "random 0.2"})
    settings = {"model.name": "embedded", "control.policy": cell["arm"]}
    arm = Arm("holdfast", {**settings, **FAULTS.get(cell["fault"], {})}, whole=True)
    return run_arm(arm, parts, seed=cell["seed"], threads=1).result


def finding(lines: Lines) -> str:
    parts, lines = [], with_faultless(lines, "fault", POLICIES[0], GOOD)
    for fault in (*FAULTS, WRONG):
        some = pick(lines, fault=fault)
        cost, gain = (paired(some, "accuracy", arm, "stop", RUN) for arm in (GOOD, "adapt"))
        if cost and gain:
            lost = f"{100 * cost.value:.1f} points"
            parts.append(f"{fault}: {gain.words(100, 1, ' points')} of {lost}")
    return f"Of the accuracy that a fault costs, `adapt` recovers: {'; '.join(parts)}." * bool(
        parts
    )


CLAIM = Claim(
    NAME,
    "Verdicts",
    "What the policy `adapt` repairs",
    """\
Whole runs from MiniLM on 100 and 400 labelled texts of five of the [ten sets](quality.md), with one
fault each, under the policies `stop` (the default: early stopping) and `adapt`. "Without the fault"
is the default recipe on the same rows.""",
    cells,
    finding,
    [
        lambda lines: comparison(
            [(GOOD, "stop"), ("adapt", "stop")],
            {
                "Accuracy, points": Metric("accuracy", 100),
                "Processor time, ratio": Metric("cpu_s", 1, 2, times=True),
            },
            "fault",
            by=RUN,
        )(with_faultless(lines, "fault", POLICIES[0], GOOD))
    ],
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
