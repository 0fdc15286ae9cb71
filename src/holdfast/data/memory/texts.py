"""A ``Table`` of texts that are already in memory: lists, arrays, lines of standard input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.data.columns.columns import NamedColumns
from holdfast.data.labels.classes import ClassRules
from holdfast.data.labels.rare import RARE_BELOW, Rare
from holdfast.data.load import table_from_raw
from holdfast.data.raw import BATCH_ROWS, Batch, Raw, store
from holdfast.data.readers.values import spell
from holdfast.data.scratch import scratch_file, stored_rows
from holdfast.data.table import Columns, Table

if TYPE_CHECKING:
    import datasets

Text = str | tuple[str, str]


def table_from_texts(
    texts: Sequence[object],
    labels: Sequence[object] | None = None,
    groups: Sequence[object] | None = None,
    classes: Sequence[str] | None = None,
    source: str = "memory",
    *,
    rare: Rare = "refuse",
    rare_below: int = RARE_BELOW,
) -> Table:
    """Texts, or pairs of texts, with or without labels; ``row`` is the position in the list.

    With ``labels`` (strings, integers, booleans; ``None`` is missing) the rows go through the same
    checks as a file's. Without, every text stays, an empty one too, so that predictions line up;
    labels are -1.
    """
    columns = _columns(texts, source)
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and len(values) != len(texts):
            raise DataError(
                source, f"has {len(texts)} texts and {len(values)} {name}", None, "Give one each."
            )
    if labels is None:
        return _unlabelled(columns, groups, tuple(classes or ()), source)
    named: dict[str, Sequence[Any]] = {**columns, "label": labels}
    if groups is not None:
        named["group"] = groups
    return table_from_raw(
        store(_batches(named), source),
        NamedColumns(list(columns), "label", "group" if groups is not None else None),
        ClassRules(classes, rare=rare, rare_below=rare_below),
    )


def raw_of_texts(texts: Sequence[object], names: Sequence[str] = (), source: str = "memory") -> Raw:
    """Texts, or pairs of texts, as if a file had held them in columns ``names`` (``text``, and for
    pairs ``text_pair``, where none are given)."""
    called = text_columns(texts, names, source)
    if not len(texts):
        return store(iter([Batch({name: pa.array([], pa.string()) for name in called})]), source)
    return store(_batches(called), source)


def text_columns(
    texts: Sequence[object], names: Sequence[str] = (), source: str = "memory"
) -> dict[str, Sequence[object]]:
    """The column of texts, or the two of pairs, under ``names``.

    Raises ``DataError`` where a row is no text, or there are not as many names.
    """
    columns = _columns(texts, source)
    if not len(texts) and names:
        return {name: [] for name in names}
    if names and len(names) != len(columns):
        given = "one text" if len(columns) == 1 else "two texts"
        raise DataError(
            source,
            f"holds {given} a row, and the run reads {len(names)} columns",
            ", ".join(names),
            "Give pairs of texts, or a table with these columns.",
        )
    return dict(zip(names or columns, columns.values(), strict=True))


def _columns(texts: Sequence[Any], source: str) -> dict[str, list[str | None]]:
    pairs = bool(len(texts)) and _is_pair(texts[0])
    for row, text in enumerate(texts):
        if not (_is_pair(text) if pairs else _is_text(text)):
            raise DataError(
                f"{source}, row {row}",
                f"is not a {'pair of texts' if pairs else 'text'}",
                text,
                "Give a string a row, or a pair of strings a row.",
            )
    if pairs:
        return {"text": [t[0] for t in texts], "text_pair": [t[1] for t in texts]}
    return {"text": list(texts)}


def _is_pair(cell: object) -> bool:
    return isinstance(cell, (tuple, list)) and len(cell) == 2 and all(map(_is_text, cell))


def _is_text(cell: object) -> bool:
    if not isinstance(cell, str):
        return cell is None
    try:
        # ASCII is known without a copy; only other texts can hold half of a surrogate pair.
        return cell.isascii() or bool(cell.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _batches(columns: Mapping[str, Sequence[object]]) -> Iterator[Batch]:
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, BATCH_ROWS):
        yield Batch(
            {
                name: pa.array(
                    [_spelled(value) for value in values[start : start + BATCH_ROWS]], pa.string()
                )
                for name, values in columns.items()
            }
        )


def _spelled(value: object) -> str | None:
    return spell(value.item() if isinstance(value, np.generic) else value)


def _unlabelled(
    columns: dict[str, list[str | None]],
    groups: Sequence[object] | None,
    classes: tuple[str, ...],
    source: str,
) -> Table:
    rows = len(columns["text"])
    arrays: dict[str, pa.Array] = {"row": pa.array(np.arange(rows, dtype=np.int64))}
    arrays |= {
        name: pa.array([text or "" for text in texts], pa.string())
        for name, texts in columns.items()
    }
    arrays["label"] = pa.array(np.full(rows, -1, dtype=np.int64))
    if groups is not None:
        arrays["group"] = pa.array([_spelled(group) or "" for group in groups], pa.string())
    meaning = Columns(tuple(columns), None, "group" if groups is not None else None)
    # On disk like the rows of a file: everything behind knows one kind of table.
    return Table(_mapped(pa.table(arrays)), classes, meaning, source, rows)


def _mapped(table: pa.Table) -> datasets.Dataset:

    path = scratch_file("rows")
    with disk_errors(path), pa.ipc.new_stream(str(path), table.schema) as target:
        target.write_table(table, max_chunksize=BATCH_ROWS)
    return stored_rows(path)
