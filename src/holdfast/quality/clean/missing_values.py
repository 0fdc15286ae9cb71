"""Rows whose text or label is missing: left out, or filled with a value that is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.data.labels.spelling import missing_labels
from holdfast.quality.clean.treatment import Edit, RowSet, TableTreatment, add


@dataclass(frozen=True, slots=True)
class FillMissing:
    """``text`` and ``label`` stand where one is missing; where a value is empty, the row goes."""

    text: str = ""
    label: str = ""


def without_missing(side: RowSet, settings: FillMissing) -> Sequence[Edit]:
    """An edit for each missing text, and for each missing label (also ``N/A`` and the like)."""
    wanted = [(name, settings.text) for name in side.text]
    wanted += [(side.label, settings.label)] if side.label is not None else []
    found: dict[int, list[Edit]] = {}
    for name, value in wanted:
        cells = side.columns[name]
        marks = missing_labels({c for c in cells if c}) if name == side.label else ()
        for n, cell in enumerate(cells):
            if cell is None or not cell.strip() or cell in marks:
                column = name if value else None
                found.setdefault(n, []).append(
                    Edit(n, column, value or None, f"{name!r} is missing")
                )
    # A row that goes needs nothing filled in.
    return [
        edit
        for edits in found.values()
        for edit in ([e for e in edits if e.column is None][:1] or edits)
    ]


add(
    TableTreatment(
        "missing",
        FillMissing,
        without_missing,
        order=75,
        fixes=("missing_text", "missing_label", "missing_source", "missing_target"),
    )
)
