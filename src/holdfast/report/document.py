"""The content of a section, independent of its display: sentences, tables, lists and charts, in
order. One template shows all documents; the terminal uses their sentences and lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Cell:
    """A number, its interval, and a remark: why it is undefined, or a caveat."""

    value: str
    span: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph. With ``explained``, glossary terms in it are marked. ``style`` is ``user`` for
    text from the user's data; the other styles mark less important text."""

    text: str
    style: Literal["", "user", "remark", "quiet", "muted"] = ""
    explained: bool = False
    kind: ClassVar[str] = "passage"


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences, in which glossary terms are marked."""

    lines: tuple[str, ...]
    kind: ClassVar[str] = "items"


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its ``caption``, which is empty where the chart has its own."""

    drawing: Markup
    caption: str = ""
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True, slots=True)
class DocumentTable:
    """A table: its caption, the names of its columns, and its lines.

    ``styles`` says what the cells of each column are: ``n`` numbers, ``group`` numbers below a
    heading from the user's data, ``name`` text from the user's data, ``term`` words of the data in
    Holdfast's text, empty for Holdfast's text. Without ``styles``, all columns but the first are
    numbers. The caption is ``shown`` with glossary terms marked, ``quiet`` (for screen readers), or
    only names the ``region`` that scrolls; ``region`` replaces that name."""

    caption: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str | Cell, ...], ...]
    styles: tuple[str, ...] = ()
    display: Literal["shown", "quiet", "region"] = "shown"
    region: str = ""
    kind: ClassVar[str] = "table"

    @property
    def styled(self) -> tuple[tuple[str, str], ...]:
        """The name and style of each column."""
        styles = self.styles or ("", *["n"] * (len(self.columns) - 1))
        return tuple(zip(self.columns, styles, strict=True))


@dataclass(frozen=True, slots=True)
class Details:
    """Content that is collapsed below its title."""

    title: str
    parts: tuple[Piece, ...]
    kind: ClassVar[str] = "details"


Piece = Passage | Items | Figure | DocumentTable | Details


@dataclass(frozen=True, slots=True)
class Document:
    """``parts`` in reading order; the first is the main sentence."""

    parts: tuple[Piece, ...]

    @classmethod
    def of(
        cls,
        sentence: str,
        more: Sequence[str] = (),
        tables: Sequence[DocumentTable] = (),
        notes: Sequence[str] = (),
    ) -> Document:
        """The usual form: the main ``sentence`` and ``more`` sentences; then, collapsed, ``tables``
        with the numbers and ``notes`` on what was skipped and why."""
        passages = tuple(Passage(line, explained=True) for line in (sentence, *more))
        if not (tables or notes):
            return cls(passages)
        folded: list[Piece] = [table for table in tables if table.lines]
        folded += [Passage(note, explained=True) for note in notes]
        return cls((*passages, Details("Details", tuple(folded))))

    @property
    def sentence(self) -> str:
        """The main sentence."""
        return next(part.text for part in self.parts if isinstance(part, Passage))

    @property
    def tables(self) -> tuple[DocumentTable, ...]:
        """All tables, including collapsed ones."""
        return tuple(part for part in _flat(self.parts) if isinstance(part, DocumentTable))

    @property
    def passages(self) -> tuple[str, ...]:
        """All paragraphs, including collapsed ones."""
        return tuple(part.text for part in _flat(self.parts) if isinstance(part, Passage))


def _flat(parts: Sequence[Piece]) -> Iterator[Piece]:
    for part in parts:
        if isinstance(part, Details):
            yield from _flat(part.parts)
        else:
            yield part
