"""Side columns: numbers, categories and dates beside the text, and simple facts of the text itself,
as columns of plain numbers; and any other column carried beside the rows of a table.

What a column needs (mean and deviation, places of bends, names of categories) is taken from the
training rows alone (``fit_column``) and is plain JSON; ``encode`` then reads any rows. Of a row
that lacks the value every number is 0, the mean, and a mark of its own is 1.

    number    z = (x − mean) ÷ deviation, of log(1 + x) where that is far less skewed; and how far
              z is above each quartile, so that an effect may bend
    category  a mark for each category of ``LEAST`` training rows or more, and one for all others
    date      days as a number; and sine and cosine of its place in the week and the year, and in
              the day where times are given
"""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Floats
from holdfast.data.columns.roles import check_present
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Table

PREFIX = "side:"
AUTO = "auto"
KINDS = ("number", "category", "date")
LEAST = 3
MOST_CATEGORIES = 200
# Numbers of fewer different values are grades or codes: a mark each says more than a line.
FEW_NUMBERS = 8
SKEWED = 2.0
URL = re.compile(r"https?://|www\.", re.IGNORECASE)


def _length(text: str) -> float:
    return math.log1p(len(text.split()))


def _url(text: str) -> float:
    return float(URL.search(text) is not None)


def _share(text: str, of: Callable[[str], bool]) -> float:
    marks = [c for c in text if not c.isspace()]
    return sum(map(of, marks)) / max(1, len(marks))


# Facts of the text, by the names that a recipe gives them.
DERIVED: dict[str, Callable[[str], float]] = {
    "text.length": _length,
    "text.url": _url,
    "text.capitals": lambda text: _share(text, str.isupper),
    "text.digits": lambda text: _share(text, str.isdigit),
    "text.marks": lambda text: math.log1p(text.count("!") + text.count("?")),
}


@dataclass(frozen=True, slots=True)
class ColumnRequest:
    """A column that a recipe names: ``kind`` as it says, or ``None`` where the values decide."""

    name: str
    kind: str | None = None


def asked_columns(given: Sequence[str]) -> tuple[ColumnRequest, ...]:
    """Names, or ``name:kind``. Raises ``RecipeError`` for a kind that does not exist, a fact of the
    text that does not exist, and a name that stands twice."""
    found = []
    for one in given:
        name, mark, kind = one.rpartition(":")
        if not mark or not name:
            name, kind = one, ""
        if mark and name and kind not in KINDS:
            raise RecipeError("data.features", "names no kind of column", one, suggest_name(kind, KINDS))
        if name.startswith("text.") and name not in DERIVED:
            known = suggest_name(name, list(DERIVED))
            raise RecipeError("data.features", "names no fact of a text", name, known)
        found.append(ColumnRequest(name, kind or None))
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError("data.features", "names a column twice", name, "Leave one out.")
    return tuple(found)


def with_side_cells(
    table: Table, raw: Raw, asked: Sequence[ColumnRequest], used: Sequence[str] = ()
) -> Table:
    """The table with the cells of these columns of its source, as written. ``used`` are columns
    that are something else already: text, label, group.

    Raises ``DataError`` for a column that the source has not, ``RecipeError`` for one of ``used``.
    """
    wanted = [one.name for one in asked if one.name not in DERIVED]
    lacking = [name for name in wanted if name not in raw.names]
    if lacking:
        rule = f"has no column {', '.join(map(repr, lacking))}, which data.features names"
        raise DataError(raw.source, rule, ", ".join(raw.names), suggest_name(lacking[0], raw.names))
    for name in wanted:
        if name in used:
            rule = "names a column that is the text, the label or the group already"
            raise RecipeError("data.features", rule, name, "Leave it out.")
        if "nested" in raw.kinds.get(name, set()):
            where = f"{raw.source}, column {name!r}"
            raise DataError(
                where, "holds lists or objects, not plain values", None, "Leave it out."
            )
    for name in wanted:
        table = _carried(table, raw, name, PREFIX + name)
    return table


def check_side(raw: Raw, asked: Sequence[ColumnRequest]) -> None:
    """Refuse rows that lack columns which a model reads beside the text. Raises ``DataError``."""
    names = [one.name for one in asked if one.name not in DERIVED]
    lacking = [name for name in names if name not in raw.names]
    if lacking:
        raise DataError(
            raw.source,
            f"lacks {', '.join(map(repr, lacking))}, which the model reads beside the text",
            ", ".join(raw.names),
            f"Give a table with the columns {', '.join(names)}; a cell may be empty.",
        )


