"""What a finding has to say, however it is shown: sentences and tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DocumentTable:
    """A table: its caption, the names of its columns, and its lines."""

    caption: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Document:
    """``sentence`` answers in plain words, ``more`` are sentences that belong to it, ``tables``
    hold the numbers, ``notes`` say what was not done and why. One template shows every section that
    is a document."""

    sentence: str
    more: tuple[str, ...] = ()
    tables: tuple[DocumentTable, ...] = ()
    notes: tuple[str, ...] = ()
