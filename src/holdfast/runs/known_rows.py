"""Which of some rows had a run seen before: the same rows, or copies of them.

A score on rows that a model was trained on says nothing about new ones, and one on rows that its
state was chosen by says too much.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.predictions import SplitName
from holdfast.contract.run_folder import RECIPE, SPLITS
from holdfast.core.errors import HoldfastError, RunError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Ints
from holdfast.core.run_files import RESTORE_REMEDY, check_files, read_result
from holdfast.core.tasks import IMAGE_TASKS
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import find_duplicates
from holdfast.duplicates.words import RowTexts
from holdfast.recipe import read_recipe
from holdfast.runs.finished_run import run_tables
from holdfast.split.split_table import text_keys

if TYPE_CHECKING:
    import pyarrow as pa


SIDES: tuple[SplitName, ...] = ("train", "valid", "test")
KEY = "text_key"
LISTED = 100
NONE = len(SIDES)
# Places of rows are indices of an array; no table that is read has more.
MOST_ROWS = 2**32


@dataclass(frozen=True, slots=True)
class SeenRows:
    """``rows`` of the source and, for each, the first side [n] that holds it or a copy of it: an
    index into ``SIDES``, or ``NONE``; ``same`` [n] whether it is the very row. ``why``: what could
    not be compared."""

    rows: Ints
    side: npt.NDArray[np.int8]
    same: npt.NDArray[np.bool_]
    why: str | None = None

    @property
    def unseen(self) -> Ints | None:
        """The positions of the rows that were neither learned nor chosen by; ``None`` where that
        is not known."""
        if self.why is not None and (self.side == NONE).all():
            return None
        return np.flatnonzero(self.side >= SIDES.index("test"))

    def to_json(self) -> dict[str, Any]:
        """``{"train": {"n", "same_rows", "copies", "rows"}, "valid": …, "test": …, "why"}``."""
        found: dict[str, Any] = {}
        for index, name in enumerate(SIDES):
            here = self.side == index
            found[name] = {
                "n": int(here.sum()),
                "same_rows": int((here & self.same).sum()),
                "copies": int((here & ~self.same).sum()),
                "rows": self.rows[here][:LISTED].tolist(),
            }
        return {**found, "why": self.why}


def seen_rows(runs: Sequence[Path], table: Table) -> SeenRows:
    """The rows of ``table`` that any of the runs had among its own."""
    found = [_seen_by(run, table) for run in runs]
    side = np.min([one.side for one in found], axis=0) if len(table) else found[0].side
    same = np.any([one.same & (one.side == side) for one in found], axis=0)
    whys = list(dict.fromkeys(one.why for one in found if one.why))
    return SeenRows(table.column("row"), side, np.asarray(same), "; ".join(whys) or None)


def _seen_by(run: Path, table: Table) -> SeenRows:
    path = run / SPLITS
    rows = table.column("row")
    nothing = np.full(len(table), NONE, dtype=np.int8)
    never = np.zeros(len(table), dtype=bool)
    if not os.path.lexists(path):
        return SeenRows(rows, nothing, never, f"{path} is missing")
    check_files(run, read_result(run), [path.name])
    records = _records(path)
    names = records["split"].to_pylist()
    numbers: Mapping[str, int] = {name: index for index, name in enumerate(SIDES)}
    sides = np.array([numbers.get(name, NONE) for name in names], dtype=np.int8)
    side, same = nothing, never
    if KEY in records.column_names:
        side = np.minimum(side, _by_keys(*_keys(records), sides, text_keys(table)))
    near, why = _by_source(run, records, sides, table)
    side = np.minimum(side, near)
    exact = _by_row(records, sides, table)
    same = exact < NONE
    # The very row says which side it was on; a copy on another side counts where it is worse.
    side = np.minimum(side, exact)
    same &= exact == side
    return SeenRows(rows, side, same, why)


def _records(path: Path) -> Any:
    """The table of the division; raises ``RunError`` where it is broken or lacks a column."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    wanted = {"file": pa.string(), "row": pa.int64(), "split": pa.string()}
    with reading_errors(str(path), RunError, remedy=RESTORE_REMEDY):
        found = parquet.read_table(path)
        for name, kind in wanted.items():
            if not found.schema.field(name).type.equals(kind) or found[name].null_count:
                raise ValueError(f"the column {name!r} must hold {kind}, and none may be missing")
        ends = pc.min_max(found["row"]).as_py()
        if len(found) and (ends["min"] < 0 or ends["max"] >= MOST_ROWS):
            raise ValueError(f"no row can be {ends['max' if ends['min'] >= 0 else 'min']}")
        if KEY in found.column_names and not pa.types.is_uint64(found.schema.field(KEY).type):
            raise ValueError(f"the column {KEY!r} must hold hashes")
    return found


