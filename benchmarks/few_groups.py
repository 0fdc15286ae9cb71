"""Intervals from few groups: how often they cover the true value.

    python benchmarks/few_groups.py --jobs 2

Two classes; a group shifts the margins of all of its rows by a normal amount, so that rows of one
group are correct and wrong together (``icc`` is the correlation of being correct within a group),
and prefers one class. Groups have 30 rows on average; their sizes are log-normal (``sigma`` 0.6:
two thirds have 16 to 55 rows; 1: 11 to 82). The truth is the value over 4,000 such groups. A cell
draws 400 samples of so many groups and counts the 95 % intervals of `metrics.score` that cover the
truth; here they are made however few groups there are.
"""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

import numpy as np
from cells import Cell, Result, grid, run_command
from claims import Claim, Lines, described, rate, share, table

from holdfast.core.records import Outputs
from holdfast.core.seeds import generator
from holdfast.metrics import resample
from holdfast.metrics.score import score

NAME = "few_groups"
METRICS = {"accuracy": "accuracy", "f1_macro": "macro F1", "loss": "loss", "ece": "ECE"}
CLASSES = ("no", "yes")
SHIFTS = {0.02: 0.21, 0.1: 0.48}
GROUPS = [2, 3, 4, 5, 6, 8, 10, 15, 20, 30]
SIGMAS = [0.6, 1.0]
ROWS, MARGIN, NOISE = 30, 1.0, 1.0
BOOTSTRAP, SAMPLES = 1000, 400


def cells() -> list[dict[str, Any]]:
    return grid(icc=list(SHIFTS), sigma=SIGMAS, groups=GROUPS)


def coverage(cell: Cell) -> Result:
    """The number of intervals of each metric that cover the truth."""
    rng = generator(0, "few groups", cell["icc"], cell["sigma"], cell["groups"])
    shift, sigma = SHIFTS[cell["icc"]], cell["sigma"]
    pool = draw(4000, shift, sigma, generator(0, "truth", cell["icc"], sigma))
    started = time.perf_counter()
    with (
        mock.patch.object(resample, "FEWEST_GROUPS", 2),
        mock.patch("holdfast.metrics.score._rankings", return_value={}),
    ):
        truth = {
            name: e.value
            for name, e in score(plain(pool), CLASSES, resamples=2).metrics.items()
            if e.value is not None
        }
        held = dict.fromkeys(METRICS, 0)
        for seed in range(SAMPLES):
            sample = draw(cell["groups"], shift, sigma, rng)
            metrics = score(sample, CLASSES, seed=seed, resamples=BOOTSTRAP).metrics
            for name in METRICS:
                low, high = metrics[name].low, metrics[name].high
                held[name] += low is not None and high is not None and low <= truth[name] <= high
    return {
        **held,
        "samples": SAMPLES,
        "icc_found": icc(pool),
        "accuracy_truth": truth["accuracy"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def draw(groups: int, shift: float, sigma: float, rng: np.random.Generator) -> Outputs:
    """So many groups of rows."""
    sizes = np.maximum(1, rng.lognormal(np.log(ROWS), sigma, groups)).astype(int)
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
    assert outputs.groups is not None
    right = (outputs.predictions == outputs.labels).astype(float)
    _, code, sizes = np.unique(outputs.groups, return_inverse=True, return_counts=True)
    n, groups = len(right), len(sizes)
    means = np.bincount(code, right) / sizes
    within = float(((right - means[code]) ** 2).sum()) / (n - groups)
    between = float((sizes * (means - right.mean()) ** 2).sum()) / (groups - 1)
    size = float(n - (sizes**2).sum() / n) / (groups - 1)
    return (between - within) / (between + (size - 1) * within)


def finding(lines: Lines) -> str:
    enough = [line for line in lines if line["groups"] >= resample.FEWEST_GROUPS]
    if not enough:
        return ""
    samples = sum(line["samples"] for line in enough)
    covered = "; ".join(
        f"{words} {share(sum(line[name] for line in enough), samples, long=True)}"
        for name, words in METRICS.items()
    )
    return (
        f"With {resample.FEWEST_GROUPS} groups or more, the fewest that Holdfast gives an interval "
        f"for, 95 % intervals cover the true value in: {covered}."
    )


CLAIM = Claim(
    NAME,
    "Decisions and intervals",
    "Intervals from few groups",
    described(__doc__),
    cells,
    finding,
    [
        table(
            {"icc": "Correlation in a group", "sigma": "Sigma of sizes", "groups": "Groups"},
            {f"{words}, % covered": rate(name, "samples") for name, words in METRICS.items()},
        )
    ],
    """\
One kind of simulated data, with two classes. The calibration error (ECE) is biased upwards.
Student's t has the degrees of freedom of the effective number of groups, because earlier figures
showed that G − 1 are too many for groups of unequal size.""",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, coverage)
