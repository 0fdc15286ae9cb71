"""Texts that stand inside longer ones: runs of eight words that two texts share.

A run of eight words that many rows share is a form (an instruction's frame, a footer), and says
nothing of two of them. Of the others a text is contained in a row where seven tenths of its runs
stand there; the rest is for those that begin in a form and end in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.duplicates.normalise import content_keys, to_arrow
from holdfast.duplicates.words import I64, U64, read_texts

RUN = 8
SHARE = 0.7
# Runs that so many rows of either table hold belong to a form.
COMMON = 5
# Runs that a text must have to be looked for: 15 words; less may be a quotation.
LEAST = 8
# Texts that are looked through at once: memory holds their runs.
BLOCK = 50_000


@dataclass(frozen=True, slots=True)
class Contained:
    """``inner`` [m] positions of texts that stand inside the texts at ``outer`` [m]; ``share`` [m]
    of their runs do."""

    inner: Ints
    outer: Ints
    share: Floats

    def __len__(self) -> int:
        return len(self.inner)


def find_contained(inner: Sequence[str], outer: Sequence[str]) -> Contained:
    """The texts of ``inner`` that stand inside one of ``outer``, each with the one that holds most
    of it."""
    parts = [
        _within(inner, outer[start : start + BLOCK], start) for start in range(0, len(outer), BLOCK)
    ]
    if not parts:
        return _within(inner, [], 0)
    found = Contained(
        np.concatenate([part.inner for part in parts]),
        np.concatenate([part.outer for part in parts]),
        np.concatenate([part.share for part in parts]),
    )
    order = np.lexsort((found.outer, -found.share, found.inner))
    best = order[np.unique(found.inner[order], return_index=True)[1]]
    return Contained(found.inner[best], found.outer[best], found.share[best])


def _within(inner: Sequence[str], outer: Sequence[str], first: int) -> Contained:
    """As ``find_contained``; the first of ``outer`` is called ``first``."""
    keys, owner = _runs([*inner, *outer])
    mine = owner < len(inner)
    different, place = np.unique(keys, return_inverse=True)
    held = np.bincount(place[~mine], minlength=len(different))
    usual = held[place] <= COMMON
    looked = np.bincount(owner[mine & usual], minlength=len(inner))
    # A join of runs: each of an inner text with all outer ones that hold it, COMMON at most.
    theirs = np.flatnonzero(~mine & usual)
    theirs = theirs[np.argsort(place[theirs], kind="stable")]
    ends = np.cumsum(np.bincount(place[theirs], minlength=len(different)))
    starts = ends - np.bincount(place[theirs], minlength=len(different))
    asked = np.flatnonzero(mine & usual)
    pairs = []
    for step in range(COMMON):
        at = starts[place[asked]] + step
        have = at < ends[place[asked]]
        pairs.append(np.column_stack([owner[asked[have]], owner[theirs[at[have]]]]))
    found = np.concatenate(pairs)
    return _most(found[:, 0], found[:, 1] - len(inner) + first, looked)


def _most(inner: Ints, outer: Ints, looked: Ints) -> Contained:
    """Of each inner text the outer one that shares most of its runs, where that is enough."""
    if not len(inner):
        nothing = np.zeros(0, dtype=np.int64)
        return Contained(nothing, nothing, np.zeros(0))
    pairs, counts = np.unique(np.column_stack([inner, outer]), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    first = np.unique(pairs[order, 0], return_index=True)[1]
    best = order[first]
    share = counts[best] / np.maximum(looked[pairs[best, 0]], 1)
    keep = (share >= SHARE) & (looked[pairs[best, 0]] >= LEAST)
    return Contained(pairs[best, 0][keep], pairs[best, 1][keep], np.minimum(share[keep], 1.0))


def _runs(texts: Sequence[str]) -> tuple[U64, I64]:
    """A 64-bit key of every run of eight words, each once a text, and the text it is in."""
    read = read_texts(list(texts))
    counts = np.diff(read.starts)
    if len(read.words) < RUN:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    hashes = content_keys(to_arrow(read.vocabulary))[read.words]
    keys = np.zeros(len(hashes) - RUN + 1, dtype=np.uint64)
    for step in range(RUN):
        # A polynomial in an odd number: the same words in another order are another run.
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + hashes[step : step + len(keys)]
    owner = np.repeat(np.arange(len(counts)), counts)
    whole = owner[: len(keys)] == owner[RUN - 1 :]
    keys, owner = keys[whole], owner[: len(keys)][whole]
    once = np.unique(np.column_stack([owner.astype(np.uint64), keys]), axis=0)
    return once[:, 1], once[:, 0].astype(np.int64)
