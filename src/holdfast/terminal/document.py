"""A ``Document`` of the report as lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.core.printable import shorten
from holdfast.report.document import Cell, Details, Document, DocumentTable, Items, Passage, Piece
from holdfast.terminal.layout import wrap

INDENT = "  "
NUMERIC = "0123456789+−±"
# Of a text from the user's data.
MOST_CHARACTERS = 80


def document_lines(
    document: Document, columns: int, indent: str = "", *, details: bool = True
) -> list[str]:
    """Its sentences and tables, at most ``columns`` wide, with what the report collapses unless
    ``details`` is false; charts are left out. A line of a table is a sentence of its cells, since a
    wide table would not fit."""
    parts = [part for part in document.parts if details or not isinstance(part, Details)]
    return list(_lines(parts, columns, indent))


def _lines(parts: Sequence[Piece], columns: int, indent: str) -> Iterator[str]:
    for part in parts:
        if isinstance(part, Passage):
            yield from wrap(part.text, columns, indent)
        elif isinstance(part, Items):
            for line in part.lines:
                yield from wrap(line, columns, f"{indent}- ", f"{indent}{INDENT}")
        elif isinstance(part, DocumentTable):
            lines = [line for cells in part.lines if (line := _table_line(part, cells))]
            yield from wrap(f"{part.caption}:" if lines else "", columns, indent)
            for line in lines:
                yield from wrap(line, columns, f"{indent}- ", f"{indent}{INDENT}")
        elif isinstance(part, Details):
            yield from _lines(part.parts, columns, indent)


def _table_line(table: DocumentTable, cells: Sequence[str | Cell]) -> str:
    """Empty where nothing is known of what the first cell names."""
    (name, style), *heads = table.styled
    about, *values = (
        shorten(_cell(cell), MOST_CHARACTERS) if style == "name" else _cell(cell)
        for (_, style), cell in zip(table.styled, cells, strict=True)
    )
    first = f"{name} {about}" if style == "n" else about
    known = [
        f"{head if style == 'group' else _inside(head)}{' ' if value[:1] in NUMERIC else ': '}"
        f"{value}"
        for (head, style), value in zip(heads, values, strict=True)
        if value.strip("–")
    ]
    return f"{first}: {'; '.join(known)}" if known else ""


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return cell
    span = f" ({cell.span})" if cell.span else ""
    return f"{cell.value}{span}{f', {cell.remark}' if cell.remark else ''}"


def _inside(name: str) -> str:
    """A heading inside a sentence: with a small letter, unless it is an abbreviation or a name."""
    return name[:1].lower() + name[1:] if name[1:2].islower() and "’" not in name else name
