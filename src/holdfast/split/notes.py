"""What became of each source row, in words: the records behind ``splits.parquet``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.data.table import Table
from holdfast.split.division import Division

MISSING = "missing text or label"
RARE = "its class is too small to divide"
# What reading left out, by the finding that lists it.
NOTES = {"rare_classes": RARE, "broken_images": "its picture cannot be read"}


def division_records(divided: Division) -> Any:
    """The records of all files as one Arrow table, one for each source row."""
    import pyarrow as pa

    source = divided.rows.tables["source"]
    # Dropped until something says otherwise: a row that no rule names must not seem divided.
    split = np.full(len(source), "dropped", dtype=object)
    split[divided.kept] = np.array(divided.names, dtype=object)[divided.side]
    notes = np.array(_drop_notes(divided, "source"), dtype=object)
    notes[divided.kept] = np.array(_moved_notes(divided), dtype=object)
    crossing = divided.crossing
    for row, of, side in zip(crossing.rows, crossing.of.tolist(), crossing.side, strict=True):
        place = f"{divided.rows.place(of)} ({divided.names[side]})"
        notes[row] = f"copies or nearly copies {place}, which is of another group"
    parts = [_source_records(source, split.tolist(), notes.tolist())]
    for name in ("valid", "test"):
        if name in divided.rows.tables:
            reasons = _drop_notes(divided, name)
            sides = ["dropped" if reason else name for reason in reasons]
            parts.append(_source_records(divided.rows.tables[name], sides, reasons))
    strings = pa.string()
    schema = pa.schema(
        {"file": strings, "row": pa.int64(), "split": strings, "group": strings, "note": strings}
    )
    return pa.concat_tables(pa.table(part, schema) for part in parts)


def _source_records(
    table: Table, split: Sequence[str], notes: Sequence[str | None]
) -> dict[str, Any]:
    """Those that reading left out included."""
    records: dict[str, Any] = {
        "file": np.full(table.source_rows, table.source, dtype=object),
        "row": np.arange(table.source_rows, dtype=np.int64),
        "split": np.full(table.source_rows, "dropped", dtype=object),
        "group": np.full(table.source_rows, None, dtype=object),
        "note": np.array(_absent_notes(table), dtype=object),
    }
    rows = table.column("row")
    records["split"][rows] = np.array(split, dtype=object)
    records["note"][rows] = np.array(notes, dtype=object)
    if table.has_groups:
        records["group"][rows] = np.array(table.column("group"), dtype=object)
    return records


def _moved_notes(divided: Division) -> list[str | None]:
    """A note for each row of a larger unit that moved; else ``None``."""
    units, names = divided.units, divided.names
    notes: list[str | None] = [None] * len(divided.side)
    rows = divided.rows.tables["source"].column("row")[divided.kept]
    first = np.full(len(units.sizes), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, units.of_row, rows)
    for at in np.flatnonzero(divided.moved).tolist():
        unit = units.of_row[at]
        others = int(units.sizes[unit]) - 1
        notes[at] = (
            f"moved from {names[divided.plain[at]]} to {names[divided.side[at]]}, beside the "
            f"{others} other row{'s' if others > 1 else ''} of its copies or group (first: row "
            f"{first[unit]})"
        )
    return notes


def _drop_notes(divided: Division, name: str) -> list[str | None]:
    """Why each row of a table was dropped; ``None`` where it was not."""
    gathered = divided.rows
    exact, start = gathered.copies.exact, gathered.starts[name]
    notes: list[str | None] = [None] * len(gathered.tables[name])
    for drop in (drop for drop in divided.drops if drop.name == name):
        for at in np.flatnonzero(drop.rows).tolist():
            of, similarity = int(drop.of[at]), drop.similarity[at]
            if notes[at] is not None:
                continue
            if of < 0:
                notes[at] = f"shares its group with the {drop.protected} rows"
            # A near-copy may have a similarity of 1 too: the same words in another order.
            elif similarity >= 1 and exact[start + at] == exact[of]:
                notes[at] = f"copies {gathered.place(of)} ({drop.protected})"
            else:
                alike = f"({drop.protected}, similarity {similarity:.2f})"
                notes[at] = f"nearly copies {gathered.place(of)} {alike}"
    return notes


def _absent_notes(table: Table) -> list[str]:
    """Why a row that is not in the table was left out, as far as the findings say."""
    known = [finding for finding in table.findings if finding.check in NOTES]
    told = {row: NOTES[finding.check] for finding in known for row in finding.rows}
    rare = [finding for finding in known if NOTES[finding.check] == RARE]
    all_listed = all(finding.count <= len(finding.rows) for finding in rare)
    other = MISSING if all_listed else f"{MISSING}, or {RARE}"
    return [told.get(row, other) for row in range(table.source_rows)]
