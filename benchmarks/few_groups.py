"""From how many groups on do grouped intervals hold the truth?

    python benchmarks/few_groups.py [--resamplings 1000]

Two classes; a group shifts the margin of all of its rows by a normal amount, so that rows of one
group are right and wrong together (``icc`` is the correlation of being right within a group), and
prefers one class. Groups have 30 rows on average, log-normal with sigma 0.6. The truth is the value
over 4,000 such groups. ``metrics.score`` is given samples of few groups; the share of its
intervals that hold the truth is the coverage.
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import numpy as np
from cells import Cell, Result, grid, run_cells

from holdfast.core.records import Outputs
from holdfast.core.seeds import generator
from holdfast.metrics import resample
from holdfast.metrics.score import score

METRICS = ("accuracy", "f1_macro", "loss", "ece")
CLASSES = ("no", "yes")
SHIFTS = {0.02: 0.21, 0.1: 0.48}
GROUPS = [2, 3, 4, 5, 6, 8, 10, 15, 20, 30]
ROWS, SPREAD, MARGIN, NOISE = 30, 0.6, 1.0, 1.0
BOOTSTRAP = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamplings", type=int, default=1000)
    cells = grid(icc=list(SHIFTS), groups=GROUPS, resamplings=[parser.parse_args().resamplings])
    run_cells("few_groups", cells, coverage)


def coverage(cell: Cell) -> Result:
    """Each metric's share of intervals that hold the truth; all are asked for, however few."""
    rng = generator(0, "few groups", cell["icc"], cell["groups"])
    pool = draw(4000, SHIFTS[cell["icc"]], generator(0, "truth", cell["icc"]))
    started = time.perf_counter()
    with (
        mock.patch.object(resample, "FEWEST_GROUPS", 2),
        mock.patch("holdfast.metrics.score._rankings", return_value={}),
    ):
        truth = {
            name: e.value for name, e in score(plain(pool), CLASSES, resamples=2).metrics.items()
        }
        held = dict.fromkeys(METRICS, 0)
        for seed in range(cell["resamplings"]):
            sample = draw(cell["groups"], SHIFTS[cell["icc"]], rng)
            metrics = score(sample, CLASSES, seed=seed, resamples=BOOTSTRAP).metrics
            for name in METRICS:
                low, high = metrics[name].low, metrics[name].high
                held[name] += low is not None and high is not None and low <= truth[name] <= high
    shares = {name: count / cell["resamplings"] for name, count in held.items()}
    return {
        **shares,
        "icc_found": icc(pool),
        "accuracy_truth": truth["accuracy"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def draw(groups: int, shift: float, rng: np.random.Generator) -> Outputs:
    """So many groups of rows."""
    sizes = np.maximum(1, rng.lognormal(np.log(ROWS), SPREAD, groups)).astype(int)
    code = np.repeat(np.arange(groups), sizes)
    share = rng.beta(4, 4, groups)[code]
    labels = (rng.random(len(code)) < share).astype(np.int64)
    margin = (
        MARGIN + shift * rng.standard_normal(groups)[code] + NOISE * rng.standard_normal(len(code))
    )
    signed = np.where(labels == 1, margin, -margin)
    logits = np.stack([-signed, signed], axis=1).astype(np.float32)
    losses = np.logaddexp(0, -2 * margin)
    return Outputs(np.arange(len(code)), labels, logits, losses, code.astype(str))


def plain(outputs: Outputs) -> Outputs:
    return Outputs(outputs.rows, outputs.labels, outputs.logits, outputs.losses)


def icc(outputs: Outputs) -> float:
    """The correlation of being right between two rows of one group, by analysis of variance."""
    right = (outputs.predictions == outputs.labels).astype(float)
    _, code, sizes = np.unique(outputs.groups, return_inverse=True, return_counts=True)
    n, groups = len(right), len(sizes)
    means = np.bincount(code, right) / sizes
    within = float(((right - means[code]) ** 2).sum()) / (n - groups)
    between = float((sizes * (means - right.mean()) ** 2).sum()) / (groups - 1)
    size = (n - (sizes**2).sum() / n) / (groups - 1)
    return (between - within) / (between + (size - 1) * within)


if __name__ == "__main__":
    main()
