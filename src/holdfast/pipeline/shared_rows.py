"""The rows by which several finished runs may be weighed: validation rows of every one of them,
which none has learned from, known by the content of their texts.

Where runs were cross-fitted, each row was answered by a fold that had not learned from it; those
answers count, and the kept model is not asked. Test rows are never among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Ints
from holdfast.data.table import Table
from holdfast.pipeline.again import SPLITS, Again
from holdfast.pipeline.told import ANSWERS

HOW = (
    "Divide all runs alike: the same --set data.split.seed=N beside another --seed, or the same "
    "--set data.valid=FILE; or train them with --set train.folds=5, which answers all rows out of "
    "fold; or take --set predict.ensemble=average."
)


@dataclass(frozen=True)
class SharedRows:
    """``runs`` and, for each, the source positions [n] of the rows that they share, in one order;
    ``keys`` [n] are those of their texts."""

    runs: tuple[Again, ...]
    rows: tuple[Ints, ...]
    keys: Any
    out_of_fold: bool

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def answers(self) -> tuple[list[dict[str, Any]], ...]:
        """What each run stored of the rows: one list [n] of lines of ``answers.parquet`` a run."""
        found = []
        for run, rows in zip(self.runs, self.rows, strict=True):
            lines = {line["row"]: line for line in run.stored("valid").to_pylist()}
            found.append([lines[int(row)] for row in rows])
        return tuple(found)

    @cached_property
    def table(self) -> Table:
        """The rows as the first run reads them; not to be asked for where answers are out of
        fold."""
        whole = self.runs[0].table("valid")
        return whole.take(whole.places(self.rows[0]))

    @cached_property
    def groups(self) -> Any:
        """The group of each row [n] as the first run's division has it; ``None`` without."""
        run = self.runs[0]
        side = _records(run, "train" if _crossed(run) else "valid")
        names = {line["row"]: line["group"] for line in side}
        groups = [names.get(int(row)) for row in self.rows[0]]
        return None if any(one is None for one in groups) else np.array(groups, dtype=object)


def shared_rows(folders: Sequence[Path], what: str) -> SharedRows:
    """The rows that judge these runs together.

    Raises ``RecipeError`` where there are none, or a run stored no answers, naming ``what`` needs
    them and how such runs are made.
    """
    runs = tuple(Again(folder) for folder in folders)
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
        raise RecipeError(
            what,
            "needs rows that judged every one of the runs and that none learned from, and there "
            f"are none: each run has {_counts(sides)} of its own",
            len(common),
            HOW,
        )
    rows = tuple(np.array([side[key] for key in common], dtype=np.int64) for side in sides)
    folds = any(_crossed(run) for run in runs)
    return SharedRows(runs, rows, np.array(common, dtype=np.uint64), folds)


def _counts(sides: Sequence[dict[int, int]]) -> str:
    return " and ".join(str(len(side)) for side in sides)


def _crossed(run: Again) -> bool:
    return bool((run.result.get("valid") or {}).get("out_of_fold"))


def _judging(run: Again) -> dict[int, int]:
    """The source row of each text that judged the run; of copies the first."""
    answered = set(run.stored("valid")["row"].to_pylist())
    found: dict[int, int] = {}
    for line in _records(run, "train" if _crossed(run) else "valid"):
        if line["row"] in answered and line["text_key"] is not None:
            found.setdefault(line["text_key"], line["row"])
    return found


def _learned(run: Again) -> set[int]:
    """The texts that no answer of the run is out of sample for; of a cross-fitted one none, since
    copies stay in one fold."""
    if _crossed(run):
        return set()
    return {line["text_key"] for line in _records(run, "train") if line["text_key"] is not None}


def _records(run: Again, side: str) -> list[dict[str, Any]]:
    found = run.divided()
    if "text_key" not in found.column_names:
        raise RecipeError(
            str(run.run / SPLITS),
            "does not know its rows by their texts: an older version made this run",
            None,
            "Train it again, or take --set predict.ensemble=average.",
        )
    columns = found.select(["row", "split", "group", "text_key"]).to_pylist()
    return [line for line in columns if line["split"] == side]
