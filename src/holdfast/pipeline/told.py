"""What a model said of rows, between the columns of a file and ``Told``; and the file of what the
kept state said of training and validation rows, ``answers.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.know.told import Side, Told
from holdfast.pipeline.outcome import write_parquet
from holdfast.pipeline.ready import AskedSide
from holdfast.training.batches import probe_positions
from holdfast.training.plan import MOST_PROBE_ROWS

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.data.table import Table
    from holdfast.pipeline.ready import Fitted

ANSWERS = "answers.parquet"
COLUMNS = ("row", "split", "label", "prediction", "loss", "tokens", "probabilities", "error")
# Training rows that the kept state is asked about: those of the largest train probe. The scores of
# the probe come of the same pass.
ASKED_ROWS = MOST_PROBE_ROWS


def ask_side(fitted: Fitted, saved: Mapping[str, Any], side: Side) -> tuple[Table, pa.Table]:
    """All validation rows, or at most ``ASKED_ROWS`` of the training rows (a fixed random sample),
    and what the kept state says of them in the columns of ``predictions.parquet``; rows of which
    nothing can be read are left out."""
    import pyarrow as pa

    assert side != "test"
    if side == "valid" and fitted.answered is not None:
        return fitted.answered.table, fitted.answered.columns
    sides = fitted.ready.sides
    whole = sides.train_rows if side == "train" else sides.valid_rows
    positions: Ints = np.arange(len(whole))
    if side == "train":
        # The train probe is the beginning of the same order.
        positions = probe_positions(positions, ASKED_ROWS, fitted.ready.plan.seed)
    asked = AskedSide(fitted, saved, side, positions)
    columns = pa.table(dict(fitted.ready.kind.tell(asked)))
    return rows_of(asked.table, columns["row"].to_numpy()), columns


def rows_of(table: Table, rows: Ints) -> Table:
    """The rows of ``table`` at these source positions, in their order."""
    own = np.asarray(table.column("row"), dtype=np.int64)
    if np.array_equal(own, rows):
        return table
    return table.take(table.places(rows))


def told_of(side: Side, table: Table, columns: pa.Table, names: Sequence[str] = ()) -> Told:
    """What ``columns`` say of the rows of ``table``, which stand in the same order. ``names`` is
    what there are probabilities of."""
    held = columns.column_names
    label, said = columns["label"].to_pylist(), columns["prediction"].to_pylist()
    errors = columns["error"].to_numpy().astype(np.float64) if "error" in held else None
    sets = bool(label) and isinstance(label[0], list)
    chances = None
    # A tagger's are of a sentence's words, of which sentences have more or fewer.
    if "probabilities" in held and "tags" not in table.rows.column_names:
        width = (len(label), len(names))
        chances = np.array(columns["probabilities"].to_pylist(), np.float64).reshape(width)
    judged = sets or chances is not None
    return Told(
        side,
        table,
        losses_of(columns),
        np.array([a != b for a, b in zip(label, said, strict=True)], bool) if judged else None,
        None if all(one is None for one in said) and said else tuple(said),
        chances,
        tuple(names) if chances is not None else (),
        errors,
        _sure(columns, chances, sets),
        tokens_of(columns),
    )


def losses_of(columns: pa.Table) -> Floats:
    """The loss of each row, NaN where it has none."""
    return np.array([np.nan if x is None else x for x in columns["loss"].to_pylist()], np.float64)


def tokens_of(columns: pa.Table) -> Ints | None:
    """Over how many tokens each loss is a mean; runs by older versions do not say it."""
    if "tokens" not in columns.column_names:
        return None
    return np.array(columns["tokens"].fill_null(0).to_pylist(), dtype=np.int64)


def _sure(columns: pa.Table, chances: Any, sets: bool) -> Any:
    """How sure each whole answer is, as the predictor says it."""
    if chances is not None:
        return np.maximum(chances, 1 - chances).min(axis=1) if sets else chances.max(axis=1)
    if not sets or "probabilities" not in columns.column_names:
        return None
    words = columns["probabilities"].to_pylist()
    known = [[p for p in line or () if p is not None] for line in words]
    return np.array([min(line, default=np.nan) for line in known])


def write_answers(run: Path, sides: Mapping[Side, pa.Table]) -> None:
    """``answers.parquet``: one line a row that was asked about, its ``split`` beside the rest."""
    import pyarrow as pa

    parts = []
    for side, columns in sides.items():
        split = pa.array([side] * len(columns), pa.string())
        parts.append(columns.append_column("split", split))
    joined = pa.concat_tables(parts)
    write_parquet(run / ANSWERS, joined.select([c for c in COLUMNS if c in joined.column_names]))
