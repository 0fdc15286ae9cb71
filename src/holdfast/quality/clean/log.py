"""The log of changes, one JSON object a line, and the way back from it.

A line: ``{"row": 3, "treatment": "encoding", "column": "text", "before": "cafÃ©", "after": "café",
"why": "…"}``. Where a whole row was left out ``column`` and ``after`` are null and ``before`` holds
its cells; where personal data were taken out both are null, and ``"reversible": false``.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from holdfast.core.errors import DataError
from holdfast.quality.clean.treatment import Change, RowSet

# In the order of a ``Change``.
_KEYS = ("row", "treatment", "column", "before", "after", "why")


def line(change: Change) -> str:
    """One line of the log, without its end."""
    written = asdict(change)
    written["why"] = written.pop("because")
    if not written.pop("reversible"):
        written["reversible"] = False
    return json.dumps(written, ensure_ascii=False)


def read_log(lines: Iterable[str], where: str = "the log") -> list[Change]:
    """The changes of a log.

    Raises ``DataError`` for a line that is none.
    """
    changes = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            found = json.loads(text)
        except ValueError as error:
            raise _no_line(where, number) from error
        if (
            not isinstance(found, dict)
            or not found.keys() >= {*_KEYS}
            or type(found["row"]) is not int
        ):
            raise _no_line(where, number)
        change = Change(*(found[key] for key in _KEYS))
        changes.append(replace(change, reversible=found.get("reversible", True)))
    return changes


def _no_line(where: str, number: int) -> DataError:
    return DataError(
        f"{where}, line {number}",
        "is no change of a row",
        None,
        "Give the file of changes that was written beside the treated one.",
    )


@dataclass(frozen=True, slots=True)
class Reverted:
    """The rows as they were, but for the cells ``lost`` (row, column): what stood there was
    personal and was not written down."""

    side: RowSet
    lost: tuple[tuple[int, str], ...]


def revert(side: RowSet, changes: Sequence[Change]) -> Reverted:
    """Undo the changes, the last first. ``side.rows`` are counted as the treated file has them: 0
    to n − 1.

    Raises ``DataError`` where a cell is not what the log says that it became: the file was changed
    since.
    """
    gone = {change.row: change.before for change in changes if change.column is None}
    kept = _numbers(len(side), gone)
    at = {row: position for position, row in enumerate(kept)}
    columns = {name: list(cells) for name, cells in side.columns.items()}
    lost: dict[tuple[int, str], None] = {}
    # Columns that the source did not have, which only the counting of copies adds: nothing stood in
    # any of their cells.
    counted = [change for change in changes if change.treatment == "copies" and change.column]
    had = {change.column for change in counted if change.before is not None}
    added = {str(change.column) for change in counted} - had
    for change in reversed(changes):
        if change.column is None:
            continue
        if not change.reversible:
            lost[change.row, change.column] = None
            continue
        # The record of a row that went holds what it was when it went.
        cells = gone.get(change.row)
        if isinstance(cells, Mapping):
            now = cells.get(change.column)
        else:
            now = columns[change.column][at[change.row]] if change.row in at else None
        if now != change.after:
            raise DataError(
                f"row {change.row}, column {change.column!r}",
                "is not what the log of changes says",
                now,
                "Give the treated file as it was written, with its own log.",
            )
        if isinstance(cells, Mapping):
            gone[change.row] = {**cells, change.column: change.before}  # type: ignore[dict-item]
        else:
            columns[change.column][at[change.row]] = change.before  # type: ignore[assignment]
    rows = sorted([*kept, *gone])
    whole: dict[str, list[str | None]] = {
        name: [columns[name][at[row]] if row in at else _cell(gone[row], name) for row in rows]
        for name in columns
        if name not in added
    }
    return Reverted(replace(side, rows=rows, columns=whole), tuple(lost))


def _cell(record: object, name: str) -> str | None:
    value: str | None = record.get(name) if isinstance(record, Mapping) else None
    return value


def _numbers(count: int, gone: Container[int]) -> list[int]:
    """The rows of the source that the rows of a treated file are."""
    kept: list[int] = []
    row = 0
    while len(kept) < count:
        if row not in gone:
            kept.append(row)
        row += 1
    return kept
