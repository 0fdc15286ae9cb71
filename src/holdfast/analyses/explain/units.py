"""The parts of a text that a person can be shown, words and marks; which pieces are of which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Ints

# Letters of scripts that are written without spaces stand alone, or a sentence would be one word.
_ALONE = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_UNIT = re.compile(rf"[{_ALONE}]|(?:(?![{_ALONE}])\w)+(?:['’\-](?:(?![{_ALONE}])\w)+)*|[^\w\s]+")
# Of a longer text neighbouring words are joined: each costs passes of its own.
MOST = 128


@dataclass(frozen=True, slots=True)
class Unit:
    """``text[start:stop]`` of the ``part``-th text of a row (0, or 1 for the second of a pair)."""

    part: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Parted:
    """The ``units`` of a row and, for each of its pieces, the unit that it is of (``owner``
    [pieces], −1 for the marks of the model). ``joined`` is how many words a unit holds at most;
    ``unread`` are the words beyond what the model reads."""

    units: tuple[Unit, ...]
    owner: Ints
    joined: int = 1
    unread: int = 0

    def words(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The units as they stand in the texts."""
        return tuple(texts[one.part][one.start : one.stop] for one in self.units)


def words_of(text: str, part: int = 0) -> list[Unit]:
    """Words with their hyphens and apostrophes, runs of other marks, and single letters where a
    script has no spaces.

    >>> [(u.start, u.stop) for u in words_of("Don't, no!")]
    [(0, 5), (5, 6), (7, 9), (9, 10)]
    """
    return [Unit(part, found.start(), found.end()) for found in _UNIT.finditer(text)]


def parted(
    texts: Sequence[str],
    offsets: Sequence[tuple[int, int]],
    sequences: Sequence[int | None],
    most: int = MOST,
) -> Parted:
    """The units of a row that is read as pieces.

    Parameters
    ----------
    texts : one text, or the two of a pair.
    offsets : of each piece, the characters of its text that it stands for.
    sequences : of each piece, which text it is of; ``None`` for the marks of the model.
    most : units, at least 1; in a longer row ``Parted.joined`` neighbouring words are one.

    A piece that reaches over several words joins them. Words of which no piece is read are counted
    in ``unread``.
    """
    found = [unit for part, text in enumerate(texts) for unit in words_of(text, part)]
    owner = np.full(len(offsets), -1, dtype=np.int64)
    group = np.arange(len(found))
    for piece, ((start, stop), part) in enumerate(zip(offsets, sequences, strict=True)):
        if part is None or stop <= start:
            continue
        inside = [
            place
            for place, unit in enumerate(found)
            if unit.part == part and unit.start < stop and start < unit.stop
        ]
        if inside:
            group[inside] = group[inside].min()
            owner[piece] = inside[0]
    return _joined(found, group, owner, most)


def _joined(found: list[Unit], group: Ints, owner: Ints, most: int) -> Parted:
    read = np.unique(group[owner[owner >= 0]])
    joined = max(1, -(-len(read) // most))
    # Words of two texts are never one.
    part_of = np.array([found[place].part for place in read], dtype=np.int64)
    chunk = np.empty(len(read), dtype=np.int64)
    count = 0
    for part in np.unique(part_of):
        places = np.flatnonzero(part_of == part)
        chunk[places] = count + np.arange(len(places)) // joined
        count = int(chunk[places[-1]]) + 1
    to_chunk = np.full(len(found) + 1, -1, dtype=np.int64)
    to_chunk[read] = chunk
    units = []
    for one in range(count):
        members = np.flatnonzero(np.isin(group, read[chunk == one]))
        whole = [found[place] for place in members]
        units.append(Unit(whole[0].part, whole[0].start, max(unit.stop for unit in whole)))
    owners = np.where(owner >= 0, to_chunk[group[owner]], -1) if len(found) else owner
    unread = len(found) - int(np.isin(group, read).sum())
    return Parted(tuple(units), owners, joined, unread)
