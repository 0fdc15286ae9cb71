"""From raw columns to rows with a text and a label; missing values are counted.

Missing means null, empty or only white space; for a label also the spellings that
``data/labels/spelling.py`` lists. Every other text stays exactly as written. Labels lose the white
space around them. A row is dropped when any of its text columns is missing. A survey is one pass
over such rows: it counts labels, missing values and distinct texts of each class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.records import Finding, Severity
from holdfast.data.columns.profile import NUMBER, is_missing
from holdfast.data.columns.roles import fill_template
from holdfast.data.labels.spelling import MISSING, quoted_list
from holdfast.data.limits import current_limits
from holdfast.data.raw import Raw
from holdfast.data.table import Columns, Table
from holdfast.data.texts.general import normal_text

_MAX_LISTED = 100


@dataclass(slots=True)
class Tally:
    """Rows that one check found: their count, and the first hundred."""

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, rows: pa.Array) -> None:
        self.count += len(rows)
        self.rows += rows.slice(0, max(0, _MAX_LISTED - len(self.rows))).to_pylist()

    def add_row(self, row: int) -> None:
        """Add one row."""
        self.count += 1
        if len(self.rows) < _MAX_LISTED:
            self.rows.append(row)

    def words(self) -> str:
        """``row 3``, ``rows 1, 4, 7, 9, 12 and 495 more``."""
        more = f" and {self.count - 5:,} more" if self.count > 5 else ""
        return f"row{'s' if self.count > 1 else ''} {', '.join(map(str, self.rows[:5]))}{more}"

    def report(
        self,
        check: str,
        total_rows: int,
        description: str,
        remedy: str,
        *,
        severity: Severity = "warn",
        fixed: bool = False,
    ) -> None:
        """Log a finding if there are any rows. Its ``because`` is "n rows" + ``description``;
        its score is their share of ``total_rows``."""
        if self.count:
            because = f"{self.count} row{'s' if self.count > 1 else ''} {description}"
            share, rows = self.count / total_rows, tuple(self.rows)
            notify(Finding(check, severity, share, self.count, rows, because, remedy, fixed))


FILL = "Fill them in the source, if they matter."
# A row without a group is a group by itself, under a name that no real group has.
OWN_GROUP = "(no group) row "


def group_names(cells: pa.Array, rows: pa.Array) -> pa.Array:
    """The names of groups as compared: without white space around them, and for each of these
    ``rows`` [n] without a group a name of its own."""
    own_group = pc.binary_join_element_wise(OWN_GROUP, rows.cast(pa.string()), "")
    return pc.if_else(has_no_group(cells), own_group, pc.utf8_trim_whitespace(cells))


def named_groups(table: Table) -> set[str]:
    """The groups that rows of other files may be in too: those with a name."""
    return {name for name in table.column("group") if not name.startswith(OWN_GROUP)}


def role_columns(raw: Raw, columns: Columns) -> Iterator[pa.RecordBatch]:
    """The source in Holdfast's own columns: ``row``, ``text``, ``text_pair``, ``label`` (as
    written), ``group``; null where missing. Read batch by batch from the mapped file."""
    offset = 0
    for batch in raw.table.to_batches():
        # Numbered before any row is dropped, so that a row keeps its number in the source.
        rows = pa.array(np.arange(offset, offset + batch.num_rows, dtype=np.int64))
        offset += batch.num_rows
        arrays = {"row": rows, **_texts(raw, batch, columns, rows)}
        if columns.label is not None:
            arrays["label"] = _label(batch.column(columns.label), columns.label_missing)
        if columns.group is not None:
            arrays["group"] = group_names(batch.column(columns.group), rows)
        yield pa.RecordBatch.from_pydict(arrays)


def has_all_texts(batch: pa.RecordBatch) -> pa.BooleanArray:
    """Mask of the rows of ``role_columns`` that have all their texts."""
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
        rule = "holds a NUL character, which is not valid in text"
        remedy = "Remove it; the file may be damaged."
        raise DataError(f"{raw.source}, row {row}, column {name!r}", rule, None, remedy)
    return pc.if_else(is_missing(values), pa.scalar(None, pa.string()), values)


def _label(values: pa.Array, missing: tuple[str, ...]) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(values)
    is_gone = is_missing(values)
    if missing:
        is_gone = pc.or_(is_gone, pc.is_in(trimmed, pa.array(missing, pa.string())))
    return pc.if_else(is_gone, pa.scalar(None, pa.string()), trimmed)


def has_no_group(values: pa.Array) -> pa.Array:
    """Mask of missing groups: missing as for texts, or a usual spelling of an empty cell."""
    normalized = pc.utf8_lower(pc.utf8_trim_whitespace(values))
    return pc.or_(is_missing(values), pc.is_in(normalized, pa.array(sorted(MISSING), pa.string())))


def row_schema(columns: Columns, *extra_columns: tuple[str, pa.DataType]) -> pa.Schema:
    """The schema of rows on disk. ``extra_columns`` are columns that only one type of rows has."""
    texts = ("text", "text_pair") if columns.are_pairs else ("text",)
    groups = () if columns.group is None else ("group",)
    return pa.schema(
        [
            ("row", pa.int64()),
            *((name, pa.string()) for name in texts),
            ("label", pa.int64()),
            *extra_columns,
            *((name, pa.string()) for name in groups),
        ]
    )


def report_missing(
    columns: Columns,
    rows: int,
    *,
    text: Tally,
    label: Tally,
    group: Tally,
    label_word: str = "label",
) -> None:
    """Log one finding for each type of missing value that occurs. ``label_word`` is the label's
    name in check names: a pair calls it the target."""
    missing = columns.label_missing
    text_columns = " or ".join(map(repr, columns.text))
    check = "missing_text" if label_word == "label" else "missing_source"
    text.report(check, rows, f"without {text_columns}: dropped", FILL, fixed=True)
    marks, hint = "", ""
    if missing:
        shown = list(map(repr, missing))
        are = f"one of {', '.join(shown)}" if len(shown) > 1 else shown[0]
        hint = f" If {are} is a class, add --set data.labels=exact."
        marks = f" (empty, or written {quoted_list(missing)})"
    because = f"without {columns.label!r}{marks}: dropped"
    label.report(f"missing_{label_word}", rows, because, FILL + hint, fixed=True)
    report_missing_groups(columns.group, rows, group)


def report_missing_groups(column: str | None, rows: int, missing: Tally) -> None:
    """Log a finding if any of the ``rows`` has no group in the ``column``."""
    missing.report("missing_group", rows, f"without {column!r}: each is its own group", FILL)


@dataclass(slots=True)
class LabelSurvey:
    """What one pass counted. ``counts`` are the labels as written, over rows that have a text.
    ``texts`` holds the distinct normalised texts of each label, at most ``texts_needed`` of them.
    """

    texts_needed: int
    counts: Counter[str] = field(default_factory=Counter)
    texts: dict[str, set[str]] = field(default_factory=dict)
    used: int = 0
    no_text: Tally = field(default_factory=Tally)
    no_label: Tally = field(default_factory=Tally)
    no_group: Tally = field(default_factory=Tally)
    # For each text column, whether every value so far is a number.
    numeric: dict[str, bool] = field(default_factory=dict)


def survey_labels(
    raw: Raw, columns: Columns, *, texts_needed: int, need_label: bool = True
) -> LabelSurvey:
    """Read every row once; refuse a text column that is all numbers or all empty. Without
    ``need_label`` rows without a label are kept."""
    result = LabelSurvey(texts_needed)
    for batch in role_columns(raw, columns):
        _survey_batch(result, batch, need_label)
    if not result.used:
        raise DataError(
            f"{raw.source}, column {', '.join(map(repr, columns.text))}",
            "is empty in every row",
            None,
            "Choose another column: --text COLUMN.",
        )
    numbers = [name for name, numeric in result.numeric.items() if numeric]
    if numbers and columns.template is None:
        place = ("text", "text_pair").index(numbers[0])
        rule = "holds only numbers, not texts"
        remedy = "Choose a column of texts: --text COLUMN."
        raise DataError(f"{raw.source}, column {columns.text[place]!r}", rule, None, remedy)
    return result


def _survey_batch(result: LabelSurvey, batch: pa.RecordBatch, need_label: bool) -> None:
    is_complete = has_all_texts(batch)
    result.no_text.add(batch.column("row").filter(pc.invert(is_complete)))
    batch = batch.filter(is_complete)
    result.used += batch.num_rows
    for name in ("text", "text_pair"):
        if name in batch.schema.names and batch.num_rows and result.numeric.get(name, True):
            counted = pc.match_substring_regex(batch.column(name), NUMBER)
            result.numeric[name] = bool(pc.all(counted).as_py())
    if "group" in batch.schema.names:
        own_group = pc.starts_with(batch.column("group"), OWN_GROUP)
        if need_label and "label" in batch.schema.names:
            own_group = pc.and_(own_group, pc.is_valid(batch.column("label")))
        result.no_group.add(batch.column("row").filter(own_group))
    if "label" not in batch.schema.names:
        return
    labels = batch.column("label")
    result.no_label.add(batch.column("row").filter(pc.is_null(labels)))
    counted = pc.value_counts(labels.drop_null())
    for label, count in zip(
        counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True
    ):
        result.counts[label] += count
    _texts_per_label(result, batch)


def _texts_per_label(result: LabelSurvey, batch: pa.RecordBatch) -> None:
    # Beyond the maximum number of classes the labels are refused, so their texts are not needed.
    if not result.texts_needed or len(result.counts) > current_limits().classes:
        return
    # Classes with enough texts are skipped, so that a large file costs little more than one read.
    satisfied = [
        label for label, texts in result.texts.items() if len(texts) >= result.texts_needed
    ]
    labels = batch.column("label")
    skip = pc.or_(pc.is_in(labels, pa.array(satisfied, pa.string())), pc.is_null(labels))
    batch = batch.filter(pc.invert(skip))
    pairs = batch.column("text_pair") if "text_pair" in batch.schema.names else None
    for n, label in enumerate(batch.column("label").to_pylist()):
        texts = result.texts.setdefault(label, set())
        if len(texts) < result.texts_needed:
            pair = "" if pairs is None else f"\n{normal_text(pairs[n].as_py())}"
            texts.add(normal_text(batch.column("text")[n].as_py()) + pair)
