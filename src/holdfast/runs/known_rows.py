"""Find the rows that a run has already seen: the same rows, or duplicates of them.

A score on training rows says nothing about new rows, and one on rows that selected the checkpoint
is too high.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.inference import run_recipe
from holdfast.contract.predictions import SplitName
from holdfast.contract.run_folder import SPLITS
from holdfast.core.discovery import user_path
from holdfast.core.errors import HoldfastError, RunError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Ints
from holdfast.core.run_files import RESTORE_REMEDY, check_files, read_result
from holdfast.core.tasks import IMAGE_TASKS
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import find_duplicates
from holdfast.duplicates.words import RowTexts
from holdfast.runs.finished_run import also_trained, run_tables
from holdfast.split.split_table import text_keys

if TYPE_CHECKING:
    import pyarrow as pa


SPLIT_NAMES: tuple[SplitName, ...] = ("train", "valid", "test")
KEY_COLUMN = "text_key"
MAX_LISTED = 100
NO_SPLIT = len(SPLIT_NAMES)
# Row numbers are array indices; no table that can be read has more.
MOST_ROWS = 2**32


@dataclass(frozen=True, slots=True)
class KnownRows:
    """``rows`` of the source and, for each, the first split [n] that contains it or a duplicate, as
    an index into ``SPLIT_NAMES``, or ``NO_SPLIT``; ``same`` [n] whether it is the row itself.
    ``why``: what could not be compared."""

    rows: Ints
    split_index: npt.NDArray[np.int8]
    same: npt.NDArray[np.bool_]
    why: str | None = None

    @property
    def unseen(self) -> Ints | None:
        """The positions of rows that were used neither for training nor for validation; ``None``
        where that is unknown."""
        if self.why is not None and (self.split_index == NO_SPLIT).all():
            return None
        return np.flatnonzero(self.split_index >= SPLIT_NAMES.index("test"))

    def to_json(self) -> dict[str, Any]:
        """``{"train": {"n", "same_rows", "copies", "rows"}, "valid": …, "test": …, "why"}``."""
        fields: dict[str, Any] = {}
        for index, name in enumerate(SPLIT_NAMES):
            here = self.split_index == index
            fields[name] = {
                "n": int(here.sum()),
                "same_rows": int((here & self.same).sum()),
                "copies": int((here & ~self.same).sum()),
                "rows": self.rows[here][:MAX_LISTED].tolist(),
            }
        return {**fields, "why": self.why}


def find_known_rows(runs: Sequence[Path], table: Table, *, as_divided: bool = False) -> KnownRows:
    """The rows of ``table`` that any of the runs had among its own. With ``as_divided`` validation
    rows that a cross-fitted run learned from too (``train.folds``) are validation rows."""
    by_run = [_known_to_run(run, table, as_divided) for run in runs]
    split_index = (
        np.min([one.split_index for one in by_run], axis=0) if len(table) else by_run[0].split_index
    )
    same = np.any([one.same & (one.split_index == split_index) for one in by_run], axis=0)
    reasons = list(dict.fromkeys(one.why for one in by_run if one.why))
    return KnownRows(table.column("row"), split_index, np.asarray(same), "; ".join(reasons) or None)


def _known_to_run(run: Path, table: Table, as_divided: bool) -> KnownRows:
    path = run / SPLITS
    rows = table.column("row")
    no_split = np.full(len(table), NO_SPLIT, dtype=np.int8)
    not_same = np.zeros(len(table), dtype=bool)
    if not os.path.lexists(path):
        return KnownRows(rows, no_split, not_same, f"{path} is missing")
    check_files(run, read_result(run), [path.name])
    records = _records(path)
    names = records["split"].to_pylist()
    if as_divided:
        names = np.where(also_trained(records), "valid", names).tolist()
    numbers: Mapping[str, int] = {name: index for index, name in enumerate(SPLIT_NAMES)}
    split_indices = np.array([numbers.get(name, NO_SPLIT) for name in names], dtype=np.int8)
    split_index, same = no_split, not_same
    if KEY_COLUMN in records.column_names:
        split_index = np.minimum(
            split_index, _by_keys(*_keys(records), split_indices, text_keys(table))
        )
    near_index, why = _by_source(run, records, split_indices, table)
    split_index = np.minimum(split_index, near_index)
    row_index = _by_row(records, split_indices, table)
    same = row_index < NO_SPLIT
    # The row itself has a known split; a duplicate in another split counts if that is worse.
    split_index = np.minimum(split_index, row_index)
    same &= row_index == split_index
    return KnownRows(rows, split_index, same, why)


def _records(path: Path) -> Any:
    """The table of the split; raises ``RunError`` where it is damaged or lacks a column."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    required = {"file": pa.string(), "row": pa.int64(), "split": pa.string()}
    with reading_errors(str(path), RunError, remedy=RESTORE_REMEDY):
        records = parquet.read_table(path)
        for name, column_type in required.items():
            if not records.schema.field(name).type.equals(column_type) or records[name].null_count:
                raise ValueError(
                    f"the column {name!r} must hold {column_type}, without missing values"
                )
        limits = pc.min_max(records["row"]).as_py()
        if len(records) and (limits["min"] < 0 or limits["max"] >= MOST_ROWS):
            raise ValueError(
                f"{limits['max' if limits['min'] >= 0 else 'min']} is not a valid row number"
            )
        if KEY_COLUMN in records.column_names and not pa.types.is_uint64(
            records.schema.field(KEY_COLUMN).type
        ):
            raise ValueError(f"the column {KEY_COLUMN!r} must hold hashes")
    return records


