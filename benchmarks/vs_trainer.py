"""Speed, memory and accuracy against the Hugging Face Trainer, on the same rows and weights.

    python benchmarks/vs_trainer.py                 # 12 paired runs of three arms, and three extras
    python benchmarks/vs_trainer.py --minutes 60    # start no new cell after an hour
    python benchmarks/vs_trainer.py --quick         # a smoke test, nothing is kept

MiniLM, 1,000 training and 200 validation rows of CR, MR and TREC, batches of 16, 2 epochs; the
rest is each side's default, with the Trainer evaluating once an epoch. Examples per second are
those of the contract: rows forward and backward ÷ `train_s` (Holdfast: from the loaded model to the
restored best state; Trainer: the wall time of `train()`). Accuracy is on 500 rows that no other
seed tests on, so that the pooled rows are all different. Memory is the peak of the whole process,
scoring included.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

from cells import Cell, grid, run_cells
from claims import Claim, Lines, Metric, ReadmeRow, average, comparison, paired, runs, table
from peers.arms import Arm
from peers.rows import SETS, Parts, clean_set, draw
from peers.script import options, results_path, runner

NAME = "vs_trainer"
BY = ("data", "seed")
SEEDS = 4
TEST_ROWS = 500
MAIN, OURS_FLOAT, PEER, PEER_BF16 = "holdfast", "holdfast float32", "trainer", "trainer bf16"
COMPARED = ("holdfast", "trainer", "holdfast float32")


def arms(epochs: int | float) -> dict[str, Arm]:
    ours: dict[str, Any] = {"train.epochs": epochs, "train.batch_size": 16}
    theirs: dict[str, Any] = {"epochs": epochs, "batch_size": 16}
    return {
        MAIN: Arm("holdfast", ours),
        OURS_FLOAT: Arm("holdfast", ours | {"train.precision": "float32"}),
        PEER: Arm("trainer", theirs),
        PEER_BF16: Arm("trainer", theirs | {"bf16": True}),
    }


def cells(quick: bool) -> list[dict[str, Any]]:
    """Arms side by side on the same rows; the Trainer in bfloat16 last, once a set."""
    if quick:
        return grid(seed=[0], data=["trec"], arm=[*COMPARED, PEER_BF16])
    extra = grid(seed=[0], data=SETS, arm=[PEER_BF16])
    return grid(seed=range(SEEDS), data=SETS, arm=COMPARED) + extra


def parts_of(cell: Cell, quick: bool) -> Parts:
    rows, seed = clean_set(cell["data"]), cell["seed"]
    if quick:
        return draw(rows, seed=seed, train=64, valid=16, test=slice(0, 40))
    test = slice(TEST_ROWS * seed, TEST_ROWS * (seed + 1))
    return draw(rows, seed=seed, train=1000, valid=200, test=test)


def main(words: Sequence[str]) -> None:
    chosen = options(__doc__ or "").parse_args(words)
    path = results_path(NAME, chosen.threads, chosen.quick)
    todo = cells(chosen.quick)
    parts = functools.partial(parts_of, quick=chosen.quick)
    run_one = runner(arms(1 if chosen.quick else 2), parts, path, chosen.threads)
    run_cells(NAME, todo, run_one, path, minutes=chosen.minutes)


def finding(lines: Lines) -> str:
    points = paired(lines, "accuracy", MAIN, PEER, BY)
    times = paired(lines, "examples_per_s", MAIN, PEER, BY, times=True)
    if not points or not times:
        return ""
    return (
        "With 1,000 training rows, 2 epochs and batches of 16 for both systems and otherwise their "
        "defaults (on this processor bfloat16 and float32), Holdfast's test accuracy is "
        f"{points.words(100, 2, ' points')} above Trainer's, and it trains "
        f"{times.words(1, 2, ' times', sign=False)} as many rows per second."
    )


def rows_of_readme(lines: Lines) -> list[ReadmeRow]:
    points = paired(lines, "accuracy", MAIN, PEER, BY)
    times = paired(lines, "examples_per_s", MAIN, PEER, BY, times=True)
    if not points or not times:
        return []
    return [
        (
            (
                "1,000 training texts, three sets, MiniLM, the same epochs and batch size, "
                "otherwise defaults: Holdfast's accuracy minus that of Trainer"
            ),
            f"{points.short(100, 2)} points, {points.over}",
            points.verdict(),
        ),
        (
            "… rows per second, in bfloat16, ÷ those of Trainer, in float32",
            f"{times.short(1, 2, sign=False)}, {times.over}",
            times.verdict("faster", "slower", 1),
        ),
    ]


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Against the Hugging Face Trainer on 1,000 rows",
    """\
MiniLM on CR, MR and TREC: 1,000 training and 200 validation rows, batches of 16, 2 epochs, the
same rows and weights for both systems. Everything else is each system's default; Trainer
evaluates once an epoch. Accuracy is measured on 500 test rows that no other seed uses. Rows per
second are rows trained on ÷ training time. Memory is the peak of the process. Intervals are over
pairs of runs.""",
    lambda: cells(quick=False),
    finding,
    [
        comparison(
            [(MAIN, PEER), (OURS_FLOAT, PEER)],
            {
                "Accuracy, points": Metric("accuracy", 100, 2),
                "Rows per second, ratio": Metric("examples_per_s", 1, 2, times=True),
                "Peak memory, ratio": Metric("peak_mb", 1, 2, times=True),
            },
            by=BY,
        ),
        table(
            {"data": "Set", "arm": "System", "precision": "Precision"},
            {
                "Runs": runs,
                "Accuracy, %": average("accuracy", 100, limits=False),
                "Rows per second": average("examples_per_s", limits=False),
                "Training, s": average("train_s", limits=False),
                "Command, s": average("command_s", limits=False),
                "Peak memory, MB": average("peak_mb", 1, 0, limits=False),
            },
        ),
    ],
    """\
The ratio of speeds depends on the processor: Holdfast computes in bfloat16 where the hardware
supports it, Trainer in float32 by default. In the second row of the first table both compute in
float32. Other jobs ran on the machine at the same time, for both systems alike.""",
    readme=rows_of_readme,
)


if __name__ == "__main__":
    main(sys.argv[1:])
