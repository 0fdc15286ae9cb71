"""Extra columns as numeric features: numbers, categories and dates next to the text, and simple
features of the text itself. Also attaches any other source column to the rows of a table.

The parameters of a column (mean and deviation, quartiles, names of categories) are fitted on the
training rows only (``fit_column``) and are plain JSON; ``encode`` then transforms any rows. For a
row without the value, every feature is 0, the mean, and a separate indicator is 1.

    number    z = (x − mean) ÷ deviation, of log(1 + x) where that is far less skewed; and how far
              z is above each quartile, for piecewise-linear effects
    category  an indicator for each category of ``MIN_CATEGORY_ROWS`` training rows or more, and one
              for all others
    date      days as a number; sine and cosine of the position in the week and the year, and in
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

COLUMN_PREFIX = "side:"
AUTO = "auto"
EXTRA_COLUMN_TYPES = ("number", "category", "date")
MIN_CATEGORY_ROWS = 3
MAX_CATEGORIES = 200
# Numbers with fewer distinct values are grades or codes, which fit better as one indicator each.
MAX_NUMERIC_CATEGORIES = 8
MAX_SKEW = 2.0
URL = re.compile(r"https?://|www\.", re.IGNORECASE)


def _length(text: str) -> float:
    return math.log1p(len(text.split()))


def _url(text: str) -> float:
    return float(URL.search(text) is not None)


def _share(text: str, of: Callable[[str], bool]) -> float:
    marks = [c for c in text if not c.isspace()]
    return sum(map(of, marks)) / max(1, len(marks))


# Features of the text, by their names in a recipe.
TEXT_FEATURES: dict[str, Callable[[str], float]] = {
    "text.length": _length,
    "text.url": _url,
    "text.capitals": lambda text: _share(text, str.isupper),
    "text.digits": lambda text: _share(text, str.isdigit),
    "text.marks": lambda text: math.log1p(text.count("!") + text.count("?")),
}


@dataclass(frozen=True, slots=True)
class ColumnRequest:
    """A column that a recipe names: ``column_type`` as stated, or ``None`` to infer it from the
    values."""

    name: str
    column_type: str | None = None


def parse_column_requests(names_given: Sequence[str]) -> tuple[ColumnRequest, ...]:
    """Parse names, or ``name:type``. Raises ``RecipeError`` for an unknown type, an unknown text
    feature, and a repeated name."""
    requests = []
    for request_text in names_given:
        name, mark, column_type = request_text.rpartition(":")
        if not mark or not name:
            name, column_type = request_text, ""
        if mark and name and column_type not in EXTRA_COLUMN_TYPES:
            rule = "names an unknown column type"
            raise RecipeError(
                "data.features", rule, request_text, suggest_name(column_type, EXTRA_COLUMN_TYPES)
            )
        if name.startswith("text.") and name not in TEXT_FEATURES:
            known = suggest_name(name, list(TEXT_FEATURES))
            raise RecipeError("data.features", "names an unknown text feature", name, known)
        requests.append(ColumnRequest(name, column_type or None))
    names = [one.name for one in requests]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError("data.features", "names a column twice", name, "Remove one of them.")
    return tuple(requests)


def source_columns(requests: Sequence[ColumnRequest]) -> tuple[str, ...]:
    """The columns that a source must have for ``requests``: features of the text need none."""
    return tuple(one.name for one in requests if one.name not in TEXT_FEATURES)


def with_extra_columns(
    table: Table, raw: Raw, requests: Sequence[ColumnRequest], used: Sequence[str] = ()
) -> Table:
    """The table with the cells of these columns of its source, as written. ``used`` are columns
    that already have another role: text, label, group.

    Raises ``DataError`` for a column that the source lacks, ``RecipeError`` for one of ``used``.
    """
    names = source_columns(requests)
    lacking = [name for name in names if name not in raw.names]
    if lacking:
        rule = f"has no column {', '.join(map(repr, lacking))}, which data.features names"
        raise DataError(raw.source, rule, ", ".join(raw.names), suggest_name(lacking[0], raw.names))
    for name in names:
        if name in used:
            rule = "names a column that is already the text, the label or the group"
            raise RecipeError("data.features", rule, name, "Leave it out.")
        if "nested" in raw.column_types.get(name, set()):
            where = f"{raw.source}, column {name!r}"
            raise DataError(
                where, "holds lists or objects, not plain values", None, "Leave it out."
            )
    for name in names:
        table = _with_source_column(table, raw, name, COLUMN_PREFIX + name)
    return table


def check_extra_columns(raw: Raw, requests: Sequence[ColumnRequest]) -> None:
    """Refuse rows without the extra columns that a model reads. Raises ``DataError``."""
    names = source_columns(requests)
    lacking = [name for name in names if name not in raw.names]
    if lacking:
        raise DataError(
            raw.source,
            f"lacks {', '.join(map(repr, lacking))}, which the model reads in addition to the text",
            ", ".join(raw.names),
            f"Give a table with the columns {', '.join(names)}; cells may be empty.",
        )


def candidate_columns(raw: Raw, used: Sequence[str]) -> tuple[ColumnRequest, ...]:
    """The columns of a source that could be extra features, and all features of the text."""
    from holdfast.data.columns.profile import profile_columns

    requests = []
    for name, column in profile_columns(raw).items():
        few = column.distinct <= max(2, min(column.filled // 5, MAX_CATEGORIES))
        identifies = column.distinct == column.filled and not column.numeric
        free = name not in used and column.filled > 0 and not column.wordy and not identifies
        if free and (column.numeric or (few and column.distinct > 1)):
            requests.append(ColumnRequest(name))
    return (*requests, *(ColumnRequest(name) for name in TEXT_FEATURES))


def check_has_columns(table: Table, requests: Sequence[ColumnRequest]) -> None:
    """Refuse a table without these columns, such as texts in memory."""
    there = {name.removeprefix(COLUMN_PREFIX) for name in table.rows.column_names} | set(
        TEXT_FEATURES
    )
    lacking = [one.name for one in requests if one.name not in there]
    if lacking:
        rule = "names columns, but the rows were given as texts only"
        raise RecipeError("data.features", rule, lacking[0], "Train on a table with the columns.")


def column_cells(table: Table, name: str) -> list[str | None] | list[float]:
    """The cells of an extra column as written, or a feature of the table's texts."""
    if name not in TEXT_FEATURES:
        cells: list[str | None] = table.column(COLUMN_PREFIX + name)
        return cells
    return [TEXT_FEATURES[name](text or "") for text in table.column("text")]


