"""What twice the rows bring, foretold by `holdfast cv --learning-curve`, with fine-tuned models:
how often the interval holds the true gain.

    python benchmarks/learning_curve_fits.py

Of each of ten sets, 125 labelled rows are cross-validated with the defaults of `holdfast cv`
(MiniLM, five folds, so that a fold has 100 rows to learn from and to choose by). The true gain is
that of the same fit on 200 rows instead of 100, on 600 test rows: the mean of six draws.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, grid, run_command
from claims import Claim, Lines, average, described, runs, share, table
from learning_curves import SETS
from peers.rows import Rows

import holdfast
from holdfast.core.seeds import generator
from quality import rows_of

NAME = "learning_curve_fits"
ROWS, FOLDS, DRAWS, TRUE_DRAWS = 100, 5, 2, 6
MEASURES = ("accuracy", "loss")
# The fit of a fold: validation rows of its own, and the policy of `cv`.
SETTINGS = {"train.threads": 1, "train.folds": 0, "control.policy": "stop", "probes.skip": "all"}


def labelled(data: str, seed: int) -> tuple[Rows, Rows]:
    parts = rows_of(data, 400, seed)
    return parts.whole().train, parts.test


def columns(rows: Rows) -> dict[str, list[str]]:
    return {"text": list(rows.texts), "label": list(rows.labels)}


def run_one(cell: Cell) -> dict[str, Any]:
    pool, _ = labelled(cell["data"], cell["draw"])
    order = generator(cell["draw"], "benchmark", NAME, cell["data"]).permutation(len(pool))
    drawn = pool.take(order[: ROWS * FOLDS // (FOLDS - 1)])
    with tempfile.TemporaryDirectory() as folder:
        run = holdfast.cv(
            columns(drawn),
            folds=FOLDS,
            learning_curve=True,
            out=Path(folder) / "cv",
            settings={"train.threads": 1, "data.rare_classes": "drop"},
            quiet=True,
        )
        told = run.result["cv"]["learning_curve"]["metrics"]
    truth = true_gains(cell["data"])
    result: dict[str, Any] = {}
    for name in MEASURES:
        gain = told[name]["gain"]
        result |= {
            f"{name}_truth": truth[name],
            f"{name}_gain": gain["value"],
            f"{name}_low": gain["low"],
            f"{name}_high": gain["high"],
            f"{name}_told": told[name]["told"],
            f"{name}_held": gain["low"] <= truth[name] <= gain["high"],
        }
    return result


@functools.cache
def true_gains(data: str) -> dict[str, float]:
    """The mean gains in accuracy and in log probability of twice the rows."""
    gains = []
    for draw in range(TRUE_DRAWS):
        pool, test = labelled(data, draw)
        order = generator(draw, "benchmark", NAME, f"truth {data}").permutation(len(pool))
        few, twice = (scores(pool.take(order[:n]), test) for n in (ROWS, 2 * ROWS))
        gains.append([twice[0] - few[0], few[1] - twice[1]])
    return dict(zip(MEASURES, np.mean(gains, axis=0).tolist(), strict=True))


def scores(rows: Rows, test: Rows) -> tuple[float, float]:
    """Accuracy and loss on the test rows of a fit on ``rows``."""
    known = [at for at, label in enumerate(test.labels) if label in set(rows.labels)]
    with tempfile.TemporaryDirectory() as folder:
        run = holdfast.train(
            columns(rows),
            test=columns(test.take(known)),
            out=Path(folder) / "run",
            settings={**SETTINGS, "data.rare_classes": "drop"},
            quiet=True,
        )
        metrics = run.result["test"]["metrics"]
    return metrics["accuracy"]["value"], metrics["loss"]["value"]


def cells() -> list[dict[str, Any]]:
    return grid(data=SETS, draw=range(DRAWS))


def _held(measure: str) -> Any:
    return lambda lines: share(sum(bool(one[f"{measure}_held"]) for one in lines), len(lines))


def finding(lines: Lines) -> str:
    rates = ", ".join(f"{measure} {_held(measure)(lines)} %" for measure in MEASURES)
    return f"How often the 95 % interval holds the true gain of twice the rows (95 % CI): {rates}."


CLAIM = Claim(
    NAME,
    "Decisions and intervals",
    "What twice the rows would bring, of fine-tuned models",
    described(__doc__),
    cells,
    finding,
    [
        lambda lines: table(
            {"data": "Set"},
            {
                "Curves": runs,
                **{
                    f"{words}, {measure}": average(f"{measure}_{name}", 1, 3, limits=False)
                    for measure in MEASURES
                    for words, name in (("True gain", "truth"), ("Foretold", "gain"))
                },
                **{f"Holds it, {measure}, %": _held(measure) for measure in MEASURES},
            },
        )(lines)
    ],
    "The true gain is itself estimated from six draws of the same 400 rows. A class that is "
    "missing among the drawn rows is left out of the test rows.",
)


if __name__ == "__main__":
    run_command(NAME, __doc__ or "", cells, run_one)
