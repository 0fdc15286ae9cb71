"""What a Python program gives to train on: a source by its name, a table, or texts and labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from holdfast.core.errors import DataError, InputError
from holdfast.data.memory.frames import frame_table, is_dataset, is_frame, series_values
from holdfast.data.memory.texts import text_columns

FRAME = "the data frame"


def rows_in_memory(source: object, labels: object, groups: object) -> pa.Table | None:
    """The rows of a source that is no name of a file or data set."""
    if isinstance(source, (str, Path)):
        if labels is not None:
            raise DataError(
                "labels",
                "belong to a list of texts, and the source is the name of a file",
                str(source),
                "Name the label column instead: label='…'.",
            )
        return None
    if is_frame(source) or isinstance(source, Mapping):
        if labels is not None:
            raise DataError(
                "labels",
                "belong to a list of texts, and the source is a table",
                None,
                "Name its label column instead: label='…'.",
            )
        return frame_table(source, FRAME)
    if labels is None:
        raise DataError(
            "the texts",
            "came without labels",
            type(source).__name__,
            "Give them as the second argument: holdfast.train(texts, labels).",
        )
    return labelled_rows(series_values(source), labels, groups, (), "label")


def labelled_rows(
    texts: Sequence[object], labels: object, groups: object, names: Sequence[str], label: str
) -> pa.Table:
    """Texts or pairs, labels and groups as a table."""
    columns: dict[str, Sequence[Any]] = text_columns(texts, names, "the texts")
    given = {label: labels, "group": groups}
    for name, values in given.items():
        if values is None:
            continue
        columns[name] = series_values(values)
        if len(columns[name]) != len(texts):
            raise DataError(
                "the texts",
                f"are {len(texts)}, and there are {len(columns[name])} {name}s",
                None,
                "Give one each.",
            )
    if not texts:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    records = zip(*columns.values(), strict=True)
    return frame_table([dict(zip(columns, record, strict=True)) for record in records], "the texts")


def name_of(source: object, labels: object) -> str:
    """What a run of rows in memory is called."""
    return "texts" if labels is not None else "dataset" if is_dataset(source) else "frame"


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """An error names the data frame, not the file that its rows were put into."""
    try:
        yield
    except InputError as error:
        if str(path) not in error.what:
            raise
        what = error.what.replace(str(path), FRAME)
        raise type(error)(what, error.rule, error.value, error.remedy) from error