@dataclass(frozen=True, slots=True)
class Column:
    """How to encode a column: its parameters from the training rows, as plain values."""

    name: str
    kind: str
    facts: Mapping[str, Any]

    @property
    def width(self) -> int:
        """The number of features that it gives per row."""
        if self.kind == "category":
            names = len(self.facts["categories"]) + bool(self.facts["other"])
            return names + bool(self.facts["missing"])
        cyclic = 0 if self.kind == "number" else 6 if self.facts["times"] else 4
        return 1 + len(self.facts["knots"]) + cyclic + bool(self.facts["missing"])

    def encode(self, cells: Sequence[str | float | None]) -> Floats:
        """Encode these cells as features [n, width]."""
        if self.kind == "category":
            return self._one_hot(cells)
        raw = np.array([self._value(cell) for cell in cells], dtype=np.float64)
        is_present = np.isfinite(raw)
        scaled = np.where(is_present, raw, 0.0)
        if self.facts["log"]:
            scaled = np.log1p(np.maximum(scaled, 0.0))
        z = np.where(is_present, (scaled - self.facts["mean"]) / self.facts["deviation"], 0.0)
        parts = [
            z,
            *(np.where(is_present, np.maximum(z - k, 0.0), 0.0) for k in self.facts["knots"]),
        ]
        if self.kind == "date":
            for length in (7.0, 365.2425, *([1.0] if self.facts["times"] else [])):
                angle = 2 * np.pi * np.where(is_present, raw, 0.0) / length
                parts += [np.where(is_present, turn(angle), 0.0) for turn in (np.sin, np.cos)]
        if self.facts["missing"]:
            parts.append((~is_present).astype(np.float64))
        return np.column_stack(parts)

    def _value(self, cell: str | float | None) -> float:
        return parse_number(cell) if self.kind == "number" else parse_days(cell)

    def _one_hot(self, cells: Sequence[str | float | None]) -> Floats:
        names = self.facts["categories"]
        places = {name: index for index, name in enumerate(names)}
        encoded = np.zeros((len(cells), self.width))
        for row, cell in enumerate(cells):
            if _is_missing(cell):
                if self.facts["missing"]:
                    encoded[row, -1] = 1
                continue
            place = places.get(str(cell).strip())
            if place is None and self.facts["other"]:
                place = len(names)
            if place is not None:
                encoded[row, place] = 1
        return encoded


