"""A model's predictions for the rows of one split, whatever its task: the input of every analysis.

Converts between the columns of a file and ``Predictions``, and writes ``answers.parquet``: the best
checkpoint's predictions for training and validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import SplitRows
from holdfast.contract.result import write_parquet
from holdfast.core.records import Floats, Ints
from holdfast.data.table import Table
from holdfast.split.split_table import text_keys
from holdfast.stats.bootstrap import group_codes
from holdfast.training.plan import MOST_PROBE_ROWS, probe_positions

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.contract.fit import FittedModel


SplitName = Literal["train", "valid", "test"]
Bools = npt.NDArray[np.bool_]
Groups = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The rows of a ``split`` [n] (``table``, in its order) and the best checkpoint's predictions.

    ``losses`` [n] in nats (of generative models the mean over the ``tokens`` [n] that count), NaN
    where there is none. ``wrong`` [n] is whether the prediction differs from the label; ``None``
    where predictions are neither correct nor wrong (numbers, texts). ``predictions`` [n] are as in
    the source, ``None`` where none were made; ``probabilities`` [n, names] after the temperature,
    ``None`` without any. ``errors`` [n] are prediction − label of numbers, in the user's unit.
    ``confidence`` [n] is the predicted probability of the prediction (the class; the least certain
    label or word), ``None`` where there is none, NaN for a row of which nothing is read.
    """

    split: SplitName
    table: Table
    losses: Floats
    wrong: Bools | None = None
    predictions: tuple[object, ...] | None = None
    probabilities: Floats | None = None
    names: tuple[str, ...] = ()
    errors: Floats | None = None
    confidence: Floats | None = None
    tokens: Ints | None = None

    def __post_init__(self) -> None:
        n = len(self.table)
        given = (
            self.losses,
            self.wrong,
            self.predictions,
            self.probabilities,
            self.errors,
            self.confidence,
            self.tokens,
        )
        if any(one is not None and len(one) != n for one in given):
            raise ValueError(f"{n} rows need {n} predictions")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def rows(self) -> Ints:
        """Positions in the source [n]."""
        return np.asarray(self.table.column("row"), dtype=np.int64)

    @property
    def groups(self) -> Ints | None:
        """The group (author, source, text) that each row belongs to, as whole numbers [n]; ``None``
        if the rows are independent."""
        return group_codes_of(self.table)

    def take(self, positions: Ints | Sequence[int]) -> Predictions:
        """Some of the rows, by their positions here."""
        at = np.asarray(positions, dtype=np.int64)
        predictions = self.predictions
        return Predictions(
            self.split,
            self.table.take(at),
            self.losses[at],
            None if self.wrong is None else self.wrong[at],
            None if predictions is None else tuple(predictions[i] for i in at),
            None if self.probabilities is None else self.probabilities[at],
            self.names,
            None if self.errors is None else self.errors[at],
            None if self.confidence is None else self.confidence[at],
            None if self.tokens is None else self.tokens[at],
        )


ANSWERS = "answers.parquet"
COLUMNS = ("row", "split", "label", "prediction", "loss", "tokens", "probabilities", "error")
# Training rows that the best checkpoint predicts: the largest training sample. The sample's scores
# come from the same pass.
PREDICTED_TRAIN_ROWS = MOST_PROBE_ROWS


def predict_split(
    fitted: FittedModel, saved: Mapping[str, object], split: SplitName
) -> tuple[Table, pa.Table]:
    """All validation rows, or at most ``PREDICTED_TRAIN_ROWS`` of the training rows (a fixed random
    sample), and the best checkpoint's predictions in the columns of ``predictions.parquet``; rows
    that cannot be read are left out.
    """
    import pyarrow as pa

    assert split != "test"
    if split == "valid" and fitted.out_of_fold is not None:
        return fitted.out_of_fold.table, fitted.out_of_fold.columns
    splits = fitted.training_plan.splits
    all_rows = splits.train_rows if split == "train" else splits.valid_rows
    positions: Ints = np.arange(len(all_rows))
    if split == "train":
        # The training sample is the beginning of the same order.
        positions = probe_positions(positions, PREDICTED_TRAIN_ROWS, fitted.training_plan.plan.seed)
    split_rows = SplitRows(fitted, saved, split, positions)
    columns = pa.table(dict(fitted.training_plan.definition.prediction_columns(split_rows)))
    return rows_of(split_rows.table, columns["row"].to_numpy()), columns


def rows_of(table: Table, rows: Ints) -> Table:
    """The rows of ``table`` at these source positions, in their order."""
    table_rows = np.asarray(table.column("row"), dtype=np.int64)
    if np.array_equal(table_rows, rows):
        return table
    return table.take(table.positions_of(rows))


