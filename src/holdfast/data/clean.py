"""From raw columns to rows with a text and a label; what is missing is counted.

Missing means null, empty or white space alone, for a label also what ``data/labels/spelling.py``
lists; every other text stays exactly as written. Labels lose the white space around them. A row is
left out when any of its text columns is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.errors import DataError
from holdfast.core.records import Finding
from holdfast.data.columns.profile import NUMBER, is_missing
from holdfast.data.columns.template import fill_template
from holdfast.data.labels.spelling import MISSING, written
from holdfast.data.raw import Raw
from holdfast.data.table import Columns

_LISTED = 100


@dataclass(slots=True)
class Tally:
    """Rows seen by one check: how many, and the first hundred."""

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, rows: pa.Array) -> None:
        self.count += len(rows)
        self.rows += rows.slice(0, max(0, _LISTED - len(self.rows))).to_pylist()


def meant(raw: Raw, columns: Columns) -> Iterator[pa.RecordBatch]:
    """The source in Holdfast's own columns: ``row``, ``text``, ``text_pair``, ``label`` (as
    written), ``group``; null where missing. Batch by batch, from the mapped file."""
    offset = 0
    for batch in raw.table.to_batches():
        # Counted before anything is left out: a row keeps its number in the source.
        rows = pa.array(np.arange(offset, offset + batch.num_rows, dtype=np.int64))
        offset += batch.num_rows
        arrays = {"row": rows, **_texts(raw, batch, columns, rows)}
        if columns.label is not None:
            arrays["label"] = _label(batch.column(columns.label), columns.label_missing)
        if columns.group is not None:
            # A row without a group stands alone, under a name that no group has by accident. White
            # space around a name makes no other group.
            values = batch.column(columns.group)
            alone = pc.binary_join_element_wise("(no group) row ", rows.cast(pa.string()), "")
            arrays["group"] = pc.if_else(
                has_no_group(values), alone, pc.utf8_trim_whitespace(values)
            )
        yield pa.RecordBatch.from_pydict(arrays)


def complete(batch: pa.RecordBatch) -> pa.BooleanArray:
    """Where a row of ``meant`` has its texts."""
    mask = pc.is_valid(batch.column("text"))
    if "text_pair" in batch.schema.names:
        mask = pc.and_(mask, pc.is_valid(batch.column("text_pair")))
    return mask


def _texts(
    raw: Raw, batch: pa.RecordBatch, columns: Columns, rows: pa.Array
) -> dict[str, pa.Array]:
    cells = {name: _text(raw, name, batch.column(name), rows) for name in columns.text}
    if columns.template is not None:
        return {"text": fill_template(columns.template, cells)}
    names = ("text", "text_pair")
    return dict(zip(names, cells.values(), strict=False))


def _text(raw: Raw, name: str, values: pa.Array, rows: pa.Array) -> pa.Array:
    broken = pc.fill_null(pc.match_substring(values, "\0"), False)
    if pc.any(broken).as_py():
        row = rows.filter(broken)[0].as_py()
        raise DataError(
            f"{raw.source}, row {row}, column {name!r}",
            "holds a NUL character, which no text has",
            None,
            "Take it out; the file may be damaged.",
        )
    return pc.if_else(is_missing(values), pa.scalar(None, pa.string()), values)


def _label(values: pa.Array, missing: tuple[str, ...]) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(values)
    gone = is_missing(values)
    if missing:
        gone = pc.or_(gone, pc.is_in(trimmed, pa.array(missing, pa.string())))
    return pc.if_else(gone, pa.scalar(None, pa.string()), trimmed)


def has_no_group(values: pa.Array) -> pa.Array:
    """Where a group is missing: as for texts, and what programs write for an empty cell."""
    written = pc.utf8_lower(pc.utf8_trim_whitespace(values))
    return pc.or_(is_missing(values), pc.is_in(written, pa.array(sorted(MISSING), pa.string())))


def missing_findings(
    columns: Columns, rows: int, *, text: Tally, label: Tally, group: Tally
) -> list[Finding]:
    """One finding for each kind of missing value that occurs."""
    named = " or ".join(map(repr, columns.text))
    missing = columns.label_missing
    marks = f" (empty, or written {written(missing)})" if missing else ""
    seen = [
        ("missing_text", text, f"without {named}: left out", True),
        ("missing_label", label, f"without {columns.label!r}{marks}: left out", True),
        ("missing_group", group, f"without {columns.group!r}: each stands alone", False),
    ]
    return [
        Finding(
            check,
            "warn",
            tally.count / rows,
            tally.count,
            tuple(tally.rows),
            f"{tally.count} row{'s' if tally.count > 1 else ''} {what}",
            f"Fill them in the source, if they matter.{_if_class(check, columns)}",
            fixed,
        )
        for check, tally, what, fixed in seen
        if tally.count
    ]


def _if_class(check: str, columns: Columns) -> str:
    if check != "missing_label" or not columns.label_missing:
        return ""
    name, *others = map(repr, columns.label_missing)
    are = f"one of {', '.join([name, *others])}" if others else name
    return f" If {are} is a class, add --set data.labels=exact."


class Numeric:
    """Whether every text of a column so far is a number; knows as soon as one is not."""

    def __init__(self) -> None:
        self._open: dict[str, bool] = {}

    def look(self, name: str, values: pa.Array) -> None:
        if self._open.get(name, True) and len(values):
            found = pc.match_substring_regex(values, NUMBER)
            self._open[name] = bool(pc.all(found).as_py())

    @property
    def names(self) -> list[str]:
        return [name for name, numeric in self._open.items() if numeric]