def fit_column(request: ColumnRequest, cells: Sequence[str | float | None]) -> Column:
    """Fit the encoding of a column on the cells of the training rows.

    Raises ``DataError`` where the column is empty, has only one value, or does not have the
    requested type.
    """
    where = f"data.features, column {request.name!r}"
    filled = [cell for cell in cells if cell is not None and not _is_missing(cell)]
    if len({str(cell).strip() for cell in filled}) < 2:
        rule = "has only one value in the training rows" if filled else "is empty"
        raise DataError(where, rule, filled[0] if filled else None, "Leave it out.")
    missing = len(filled) < len(cells)
    column_type = request.column_type or _infer_column_type(filled)
    if column_type == "category":
        counts = Counter(str(cell).strip() for cell in filled)
        categories = sorted(
            c for c, n in counts.most_common(MAX_CATEGORIES) if n >= MIN_CATEGORY_ROWS
        )
        if not categories:
            rule = (
                f"has no category that {MIN_CATEGORY_ROWS} training rows share, so it identifies "
                "rows"
            )
            raise DataError(where, rule, next(iter(counts)), "Leave it out.")
        category_facts = {
            "categories": categories,
            "other": len(counts) > len(categories),
            "missing": missing,
        }
        return Column(request.name, column_type, category_facts)
    value = parse_number if column_type == "number" else parse_days
    values = np.array([value(cell) for cell in filled])
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        rule = f"holds a value that is not a {column_type}"
        remedy = f"Correct or empty the cell, or name the column {request.name}:category."
        raise DataError(where, rule, filled[int(wrong[0])], remedy)
    log = column_type == "number" and values.min() >= 0 and _skewness(values) > MAX_SKEW
    log = bool(log and abs(_skewness(np.log1p(values))) < 0.5 * _skewness(values))
    scaled = np.log1p(values) if log else values
    mean, deviation = float(scaled.mean()), float(scaled.std()) or 1.0
    z = (scaled - mean) / deviation
    knots = sorted({round(float(q), 6) for q in np.quantile(z, [0.25, 0.5, 0.75])})
    facts: dict[str, Any] = {"log": log, "mean": mean, "deviation": deviation}
    facts |= {"knots": [k for k in knots if z.min() < k < z.max()], "missing": missing}
    if column_type == "date":
        facts["times"] = bool((values % 1 > 0).any())
    return Column(request.name, column_type, facts)


def _infer_column_type(filled: Sequence[str | float]) -> str:
    if all(math.isfinite(parse_number(cell)) for cell in filled):
        few = len({str(cell) for cell in filled}) < MAX_NUMERIC_CATEGORIES
        return "category" if few and isinstance(filled[0], str) else "number"
    if all(math.isfinite(parse_days(cell)) for cell in filled):
        return "date"
    return "category"


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def parse_number(cell: str | float | None) -> float:
    """The number in a cell, NaN if it holds none. ``1,234.5`` and ``12 %`` are read; an infinite
    number counts as none."""
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


def parse_days(cell: str | float | None) -> float:
    """Days since 1970 of an ISO date or time, as ``2024-03-01`` or ``2024-03-01T10:00:00Z``; NaN
    for anything else. A time with a zone is converted to UTC."""
    if not isinstance(cell, str):
        return math.nan
    try:
        moment = datetime.datetime.fromisoformat(cell.strip().replace("Z", "+00:00"))
    except ValueError:
        return math.nan
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return (moment - datetime.datetime(1970, 1, 1)).total_seconds() / 86400


def _skewness(values: Floats) -> float:
    gap, spread = values - values.mean(), values.std()
    return float((gap**3).mean() / spread**3) if spread else 0.0


def with_column(
    table: Table, name: str, column: str, *, encoding: str | None = None, config: str | None = None
) -> Table:
    """``table`` with the source's ``column`` as ``name``, one string or null per row. Reads the
    source again; lists and objects are JSON.

    Raises ``DataError`` where the source has no such column.
    """
    raw = read_source(table.source, encoding, config)
    check_present(raw, column)
    refuse_changed_source(raw, table)
    return _with_source_column(table, raw, column, name)


def _with_source_column(table: Table, raw: Raw, column: str, name: str) -> Table:
    values = raw.table[column].take(pa.array(table.column("row"), pa.int64()))
    return replace(table, rows=table.rows.add_column(name, values.to_pylist()))


def refuse_changed_source(raw: Raw, table: Table) -> None:
    """Refuse a source that now has another number of rows than when ``table`` was made of it:
    its cells would be attached to the wrong rows."""
    if len(raw) != table.source_rows:
        rule = "changed while it was read"
        remedy = "Run the command again when no program is writing to the file."
        raise DataError(table.source, rule, f"{table.source_rows} rows, then {len(raw)}", remedy)