def candidates(raw: Raw, used: Sequence[str]) -> tuple[ColumnRequest, ...]:
    """The columns of a source that could be side columns, and all facts of the text."""
    from holdfast.data.columns.profile import profile

    found = []
    for name, seen in profile(raw).items():
        few = seen.distinct <= max(2, min(seen.filled // 5, MOST_CATEGORIES))
        identifies = seen.distinct == seen.filled and not seen.numeric
        free = name not in used and seen.filled > 0 and not seen.wordy and not identifies
        if free and (seen.numeric or (few and seen.distinct > 1)):
            found.append(ColumnRequest(name))
    return (*found, *(ColumnRequest(name) for name in DERIVED))


def check_cells(table: Table, asked: Sequence[ColumnRequest]) -> None:
    """Refuse a table that was read without these columns, as texts in memory are."""
    there = {name.removeprefix(PREFIX) for name in table.rows.column_names} | set(DERIVED)
    lacking = [one.name for one in asked if one.name not in there]
    if lacking:
        rule = "names columns, and the rows were given as texts alone"
        raise RecipeError("data.features", rule, lacking[0], "Train on a table with the columns.")


def cells_of(table: Table, name: str) -> list[str | None] | list[float]:
    """A side column of a table as written, or a fact of its texts."""
    if name not in DERIVED:
        cells: list[str | None] = table.column(PREFIX + name)
        return cells
    return [DERIVED[name](text or "") for text in table.column("text")]


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is read: what the training rows said of it, as plain values."""

    name: str
    kind: str
    facts: Mapping[str, Any]

    @property
    def width(self) -> int:
        """How many numbers it gives a row."""
        if self.kind == "category":
            names = len(self.facts["categories"]) + bool(self.facts["other"])
            return names + bool(self.facts["missing"])
        cyclic = 0 if self.kind == "number" else 6 if self.facts["times"] else 4
        return 1 + len(self.facts["knots"]) + cyclic + bool(self.facts["missing"])

    def encode(self, cells: Sequence[str | float | None]) -> Floats:
        """These cells as numbers [n, width]."""
        if self.kind == "category":
            return self._marks(cells)
        raw = np.array([self._value(cell) for cell in cells], dtype=np.float64)
        there = np.isfinite(raw)
        scaled = np.where(there, raw, 0.0)
        if self.facts["log"]:
            scaled = np.log1p(np.maximum(scaled, 0.0))
        z = np.where(there, (scaled - self.facts["mean"]) / self.facts["deviation"], 0.0)
        parts = [z, *(np.where(there, np.maximum(z - k, 0.0), 0.0) for k in self.facts["knots"])]
        if self.kind == "date":
            for length in (7.0, 365.2425, *([1.0] if self.facts["times"] else [])):
                angle = 2 * np.pi * np.where(there, raw, 0.0) / length
                parts += [np.where(there, turn(angle), 0.0) for turn in (np.sin, np.cos)]
        if self.facts["missing"]:
            parts.append((~there).astype(np.float64))
        return np.column_stack(parts)

    def _value(self, cell: str | float | None) -> float:
        return number_of(cell) if self.kind == "number" else days_of(cell)

    def _marks(self, cells: Sequence[str | float | None]) -> Floats:
        names = self.facts["categories"]
        places = {name: index for index, name in enumerate(names)}
        made = np.zeros((len(cells), self.width))
        for row, cell in enumerate(cells):
            if _missing(cell):
                if self.facts["missing"]:
                    made[row, -1] = 1
                continue
            place = places.get(str(cell).strip())
            if place is None and self.facts["other"]:
                place = len(names)
            if place is not None:
                made[row, place] = 1
        return made


def fit_column(asked: ColumnRequest, cells: Sequence[str | float | None]) -> Column:
    """How to read a column, from the cells of the training rows.

    Raises ``DataError`` where it holds nothing, one value alone, or not the kind that is asked for.
    """
    where = f"data.features, column {asked.name!r}"
    filled = [cell for cell in cells if cell is not None and not _missing(cell)]
    if len({str(cell).strip() for cell in filled}) < 2:
        rule = "holds one value only in the training rows" if filled else "is empty"
        raise DataError(where, rule, filled[0] if filled else None, "Leave it out.")
    missing = len(filled) < len(cells)
    kind = asked.kind or _kind(filled)
    if kind == "category":
        counts = Counter(str(cell).strip() for cell in filled)
        kept = sorted(c for c, n in counts.most_common(MOST_CATEGORIES) if n >= LEAST)
        if not kept:
            rule = f"names no category that {LEAST} training rows share, so it names rows"
            raise DataError(where, rule, next(iter(counts)), "Leave it out.")
        named = {"categories": kept, "other": len(counts) > len(kept), "missing": missing}
        return Column(asked.name, kind, named)
    value = number_of if kind == "number" else days_of
    values = np.array([value(cell) for cell in filled])
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        rule = f"holds what is no {kind}"
        remedy = f"Correct it or empty the cell; or name it {asked.name}:category."
        raise DataError(where, rule, filled[int(wrong[0])], remedy)
    log = kind == "number" and values.min() >= 0 and _skew(values) > SKEWED
    log = bool(log and abs(_skew(np.log1p(values))) < 0.5 * _skew(values))
    scaled = np.log1p(values) if log else values
    mean, deviation = float(scaled.mean()), float(scaled.std()) or 1.0
    z = (scaled - mean) / deviation
    knots = sorted({round(float(q), 6) for q in np.quantile(z, [0.25, 0.5, 0.75])})
    facts: dict[str, Any] = {"log": log, "mean": mean, "deviation": deviation}
    facts |= {"knots": [k for k in knots if z.min() < k < z.max()], "missing": missing}
    if kind == "date":
        facts["times"] = bool((values % 1 > 0).any())
    return Column(asked.name, kind, facts)


def _kind(filled: Sequence[str | float]) -> str:
    if all(math.isfinite(number_of(cell)) for cell in filled):
        few = len({str(cell) for cell in filled}) < FEW_NUMBERS
        return "category" if few and isinstance(filled[0], str) else "number"
    if all(math.isfinite(days_of(cell)) for cell in filled):
        return "date"
    return "category"


def _missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip()) or cell != cell


def number_of(cell: str | float | None) -> float:
    """The number that a cell holds; NaN for none. ``1,234.5`` and ``12 %`` are read; an infinite
    number is none."""
    if isinstance(cell, (int, float)):
        return float(cell)
    text = (cell or "").strip().removesuffix("%").strip()
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    try:
        value = float(text)
    except ValueError:
        return {"true": 1.0, "false": 0.0}.get(text.lower(), math.nan)
    return value if math.isfinite(value) else math.nan


def days_of(cell: str | float | None) -> float:
    """Days since 1970 of an ISO date or time, as ``2024-03-01`` or ``2024-03-01T10:00:00Z``; NaN
    for anything else. A time with a zone is that of UTC."""
    if not isinstance(cell, str):
        return math.nan
    try:
        found = datetime.datetime.fromisoformat(cell.strip().replace("Z", "+00:00"))
    except ValueError:
        return math.nan
    if found.tzinfo is not None:
        found = found.astimezone(datetime.UTC).replace(tzinfo=None)
    return (found - datetime.datetime(1970, 1, 1)).total_seconds() / 86400


def _skew(values: Floats) -> float:
    gap, spread = values - values.mean(), values.std()
    return float((gap**3).mean() / spread**3) if spread else 0.0


def with_column(
    table: Table, name: str, column: str, *, encoding: str | None = None, config: str | None = None
) -> Table:
    """``table`` with the source's ``column`` as ``name``, a string or null a row. The source is
    read once more; lists and objects are JSON.

    Raises ``DataError`` where the source has no such column.
    """
    raw = read_source(table.source, encoding, config)
    check_present(raw, column)
    refuse_changed(raw, table)
    return _carried(table, raw, column, name)


def _carried(table: Table, raw: Raw, column: str, name: str) -> Table:
    values = raw.table[column].take(pa.array(table.column("row"), pa.int64()))
    return replace(table, rows=table.rows.add_column(name, values.to_pylist()))


def refuse_changed(raw: Raw, table: Table) -> None:
    """Refuse a source that was read once more, where its rows are no longer as many as when
    ``table`` was made of it: they would stand beside the wrong ones."""
    if len(raw) != table.source_rows:
        raise DataError(
            table.source,
            "changed while it was read",
            f"{table.source_rows} rows, then {len(raw)}",
            "Run the command again when nothing writes into the file.",
        )
