"""The type of a text's label: one class, several labels, or a number; inferred with a reason.

The types are named as in a recipe's ``data.label_kind``: ``class``, ``several``, ``number``.
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
from holdfast.core.wording import percent_phrase
from holdfast.data.cells import read_json_cell
from holdfast.data.columns.profile import present_values
from holdfast.data.columns.roles import LABEL
from holdfast.data.labels.spelling import label_key
from holdfast.data.limits import LABELS_CHARACTERS
from holdfast.data.raw import Raw

LabelKind = Literal["class", "several", "number"]
SEPARATORS = ("|", ";")
# More distinct numbers with decimals than this are treated as measurements.
MAX_NUMERIC_CLASSES = 20
SHARE_OF_SEVERAL = 0.05
PLURALS = ("labels", "tags", "categories", "topics", "genres", "emotions", "classes", "intents")
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def open_lists(raw: Raw, label: str | None) -> Raw:
    """The source with its label column of lists read as plain text, which is how it is stored.

    Only ``label``, or without it columns with a usual name for labels; other nested columns are
    unchanged.
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
    """The count of each label in the column, as written but for the space around it."""
    counted = pc.value_counts(pc.utf8_trim_whitespace(present_values(raw.table[label])))
    return dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True))


def infer_label_kind(
    counts: Mapping[str, int], requested: str | None, separator: str | None
) -> tuple[LabelKind, str | None]:
    """The type of these labels and the separator of several (``None`` for lists). An inferred type
    is logged with its reason."""
    if requested == "several" or (requested is None and separator):
        return "several", separator or (None if all_lists(counts) else _separator(counts, 0.0))
    if requested is not None:
        return cast("LabelKind", requested), None
    lists = all_lists(counts)
    separator_found = None if lists else _separator(counts, SHARE_OF_SEVERAL)
    if lists or separator_found:
        because = "its cells are lists"
        if separator_found:
            share = f"{percent_phrase(_share(counts, separator_found))}"
            because = f"{share} of its cells hold several labels separated by {separator_found!r}"
        because += " (data.label_kind=class treats each cell as one class)"
        notify(Decision("data.label_kind", "several", because))
        return "several", separator_found
    numbers = len(counts) > MAX_NUMERIC_CLASSES and all(NUMBER.fullmatch(cell) for cell in counts)
    if numbers and any("." in cell or "e" in cell.lower() for cell in counts):
        because = (
            f"{len(counts)} distinct decimal numbers in {sum(counts.values())} rows "
            "(data.label_kind=class treats them as classes)"
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
    """The separator that splits the cells into fewer distinct labels than there are distinct
    cells. Where cells are known to hold several labels (``least`` 0), the first that occurs."""
    occur = (mark for mark in SEPARATORS if _share(counts, mark) > least)
    return next((mark for mark in occur if not least or _parts_are_fewer(counts, mark)), None)


def _parts_are_fewer(counts: Mapping[str, int], mark: str) -> bool:
    """Whether splitting at the mark gives fewer distinct labels, none of them empty."""
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
