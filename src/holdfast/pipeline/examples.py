"""``examples.parquet``: what each training and validation row was like to learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.pipeline.outcome import write_parquet
from holdfast.training.examples import DataMap, ExampleHistory, map_of_looks

if TYPE_CHECKING:
    from holdfast.pipeline.ready import Fitted

EXAMPLES = "examples.parquet"


def write_examples(path: Path, fitted: Fitted) -> None:
    """One line a row: ``row``, ``split``, ``label`` (a class, else null) and the columns of
    ``DataMap``. No file where nothing was learnt row by row."""
    import pyarrow as pa

    ready = fitted.ready
    kept = [x for x in fitted.job.listeners if isinstance(x, ExampleHistory)]
    maps = [("train", ready.train, x.data_map()) for x in kept]
    maps += [
        ("valid", ready.valid, map_of_looks(ready.valid.rows, fitted.trained.history))
        for _ in kept
        # Cross-fitted ones are training rows, which have a line.
        if fitted.job.out_of_fold is None
    ]
    tables = [_table(s, rows, m, ready.task.classes) for s, rows, m in maps if m is not None]
    if tables:
        write_parquet(path, pa.concat_tables(tables))


def _table(split: str, rows: Any, made: DataMap, classes: tuple[str, ...]) -> Any:
    import pyarrow as pa

    count = len(made.rows)
    labels = np.asarray(getattr(rows, "labels", np.empty(0)))
    named = labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer)
    label = [classes[int(k)] for k in labels] if named else [None] * count
    numbers = {
        name: pa.array(getattr(made, name), pa.float64(), from_pandas=True)
        for name in ("confidence", "variability", "aum", "last", "loss_range")
    }
    counts = {
        name: pa.array(getattr(made, name), pa.int64())
        for name in ("learnt_at", "forgotten", "passes")
    }
    return pa.table(
        {
            "row": pa.array(made.rows, pa.int64()),
            "split": pa.array([split] * count, pa.string()),
            "label": pa.array(label, pa.string()),
            **numbers,
            **counts,
            "kind": pa.array(list(made.kind), pa.string()),
        }
    )
