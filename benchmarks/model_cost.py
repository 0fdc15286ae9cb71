"""What counted operations say of a model's time: the share of the speed of a matrix product that a
frozen pass of an encoder reaches, and that its training reaches.

    python benchmarks/model_cost.py

On 139 training rows of customer reviews and of package descriptions, from the embedded encoder and
from all-mpnet-base-v2. The means are FORWARD and TRAINING of ``prepare/base_model.py``.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import Claim, Lines, average, mean_words, runs, table
from peers.arms import write_recipe
from peers.process import commit
from peers.rows import labelled_counts
from peers.sets import parts_of
from peers.strong import strong_folder

NAME = "model_cost"
STEPS = 20


def run_one(cell: Cell) -> dict[str, Any]:
    """Seconds of a pass and of a step, against what the operations take at the machine's speed."""
    from holdfast.core.decisions import decisions_to
    from holdfast.fits.fit import fit
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.probe_evidence import FrozenRows
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override, read_recipe
    from holdfast.training.machine.speed import BACKWARD, forward_operations, operations_per_second

    model = "embedded" if cell["model"] == "minilm" else str(strong_folder())
    parts = parts_of(cell["data"], labelled_counts(170), cell["seed"])
    with tempfile.TemporaryDirectory() as folder, decisions_to(None):
        recipe = read_recipe(write_recipe(parts, Path(folder), cell["seed"]))
        recipe = override(recipe, [f"model.name={model}", "train.threads=1"])
        divided = load_and_divide(recipe)
        prepared, train, valid = prepare_divided(divided.recipe, divided.splits)
        speed = operations_per_second(prepared.machine)
        examples: Any = prepared.examples.take(train)
        operations = forward_operations(prepared.loaded.network, np.asarray(examples.lengths))
        FrozenRows.of(prepared, train[:8])
        start = time.perf_counter()
        FrozenRows.of(prepared, train)
        forward_s = time.perf_counter() - start
        settings = {
            "train.max_steps": STEPS,
            "train.evaluations": 1,
            "methods.contrast": False,
            "control.policy": "off",
        }
        fitted: Any = fit(prepared, train, valid, settings)
        trained_s = fitted.trained.train_s
        passed = fitted.training_plan.plan.rows_passed
    needed = (1 + BACKWARD) * operations.mean() * passed / speed
    return {
        "forward": operations.sum() / speed / forward_s,
        "training": needed / trained_s,
        "forward_s": forward_s,
        "training_s": trained_s,
        "speed": speed,
        "commit": commit(),
    }


def main() -> None:
    run_cells(NAME, cells(), run_one)


def cells() -> list[dict[str, Any]]:
    return grid(seed=range(2), data=("cr", "packages"), model=("minilm", "strong"))


def finding(lines: Lines) -> str:
    return (
        "As a share of the machine's speed of matrix multiplication, an encoder's forward pass "
        f"reaches {mean_words(lines, 'forward', 1, 2)} and its training "
        f"{mean_words(lines, 'training', 1, 2)}; `train` uses these to estimate training time."
    )


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "The time of a model from counted operations",
    """\
139 training rows of customer reviews and of package descriptions, on MiniLM and
all-mpnet-base-v2 ("strong"). A figure is the counted operations per second ÷ those of a matrix
product on the same machine.""",
    cells,
    finding,
    [
        table(
            {"data": "Set", "model": "Model"},
            {
                "Runs": runs,
                "Forward pass": average("forward", 1, 2, limits=False),
                "Training": average("training", 1, 2, limits=False),
            },
        )
    ],
    "One machine.",
)


if __name__ == "__main__":
    main()
