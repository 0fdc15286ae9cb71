"""What a section has to say, however it is shown: sentences, tables, lists and drawings, in order.
One template shows every section that is a document; the terminal takes its sentences and lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Cell:
    """A number, its interval, and a remark: why it is undefined, or what qualifies it."""

    value: str
    span: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph; words of the glossary are ``explained`` in it. ``style`` says how it is set:
    ``user`` holds the user's own words, the others are less important than the rest."""

    text: str
    style: Literal["", "user", "remark", "quiet", "muted"] = ""
    explained: bool = False
    kind: ClassVar[str] = "passage"


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences, in which words of the glossary are explained."""

    lines: tuple[str, ...]
    kind: ClassVar[str] = "items"


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing, with what it shows; without a ``caption`` it says so itself."""

    drawing: Markup
    caption: str = ""
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True, slots=True)
class DocumentTable:
    """A table: its caption, the names of its columns, and its lines.

    ``styles`` says of each column what its cells are: ``n`` numbers, ``name`` the user's own words,
    ``term`` words of the data within a text of ours, nothing for a text of ours. Without any, all
    but the first are numbers. The caption is ``shown`` and explained, ``quiet`` (for those who hear
    the page), or only names the ``region`` that scrolls; ``region`` is another name for that."""

    caption: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str | Cell, ...], ...]
    styles: tuple[str, ...] = ()
    display: Literal["shown", "quiet", "region"] = "shown"
    region: str = ""
    kind: ClassVar[str] = "table"

    @property
    def styled(self) -> tuple[tuple[str, str], ...]:
        """Each column's name and style."""
        styles = self.styles or ("", *["n"] * (len(self.columns) - 1))
        return tuple(zip(self.columns, styles, strict=True))


@dataclass(frozen=True, slots=True)
class Details:
    """What is folded away below its title."""

    title: str
    parts: tuple[Piece, ...]
    kind: ClassVar[str] = "details"


Piece = Passage | Items | Figure | DocumentTable | Details


@dataclass(frozen=True, slots=True)
class Document:
    """``parts`` in reading order; the first is the answer in plain words."""

    parts: tuple[Piece, ...]

    @classmethod
    def of(
        cls,
        sentence: str,
        more: Sequence[str] = (),
        tables: Sequence[DocumentTable] = (),
        notes: Sequence[str] = (),
    ) -> Document:
        """The usual form: ``sentence`` answers, ``more`` are sentences that belong to it; folded
        away ``tables`` hold the numbers, and ``notes`` say what was not done and why."""
        passages = tuple(Passage(line, explained=True) for line in (sentence, *more))
        if not (tables or notes):
            return cls(passages)
        folded: list[Piece] = [table for table in tables if table.lines]
        folded += [Passage(note, explained=True) for note in notes]
        return cls((*passages, Details("The numbers", tuple(folded))))

    @property
    def sentence(self) -> str:
        """The answer."""
        return next(part.text for part in self.parts if isinstance(part, Passage))

    @property
    def tables(self) -> tuple[DocumentTable, ...]:
        """Every table, those that are folded away among them."""
        return tuple(part for part in _flat(self.parts) if isinstance(part, DocumentTable))

    @property
    def passages(self) -> tuple[str, ...]:
        """Every paragraph, those that are folded away among them."""
        return tuple(part.text for part in _flat(self.parts) if isinstance(part, Passage))


def _flat(parts: Sequence[Piece]) -> Iterator[Piece]:
    for part in parts:
        if isinstance(part, Details):
            yield from _flat(part.parts)
        else:
            yield part