def _by_row(records: pa.Table, sides: npt.NDArray[np.int8], table: Table) -> npt.NDArray[np.int8]:
    """By file and place in it, where the file is one of the run's own and the row has not changed
    since."""
    found = np.full(len(table), NONE, dtype=np.int8)
    source = Path(table.source).expanduser()
    name = str(source.resolve()) if source.exists() else table.source
    here = np.array(records["file"].to_pylist(), dtype=object) == name
    if not here.any():
        return found
    rows, places = table.column("row"), records["row"].to_numpy()[here]
    by_place = np.full(int(max(places.max(), rows.max(initial=0))) + 1, -1, dtype=np.int64)
    by_place[places] = np.flatnonzero(here)
    at = by_place[rows]
    known = at >= 0
    if KEY in records.column_names:
        keys, given = _keys(records)
        # Where a row has no place, −1 reads the last record; ``known`` is false there already.
        known &= given[at] & (keys[at] == text_keys(table))
    return np.where(known, sides[at], NONE).astype(np.int8)


def _keys(records: pa.Table) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """The hashes of the normal forms [records], and where there is one."""
    import pyarrow.compute as pc

    column = records[KEY].combine_chunks()
    known = pc.is_valid(column).to_numpy(zero_copy_only=False)
    return pc.fill_null(column, 0).to_numpy(zero_copy_only=False), known


def _by_keys(
    keys: npt.NDArray[np.uint64],
    known: npt.NDArray[np.bool_],
    sides: npt.NDArray[np.int8],
    wanted: npt.NDArray[np.uint64],
) -> npt.NDArray[np.int8]:
    """By the normal form of the text: the lowest side that holds it."""
    known = known & (sides < NONE)
    sorted_keys = keys[known]
    order = np.lexsort((sides[known], sorted_keys))
    sorted_keys, at = sorted_keys[order], sides[known][order]
    if not len(sorted_keys):
        return np.full(len(wanted), NONE, dtype=np.int8)
    places = np.minimum(np.searchsorted(sorted_keys, wanted), len(sorted_keys) - 1)
    return np.where(sorted_keys[places] == wanted, at[places], NONE).astype(np.int8)


def _by_source(
    run: Path, records: pa.Table, sides: npt.NDArray[np.int8], table: Table
) -> tuple[npt.NDArray[np.int8], str | None]:
    """By near-copies, which need the run's own texts: its source is read again."""
    found = np.full(len(table), NONE, dtype=np.int8)
    keyed, recipe = KEY in records.column_names, read_recipe(run / RECIPE)
    if recipe.task in IMAGE_TASKS and keyed:
        # The mark of a picture's content has no near-copies, and reading it costs a decoding.
        return found, None
    exact = "copies are told by their normal form alone" if keyed else "copies cannot be told"
    try:
        own = list(run_tables(recipe).values())
    except HoldfastError as error:
        return found, f"{exact}: the run's own rows cannot be read ({error.what} {error.rule})"
    side = [_by_row(records, sides, one) for one in own]
    if keyed and not all(_unchanged(one, records) for one in own):
        return found, f"{exact}: the run's own rows have changed since"
    copies = find_duplicates(RowTexts(*own, table), seed=recipe.seed)
    all_sides = np.concatenate([*side, found])
    lowest = np.full(int(copies.exact.max(initial=-1)) + 1, NONE, dtype=np.int8)
    np.minimum.at(lowest, copies.exact, all_sides)
    # One link far, since what is like a near-copy of a row need not be like the row.
    reached = lowest.copy()
    np.minimum.at(reached, copies.links.first, lowest[copies.links.second])
    np.minimum.at(reached, copies.links.second, lowest[copies.links.first])
    return np.asarray(reached[copies.exact[-len(table) :]] if len(table) else found), None


def _unchanged(run_table: Table, records: pa.Table) -> bool:
    """Whether the texts of the rows are those that were divided."""
    keys, known = _keys(records)
    run_keys = set(keys[known].tolist())
    return all(key in run_keys for key in text_keys(run_table).tolist())
