"""The report section on the hardest test rows and the training rows nearest to each."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.printable import shorten
from holdfast.report.numbers import number
from holdfast.report.run_files import RunFiles
from holdfast.report.section import Section

SHOWN_TEXT = 300


@dataclass(frozen=True, slots=True)
class HardRow:
    """A hard test row, what its neighbours suggest, and its nearest training rows as (row, label,
    text). Where texts are ``generated``, the label is the reference."""

    row: str
    text: str
    label: str
    prediction: str
    loss: str
    generated: bool
    because: str
    nearest: tuple[tuple[str, str, str], ...]


def hard_rows(run: RunFiles) -> tuple[HardRow, ...]:
    """From ``errors`` of result.json: the hardest rows that have a ``because``."""
    return tuple(
        HardRow(
            str(row.get("row", "–")),
            _cut(row.get("text")),
            _cut(row.get("label")),
            _cut(row.get("prediction")),
            number(row.get("loss")),
            bool(run.part("generations")),
            row.text("because"),
            tuple(
                (str(one.get("row", "–")), _cut(one.get("label")), _cut(one.get("text")))
                for one in row.blocks("nearest")
            ),
        )
        for row in run.part("errors").blocks("hardest")
        if row.get("because")
    )


def _cut(value: object) -> str:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    text = "" if value is None else str(value)
    return shorten(text, SHOWN_TEXT)


TEMPLATE = "analyses/errors/section.html.j2"
SECTIONS = (Section("nearby", "Hardest rows and similar training rows", hard_rows, TEMPLATE),)
