"""Readers, one file per family of formats, found by discovery.

A reader is a function ``(path, encoding) -> Iterator[Batch]``. It yields every value as the file
writes it, row by row in file order, refuses what it cannot read faithfully, and never holds more
than one batch in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.core.discovery import Registry, import_modules
from holdfast.data.raw import Batch

Read = Callable[[Path, str | None], Iterator[Batch]]


@dataclass(frozen=True, slots=True)
class Reader:
    """A format: its ``suffix`` (each also with ``.gz``) and its reading function."""

    suffix: str
    read: Read


READERS: Registry[Reader] = Registry("reader", "data.path")


def all_readers() -> Registry[Reader]:
    """The registry after every file of this package has been imported."""
    import_modules(__name__)
    return READERS