def make_predictions(
    split: SplitName, table: Table, columns: pa.Table, names: Sequence[str] = ()
) -> Predictions:
    """The predictions in ``columns`` for the rows of ``table``, in the same order. ``names`` are
    the names of the probabilities.
    """
    column_names = columns.column_names
    label, predictions = columns["label"].to_pylist(), columns["prediction"].to_pylist()
    errors = columns["error"].to_numpy().astype(np.float64) if "error" in column_names else None
    sets = bool(label) and isinstance(label[0], list)
    probabilities = None
    # A tagger's probabilities are of words, and sentences differ in length.
    if "probabilities" in column_names and "tags" not in table.rows.column_names:
        width = (len(label), len(names))
        probabilities = np.array(columns["probabilities"].to_pylist(), np.float64).reshape(width)
    judged = sets or probabilities is not None
    return Predictions(
        split,
        table,
        losses_of(columns),
        np.array([a != b for a, b in zip(label, predictions, strict=True)], bool)
        if judged
        else None,
        None if all(one is None for one in predictions) and predictions else tuple(predictions),
        probabilities,
        tuple(names) if probabilities is not None else (),
        errors,
        _confidence(columns, probabilities, sets),
        tokens_of(columns),
    )


def losses_of(columns: pa.Table) -> Floats:
    """The loss of each row, NaN where it has none."""
    return np.array([np.nan if x is None else x for x in columns["loss"].to_pylist()], np.float64)


def tokens_of(columns: pa.Table) -> Ints | None:
    """Over how many tokens each loss is a mean; runs of older versions lack it."""
    if "tokens" not in columns.column_names:
        return None
    return np.array(columns["tokens"].fill_null(0).to_pylist(), dtype=np.int64)


def _confidence(columns: pa.Table, probabilities: Floats | None, sets: bool) -> Any:
    """The confidence of each prediction, as the predictor returns it."""
    if probabilities is not None:
        return (
            np.maximum(probabilities, 1 - probabilities).min(axis=1)
            if sets
            else probabilities.max(axis=1)
        )
    if not sets or "probabilities" not in columns.column_names:
        return None
    words = columns["probabilities"].to_pylist()
    known = [[p for p in line or () if p is not None] for line in words]
    return np.array([min(line, default=np.nan) for line in known])


def write_answers(run: Path, splits: Mapping[SplitName, pa.Table]) -> None:
    """Write ``answers.parquet``: one line per predicted row, with its ``split``."""
    import pyarrow as pa

    parts = []
    for side, columns in splits.items():
        split = pa.array([side] * len(columns), pa.string())
        parts.append(columns.append_column("split", split))
    joined = pa.concat_tables(parts)
    write_parquet(run / ANSWERS, joined.select([c for c in COLUMNS if c in joined.column_names]))


# Duplicates count as one if they could widen an interval by more than 2.5 %.
LEAST_DESIGN_EFFECT = 1.05


def groups_of(table: Table) -> Groups | None:
    """What rows that are not independent have in common [n]: their group, or without groups their
    text (``same_text_groups``). ``None`` if every row is independent."""
    if table.has_groups:
        return np.asarray(table.column("group"), dtype=object)
    return same_text_groups(text_keys(table))


def same_text_groups(keys: npt.ArrayLike) -> Groups | None:
    """The texts of rows [n], by their keys, as groups, if enough rows have the same text: if the
    mean of rows with equal scores within a text has Σ size² / n ≥ ``LEAST_DESIGN_EFFECT`` times the
    variance that independent rows have (Kish 1965, section 5.4). ``None`` otherwise."""
    one = np.asarray(keys)
    sizes = np.unique(one, return_counts=True)[1]
    matter = len(one) and (sizes**2).sum() >= LEAST_DESIGN_EFFECT * len(one)
    return one.astype(object) if matter else None


def stored_groups_of(records: pa.Table, split: str, rows: Sequence[int]) -> Groups | None:
    """``groups_of`` for ``rows`` of a ``split``, from the ``records`` in ``splits.parquet``; those
    of older versions have no keys of texts."""
    import pyarrow.compute as pc

    lines = records.filter(pc.equal(records["split"], split))
    places = {row: place for place, row in enumerate(lines["row"].to_pylist())}
    if not all(row in places for row in rows):
        return None
    lines = lines.take([places[row] for row in rows])
    if not lines["group"].null_count:
        return np.array(lines["group"].to_pylist(), dtype=object)
    return same_text_groups(lines["text_key"]) if "text_key" in lines.column_names else None


def group_codes_of(table: Table) -> Ints | None:
    """``groups_of`` as whole numbers [n]."""
    groups = groups_of(table)
    return None if groups is None else group_codes(groups, len(table))


def unit_counts(table: Table) -> dict[str, int]:
    """How many ``groups``, or else different ``texts``, intervals count instead of rows."""
    codes = group_codes_of(table)
    if codes is None:
        return {}
    return {"groups" if table.has_groups else "texts": int(codes.max(initial=-1)) + 1}


# Rows of each split whose single tokens are requested.
MOST_HEARD = 500