def _by_row(
    records: pa.Table, split_indices: npt.NDArray[np.int8], table: Table
) -> npt.NDArray[np.int8]:
    """By file and row number, where the file is one of the run's own and the row is unchanged."""
    by_row = np.full(len(table), NO_SPLIT, dtype=np.int8)
    source = user_path(table.source)
    name = str(source.resolve()) if source.exists() else table.source
    in_file = np.array(records["file"].to_pylist(), dtype=object) == name
    if not in_file.any():
        return by_row
    rows, places = table.column("row"), records["row"].to_numpy()[in_file]
    by_place = np.full(int(max(places.max(), rows.max(initial=0))) + 1, -1, dtype=np.int64)
    by_place[places] = np.flatnonzero(in_file)
    record_index = by_place[rows]
    known = record_index >= 0
    if KEY_COLUMN in records.column_names:
        keys, has_key = _keys(records)
        # Where a row has no place, −1 reads the last record; ``known`` is already false there.
        known &= has_key[record_index] & (keys[record_index] == text_keys(table))
    return np.where(known, split_indices[record_index], NO_SPLIT).astype(np.int8)


def _keys(records: pa.Table) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """The hashes of the normalised texts [records], and the mask of records that have one."""
    import pyarrow.compute as pc

    column = records[KEY_COLUMN].combine_chunks()
    known = pc.is_valid(column).to_numpy(zero_copy_only=False)
    return pc.fill_null(column, 0).to_numpy(zero_copy_only=False), known


def _by_keys(
    keys: npt.NDArray[np.uint64],
    known: npt.NDArray[np.bool_],
    split_indices: npt.NDArray[np.int8],
    text_hashes: npt.NDArray[np.uint64],
) -> npt.NDArray[np.int8]:
    """By the normalised text: the lowest split that contains it."""
    known = known & (split_indices < NO_SPLIT)
    sorted_keys = keys[known]
    order = np.lexsort((split_indices[known], sorted_keys))
    sorted_keys, sorted_indices = sorted_keys[order], split_indices[known][order]
    if not len(sorted_keys):
        return np.full(len(text_hashes), NO_SPLIT, dtype=np.int8)
    places = np.minimum(np.searchsorted(sorted_keys, text_hashes), len(sorted_keys) - 1)
    return np.where(sorted_keys[places] == text_hashes, sorted_indices[places], NO_SPLIT).astype(
        np.int8
    )


def _by_source(
    run: Path, records: pa.Table, split_indices: npt.NDArray[np.int8], table: Table
) -> tuple[npt.NDArray[np.int8], str | None]:
    """By near-duplicates, which need the run's own texts: its source is read again."""
    nothing = np.full(len(table), NO_SPLIT, dtype=np.int8)
    keyed, recipe = KEY_COLUMN in records.column_names, run_recipe(run)
    if recipe.task in IMAGE_TASKS and keyed:
        # The hash of an image has no near-duplicates, and reading images costs decoding them.
        return nothing, None
    limitation = (
        "only exact duplicates were found, after normalising texts"
        if keyed
        else "duplicates could not be found"
    )
    try:
        run_files = list(run_tables(recipe).values())
    except HoldfastError as error:
        return (
            nothing,
            f"{limitation}: the run's own rows cannot be read ({error.what} {error.rule})",
        )
    by_file = [_by_row(records, split_indices, one) for one in run_files]
    if keyed and not all(_unchanged(one, records) for one in run_files):
        return nothing, f"{limitation}: the run's own rows have changed since"
    copies = find_duplicates(RowTexts(*run_files, table), seed=recipe.seed)
    all_indices = np.concatenate([*by_file, nothing])
    lowest = np.full(int(copies.exact.max(initial=-1)) + 1, NO_SPLIT, dtype=np.int8)
    np.minimum.at(lowest, copies.exact, all_indices)
    # One link only: a near-duplicate of a near-duplicate need not be similar to the row.
    linked = lowest.copy()
    np.minimum.at(linked, copies.links.first, lowest[copies.links.second])
    np.minimum.at(linked, copies.links.second, lowest[copies.links.first])
    return np.asarray(linked[copies.exact[-len(table) :]] if len(table) else nothing), None


def _unchanged(run_table: Table, records: pa.Table) -> bool:
    """Whether the texts of the rows are those that were split."""
    keys, known = _keys(records)
    run_keys = set(keys[known].tolist())
    return all(key in run_keys for key in text_keys(run_table).tolist())
