"""Texts in memory (lists, arrays, lines of standard input), with or without labels and groups, as a
``Table`` or as the rows of a source.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.core.errors import DataError, InputError
from holdfast.core.wording import count_phrase
from holdfast.data.cells import cell_text
from holdfast.data.load import table_from_raw
from holdfast.data.memory.frames import frame_table, is_dataset, is_frame, library_of, series_values
from holdfast.data.options import RARE_BELOW, RowOptions
from holdfast.data.raw import BATCH_ROWS, Batch, Raw, store, store_columns
from holdfast.data.scratch import write_batches
from holdfast.data.table import Columns, Table


def table_from_texts(
    texts: Sequence[object],
    labels: Sequence[object] | None = None,
    groups: Sequence[object] | None = None,
    classes: Sequence[str] | None = None,
    source: str = "the data in memory",
    *,
    rare_below: int = RARE_BELOW,
) -> Table:
    """Texts, or pairs of texts, with or without labels; ``row`` is the position in the list.

    With ``labels`` (strings, integers, booleans; ``None`` is missing) the rows get the same checks
    as those of a file. Without, every text is kept, even an empty one, so that predictions line up
    with the texts; labels are -1.
    """
    columns = _columns(texts, source)
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and len(values) != len(texts):
            rule = f"has {len(texts)} texts and {len(values)} {name}"
            raise DataError(source, rule, None, "Give one for each text.")
    group = "group" if groups is not None else None
    if labels is not None:
        named: dict[str, Sequence[Any]] = {**columns, "label": labels}
        if groups is not None:
            named["group"] = groups
        options = RowOptions(tuple(columns), "label", group, classes=classes, rare_below=rare_below)
        return table_from_raw(store(_batches(named), source), options)
    rows = len(texts)
    arrays: dict[str, pa.Array] = {"row": pa.array(np.arange(rows, dtype=np.int64))}
    arrays |= {
        name: pa.array([text or "" for text in texts], pa.string())
        for name, texts in columns.items()
    }
    arrays["label"] = pa.array(np.full(rows, -1, dtype=np.int64))
    if groups is not None:
        arrays["group"] = pa.array([_cell_text(group) or "" for group in groups], pa.string())
    # On disk like the rows of a file: the rest of Holdfast knows only one type of table.
    rows_table = pa.table(arrays)
    stored = write_batches(
        "rows", rows_table.schema, rows_table.to_batches(max_chunksize=BATCH_ROWS)
    )
    return Table(stored, tuple(classes or ()), Columns(tuple(columns), None, group), source, rows)


def raw_of_texts(texts: Sequence[object], names: Sequence[str] = ()) -> Raw:
    """Texts, or pairs of texts, as if a file had held them in columns ``names`` (``text``, and for
    pairs ``text_pair``, where none are given)."""
    columns = text_columns(texts, names)
    if not len(texts):
        return store_columns({name: [] for name in columns}, "the data in memory")
    return store(_batches(columns), "the data in memory")


def text_columns(
    texts: Sequence[object], names: Sequence[str] = (), source: str = "the data in memory"
) -> dict[str, Sequence[object]]:
    """The column of texts, or the two of pairs, under ``names``.

    Raises ``DataError`` where a row is not a text, or the number of names differs.
    """
    columns = _columns(texts, source)
    if not len(texts) and names:
        return {name: [] for name in names}
    if names and len(names) != len(columns):
        given = "one text" if len(columns) == 1 else "two texts"
        rule = f"holds {given} per row, but the run reads {count_phrase(len(names), 'column')}"
        remedy = "Give pairs of texts, or a table with these columns."
        raise DataError(source, rule, ", ".join(names), remedy)
    return dict(zip(names or columns, columns.values(), strict=True))


def _columns(texts: Sequence[Any], source: str) -> dict[str, list[str | None]]:
    pairs = bool(len(texts)) and _is_pair(texts[0])
    for row, text in enumerate(texts):
        if not (_is_pair(text) if pairs else _is_text(text)):
            rule = f"is not a {'pair of texts' if pairs else 'text'}"
            remedy = "Give one string per row, or one pair of strings per row."
            raise DataError(f"{source}, row {row}", rule, text, remedy)
    if pairs:
        return {"text": [t[0] for t in texts], "text_pair": [t[1] for t in texts]}
    return {"text": list(texts)}


def _is_pair(cell: object) -> bool:
    return isinstance(cell, (tuple, list)) and len(cell) == 2 and all(map(_is_text, cell))


def _is_text(cell: object) -> bool:
    if not isinstance(cell, str):
        return cell is None
    try:
        # ASCII is recognised without a copy; only other texts can hold half of a surrogate pair.
        return cell.isascii() or bool(cell.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _batches(columns: Mapping[str, Sequence[object]]) -> Iterator[Batch]:
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, BATCH_ROWS):
        part = {name: values[start : start + BATCH_ROWS] for name, values in columns.items()}
        yield Batch({name: pa.array(map(_cell_text, v), pa.string()) for name, v in part.items()})


def _cell_text(value: object) -> str | None:
    return cell_text(value.item() if isinstance(value, np.generic) else value)


FRAME = "the data frame"


def rows_in_memory(source: object, labels: object, groups: object) -> pa.Table | None:
    """The rows of a source that is not the name of a file or data set."""
    if isinstance(source, (str, Path)):
        refuse_lists("the name of a file", labels, groups)
        return None
    if is_frame(source) or isinstance(source, Mapping):
        refuse_lists("a table", labels, groups)
        return frame_table(source, FRAME)
    if labels is None:
        remedy = "Give them as the second argument: holdfast.train(texts, labels)."
        raise DataError("the texts", "have no labels", type(source).__name__, remedy)
    refuse_permuted(source, {"labels": labels, "groups": groups})
    return labelled_rows(series_values(source), labels, groups, (), "label")


def refuse_lists(kind: str, labels: object, groups: object) -> None:
    """Refuse labels or groups beside a source that has columns of its own."""
    for name, column, values in (("labels", "label", labels), ("groups", "group", groups)):
        if values is not None:
            rule = f"can only be given with a list of texts, but the source is {kind}"
            raise DataError(name, rule, None, f"Name the {column} column instead: {column}='…'.")


def refuse_permuted(texts: Any, others: Mapping[str, Any]) -> None:
    """Refuse series of pandas with the same index in another order: rows are paired by position,
    so each text would get another row's label. A different index says nothing."""
    index: Any = getattr(texts, "index", None)
    if library_of(texts) != "pandas" or index is None:
        return
    for name, other in others.items():
        # An index itself has none.
        is_indexed = library_of(other) == "pandas" and hasattr(other, "index")
        if not is_indexed or index.equals(other.index):
            continue
        if Counter(index) == Counter(other.index):
            raise DataError(
                name,
                "has the index of the texts in another order, but rows are paired by position",
                None,
                f"To pair by index, give {name}.loc[texts.index]. To pair by position, give both "
                "as lists.",
            )


