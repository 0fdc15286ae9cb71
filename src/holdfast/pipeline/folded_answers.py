"""What the folds of a cross-validated run said of each row's label, for the audit of these rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from holdfast.auditing.views import Rows
from holdfast.core.door import door
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.run_files import FOLDS, RESTORE, check_files
from holdfast.pipeline.again import SPLITS
from holdfast.pipeline.folder import open_run
from holdfast.split.leaks import text_keys

KEY = "audit.folds"
REMEDY = "Name a run of `holdfast cv` on these rows, of texts with one class each, or leave it out."


def folded_answers(rows: Rows, run: Path, tell: Callable[[Decision], None]) -> Floats:
    """Log-probabilities [n, classes] of each row by fine-tuned models that had not seen it, the
    mean over repeats; a row that no fold answered (it was dropped as a copy, say) has the mean of
    all.

    Raises ``RecipeError`` where ``run`` is no cross-validation of classes, or of other rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    result = open_run(run)
    names = rows.table.classes
    if "cv" not in result or set(result.get("classes") or ()) != set(names):
        rule = "is no cross-validation of rows with these classes"
        raise RecipeError(KEY, rule, str(run), REMEDY)
    check_files(run, result, [FOLDS, SPLITS])
    with door(str(run), RunError, remedy=RESTORE):
        found, splits = (parquet.read_table(run / name) for name in (FOLDS, SPLITS))
        read = pc.and_(pc.not_equal(splits["split"], "test"), pc.is_valid(splits["text_key"]))
        splits = splits.filter(read)
    _refuse_other_rows(rows, run, splits["row"].to_numpy(), splits["text_key"].to_numpy())
    found = found.filter(pc.is_in(found["row"], pa.array(rows.table.column("row"), pa.int64())))
    order = [result["classes"].index(name) for name in names]
    chances = np.array(found["probabilities"].to_pylist(), dtype=np.float64)[:, order]
    at = rows.table.places(found["row"].to_numpy())
    total, times = np.zeros((len(rows.table), len(names))), np.zeros(len(rows.table))
    np.add.at(total, at, chances)
    np.add.at(times, at, 1.0)
    known = times > 0
    total[known] /= times[known, None]
    total[~known] = total[known].mean(axis=0)
    because = (
        f"{KEY}: {int(known.sum()):,} of {len(known):,} rows were answered by fine-tuned models "
        f"that had not learned from them, in {run}"
    )
    tell(Decision("labels", "doubted by folds too", because, prominent=True))
    return np.asarray(np.log(np.maximum(total, np.finfo(np.float64).tiny)))


def _refuse_other_rows(rows: Rows, run: Path, own: Ints, keys: Ints) -> None:
    """Raise ``RecipeError`` where the texts are not those that the run divided."""
    here = {
        int(row): int(key)
        for row, key in zip(rows.table.column("row"), text_keys(rows.table), strict=True)
    }
    there = {int(row): int(key) for row, key in zip(own, keys, strict=True)}
    other = sum(there.get(row) != key for row, key in here.items())
    if other:
        rule = f"is of other rows: {other:,} of {len(here):,} texts differ"
        raise RecipeError(KEY, rule, str(run), REMEDY)
