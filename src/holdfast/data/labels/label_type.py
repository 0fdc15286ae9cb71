"""What the label of a text is: one class, several labels, or a number; worked out with a reason.

The names of the kinds are what a recipe's ``data.label_kind`` says: ``class``, ``several``,
``number``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, cast

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.decisions import notify
from holdfast.core.records import Decision
from holdfast.data.cells import read_json_cell
from holdfast.data.columns.profile import present_values
from holdfast.data.columns.roles import LABEL
from holdfast.data.labels.spelling import label_key
from holdfast.data.limits import LABELS_CHARACTERS
from holdfast.data.raw import Raw

LabelKind = Literal["class", "several", "number"]
SEPARATORS = ("|", ";")
# As data.labels: more distinct numbers with decimals than this are measurements.
MAX_NUMERIC_CLASSES = 20
SHARE_OF_SEVERAL = 0.05
PLURALS = ("labels", "tags", "categories", "topics", "genres", "emotions", "classes", "intents")
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def open_lists(raw: Raw, label: str | None) -> Raw:
    """The source with its label column of lists read as plain text, which is how it is stored.

    Only ``label``, or without it columns with a usual name of labels; other nested columns stay.
    """
    usual, column_types = {*LABEL.usual, *PLURALS}, dict(raw.column_types)
    for name, types in raw.column_types.items():
        meant = name == label if label else name.lower() in usual
        if "nested" in types and meant and _holds_lists(raw.table[name]):
            column_types[name] = {"text"}
    return replace(raw, column_types=column_types)


def _holds_lists(values: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.starts_with(present_values(values), "[")).as_py())


def label_counts(raw: Raw, label: str) -> dict[str, int]:
    """How often each label stands in the column, as written but for the space around it."""
    counted = pc.value_counts(pc.utf8_trim_whitespace(present_values(raw.table[label])))
    return dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True))


def infer_label_kind(
    counts: Mapping[str, int], requested: str | None, separator: str | None
) -> tuple[LabelKind, str | None]:
    """The kind of these labels and the separator of several (``None`` for lists); the reason goes
    into the log where nobody said it."""
    if requested == "several" or (requested is None and separator):
        return "several", separator or (None if all_lists(counts) else _separator(counts, 0.0))
    if requested is not None:
        return cast("LabelKind", requested), None
    lists = all_lists(counts)
    separator_found = None if lists else _separator(counts, SHARE_OF_SEVERAL)
    if lists or separator_found:
        because = "its cells are lists"
        if separator_found:
            share = f"{_share(counts, separator_found):.0%}"
            because = (
                f"{share} of its cells hold several labels with {separator_found!r} between them"
            )
        because += " (data.label_kind=class if each cell is one class)"
        notify(Decision("data.label_kind", "several", because))
        return "several", separator_found
    numbers = len(counts) > MAX_NUMERIC_CLASSES and all(NUMBER.fullmatch(cell) for cell in counts)
    if numbers and any("." in cell or "e" in cell.lower() for cell in counts):
        because = (
            f"{len(counts)} different numbers with decimals in {sum(counts.values())} rows "
            "(data.label_kind=class if they are classes)"
        )
        notify(Decision("data.label_kind", "number", because))
        return "number", None
    return "class", None


def all_lists(counts: Mapping[str, int]) -> bool:
    """Whether every cell is a JSON list of plain values."""
    return bool(counts) and all(read_list(cell) is not None for cell in counts)


def read_list(cell: str) -> list[str] | None:
    """The labels of a cell that is a JSON list of plain values, else ``None``."""
    if not cell.startswith("[") or len(cell) > LABELS_CHARACTERS:
        return None
    try:
        items = read_json_cell(cell)
    except ValueError:
        return None
    if not isinstance(items, list) or any(isinstance(x, (list, dict)) for x in items):
        return None
    return [
        json.dumps(x) if isinstance(x, (bool, float)) else str(x) for x in items if x is not None
    ]


def _separator(counts: Mapping[str, int], least: float) -> str | None:
    """The separator that takes the cells apart into fewer labels than there are cells; where it is
    known that cells hold several (``least`` 0), the first that occurs."""
    occur = (mark for mark in SEPARATORS if _share(counts, mark) > least)
    return next((mark for mark in occur if not least or _parts_are_fewer(counts, mark)), None)


def _parts_are_fewer(counts: Mapping[str, int], mark: str) -> bool:
    """Whether the mark takes the cells apart into fewer labels, and into none that is empty."""
    parts: set[str] = set()
    for cell in counts:
        if len(cell) > LABELS_CHARACTERS:
            return False
        parts |= {label_key(part) for part in set(cell.split(mark))}
        if "" in parts or len(parts) >= len(counts):
            return False
    return True


def _share(counts: Mapping[str, int], mark: str) -> float:
    rows_with_mark = sum(count for cell, count in counts.items() if mark in cell)
    return rows_with_mark / max(1, sum(counts.values()))
