"""What became of each source row, in words: the records behind ``splits.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.data.table import Table
from holdfast.split.units import Units

MISSING = "missing text or label"
RARE = "its class is too small to divide"
# What reading left out, by the finding that lists it.
NOTES = {"rare_classes": RARE, "broken_images": "its picture cannot be read"}


def moved_notes(
    table: Table,
    units: Units,
    side: npt.NDArray[np.int8],
    plain: npt.NDArray[np.int8],
    names: Sequence[str],
) -> list[str | None]:
    """A note for each row of a larger unit: moved there, or kept where it was; else ``None``."""
    notes: list[str | None] = [None] * len(side)
    shared = np.flatnonzero(units.shared)
    rows = table.column("row")
    first = np.full(len(units.sizes), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, units.of_row[shared], rows[shared])
    for at in shared[side[shared] != plain[shared]].tolist():
        unit = units.of_row[at]
        others = int(units.sizes[unit]) - 1
        notes[at] = (
            f"moved from {names[plain[at]]} to {names[side[at]]}, beside the {others} other "
            f"row{'s' if others > 1 else ''} of its copies or group (first: row {first[unit]})"
        )
    return notes


def source_records(
    table: Table, split: Sequence[str], notes: Sequence[str | None]
) -> dict[str, Any]:
    """One record for each source row of ``table``, those that reading left out included."""
    split_of = np.full(table.source_rows, "dropped", dtype=object)
    note_of = np.array(_absent_notes(table), dtype=object)
    group_of = np.full(table.source_rows, None, dtype=object)
    rows = table.column("row")
    split_of[rows] = np.array(split, dtype=object)
    note_of[rows] = np.array(notes, dtype=object)
    if table.has_groups:
        group_of[rows] = np.array(table.column("group"), dtype=object)
    return {
        "file": np.full(table.source_rows, table.source, dtype=object),
        "row": np.arange(table.source_rows, dtype=np.int64),
        "split": split_of,
        "group": group_of,
        "note": note_of,
    }


def records_table(parts: Sequence[Mapping[str, Sequence[object]]]) -> Any:
    """The records of all files as one Arrow table."""
    import pyarrow as pa

    strings = pa.string()
    schema = pa.schema(
        {"file": strings, "row": pa.int64(), "split": strings, "group": strings, "note": strings}
    )
    return pa.concat_tables(
        pa.table({name: pa.array(part[name], schema.field(name).type) for name in schema.names})
        for part in parts
    )


def _absent_notes(table: Table) -> list[str]:
    """Why a row that is not in the table was left out, as far as the findings say."""
    known = [finding for finding in table.findings if finding.check in NOTES]
    told = {row: NOTES[finding.check] for finding in known for row in finding.rows}
    rare = [finding for finding in known if NOTES[finding.check] == RARE]
    all_listed = all(finding.count <= len(finding.rows) for finding in rare)
    other = MISSING if all_listed else f"{MISSING}, or {RARE}"
    return [told.get(row, other) for row in range(table.source_rows)]
