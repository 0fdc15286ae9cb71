"""Should an update train from the served model or from the base model?

    python benchmarks/update_starts.py --jobs 2

`train` learns from 400 labelled rows of a set (MiniLM, with validation rows of its own), and
`update` adds 200 rows, once from each start; all other settings are the defaults. Both updates are
scored on the same 600 test rows.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from cells import Cell, grid, run_command
from claims import Claim, Lines, Metric, average, comparison, described, paired, runs, table

import holdfast
from quality import rows_of

NAME = "update_starts"
SETS = ("cr", "mr", "trec", "ai_text", "novels", "instructions")
LABELLED, BASE, NEW = 800, 400, 200
STARTS = {"warm": "from the served model", "anew": "from the base model"}
PAIR = (STARTS["warm"], STARTS["anew"])
SETTINGS = {"train.threads": 1, "train.folds": 0, "probes.skip": "all"}


def cells(part: str = "") -> list[dict[str, Any]]:
    return grid(data=SETS, seed=range(2))


def run_one(cell: Cell) -> dict[str, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parts = rows_of(cell["data"], LABELLED, cell["seed"])
    rows, test = parts.whole().train.records(), parts.test.records()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        served = Path(place) / "served"
        given: dict[str, Any] = {"settings": SETTINGS, "quiet": True}
        run = holdfast.train(rows[:BASE], test=test, out=served, seed=cell["seed"], **given)
        result["served_accuracy"] = _accuracy(run)
        new = pd.DataFrame(rows[BASE : BASE + NEW])
        for start in STARTS:
            begun = time.process_time()
            out = Path(place) / start
            updated = holdfast.update(served, new, start=start, out=out, quiet=True)
            result |= {
                f"{start}_accuracy": _accuracy(updated),
                f"{start}_cpu_s": round(time.process_time() - begun, 1),
                f"{start}_gate": updated.result["update"]["gate"]["outcome"],
            }
    return result


def _accuracy(run: holdfast.TrainedRun) -> float:
    return float(run.result["test"]["metrics"]["accuracy"]["value"])


def _by_start(lines: Lines) -> list[dict[str, Any]]:
    """A line for each start."""
    return [
        {**line, "arm": words, **{one: line[f"{start}_{one}"] for one in ("accuracy", "cpu_s")}}
        for line in lines
        for start, words in STARTS.items()
    ]


def finding(lines: Lines) -> str:
    gap = paired(_by_start(lines), "accuracy", *PAIR, ("data", "seed"))
    if gap is None:
        return ""
    warm, anew = PAIR
    return (
        f"Accuracy of an update that starts {warm}, minus one that starts {anew}: "
        f"{gap.words(100, 1)} points."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "The start of an update",
    described(__doc__),
    cells,
    finding,
    [
        lambda lines: comparison(
            [PAIR],
            {
                "Accuracy, points": Metric("accuracy", 100),
                "Processor time, ratio": Metric("cpu_s", 1, 2, times=True),
            },
            by=("data", "seed"),
        )(_by_start(lines)),
        table(
            {"data": "Set"},
            {
                "Updates": runs,
                "Served model, %": average("served_accuracy", 100, limits=False),
                "From the served model, %": average("warm_accuracy", 100, limits=False),
                "From the base model, %": average("anew_accuracy", 100, limits=False),
            },
        ),
    ],
    "The new rows come from the same distribution as the old ones.",
    command="python benchmarks/update_starts.py --jobs 2",
)


if __name__ == "__main__":
    run_command(NAME, __doc__ or "", cells, run_one)
