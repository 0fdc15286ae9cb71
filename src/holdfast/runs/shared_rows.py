"""The rows by which several finished runs may be weighed: validation rows of every one of them,
which none has learned from, known by the content of their texts.

Where runs were cross-fitted, each row was answered by a fold that had not learned from it; those
answers count, and the kept model is not asked. Test rows are never among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from holdfast.contract.predictions import ANSWERS
from holdfast.core.errors import RecipeError
from holdfast.runs.finished_run import FinishedRun
from holdfast.tasks.ensemble import HOW, SharedRows, cross_fitted, split_records


def shared_rows(folders: Sequence[Path], what: str) -> SharedRows:
    """The rows that judge these runs together.

    Raises ``RecipeError`` where there are none, or a run stored no answers, naming ``what`` needs
    them and how such runs are made.
    """
    runs = tuple(FinishedRun(folder) for folder in folders)
    sides, learned = [], []
    for run in runs:
        if not (run.run / ANSWERS).is_file():
            raise RecipeError(
                what,
                f"needs the answers to validation rows, of which {run.run} stored none",
                None,
                HOW,
            )
        sides.append(_judging(run))
        learned.append(_learned(run))
    every: set[int] = set.intersection(*(set(side) for side in sides))
    common = sorted(every.difference(*learned))
    if not common:
        counts = " and ".join(str(len(side)) for side in sides)
        raise RecipeError(
            what,
            "needs rows that judged every one of the runs and that none learned from, and there "
            f"are none: each run has {counts} of its own",
            len(common),
            HOW,
        )
    rows = tuple(np.array([side[key] for key in common], dtype=np.int64) for side in sides)
    folds = any(cross_fitted(run) for run in runs)
    return SharedRows(runs, rows, np.array(common, dtype=np.uint64), folds)


def _judging(run: FinishedRun) -> dict[int, int]:
    """The source row of each text that judged the run; of copies the first."""
    answered = set(run.stored("valid")["row"].to_pylist())
    found: dict[int, int] = {}
    for line in split_records(run, "train" if cross_fitted(run) else "valid"):
        if line["row"] in answered and line["text_key"] is not None:
            found.setdefault(line["text_key"], line["row"])
    return found


def _learned(run: FinishedRun) -> set[int]:
    """The texts that no answer of the run is out of sample for; of a cross-fitted one none, since
    copies stay in one fold."""
    if cross_fitted(run):
        return set()
    return {
        line["text_key"] for line in split_records(run, "train") if line["text_key"] is not None
    }