def unlabelled_rows(source: object, groups: object = None, names: Sequence[str] = ()) -> pa.Table:
    """The rows of a data frame, or texts in the columns ``names``."""
    if is_frame(source):
        return frame_table(source, FRAME)
    return labelled_rows(series_values(source), None, groups, names, "label")


def labelled_rows(
    texts: Sequence[object], labels: object, groups: object, names: Sequence[str], label: str
) -> pa.Table:
    """Texts or pairs, labels and groups as a table."""
    columns: dict[str, Sequence[Any]] = text_columns(texts, names, "the texts")
    given = {label: labels, "group": groups}
    for name, values in given.items():
        if values is None:
            continue
        columns[name] = series_values(values, f"the {name}s")
        if len(columns[name]) != len(texts):
            rule = f"number {len(texts)}, but there are {len(columns[name])} {name}s"
            raise DataError("the texts", rule, None, f"Give one {name} for each text.")
    if not texts:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    records = zip(*columns.values(), strict=True)
    return frame_table([dict(zip(columns, record, strict=True)) for record in records], "the texts")


def run_name(source: object, labels: object) -> str:
    """The name of a run on rows in memory."""
    return "texts" if labels is not None else "dataset" if is_dataset(source) else "frame"


@contextlib.contextmanager
def naming_data_frame(path: Path, name: str = FRAME) -> Iterator[None]:
    """Name the data frame in errors, not the file of its rows."""
    try:
        yield
    except InputError as error:
        words = {"what": error.what, "rule": error.rule, "remedy": error.remedy}
        if not any(str(path) in (text or "") for text in words.values()):
            raise
        named = {key: (text or "").replace(str(path), name) for key, text in words.items()}
        raise error.reworded(**named) from error
