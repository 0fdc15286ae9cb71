"""Topics: groups of rows that lie near one another in a space of vectors, named by their terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.enrich.texts.words import FUNCTION

ROUNDS = 30
DIRECTIONS = 64
TERMS = 3
LEAST_LETTERS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """The main directions [d, k] of vectors around their ``mean`` [d]."""

    mean: Floats
    directions: Floats

    @classmethod
    def of(cls, vectors: Floats, most: int = DIRECTIONS) -> Axes:
        """Of these vectors [n, d], ``most`` at most (principal components)."""
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        values, found = np.linalg.eigh(centred.T @ centred)
        kept = np.argsort(-values)[
            : min(most, int((values > 1e-9 * max(1e-300, values[-1])).sum()))
        ]
        return cls(mean, found[:, kept])

    def __call__(self, vectors: Floats) -> Floats:
        return np.asarray((vectors - self.mean) @ self.directions)


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Space divided by ``centres`` [k, axes]: a row belongs to the nearest one."""

    axes: Axes
    centres: Floats

    def __len__(self) -> int:
        return len(self.centres)

    def nearest(self, vectors: Floats) -> Ints:
        """The number of each row's centre, [n]; of two as near the lower."""
        return np.asarray(_distances(self.axes(vectors), self.centres).argmin(axis=1))


def partition(vectors: Floats, k: int, seed: np.random.Generator, axes: Axes) -> Partition:
    """k-means (Lloyd 1982) of vectors [n, d] along ``axes``, from a k-means++ start (Arthur and
    Vassilvitskii 2007), in 30 rounds at most. One start: what comes out is a proposal."""
    points = axes(vectors)
    centres = _starts(points, k, seed)
    for _ in range(ROUNDS):
        of = _distances(points, centres).argmin(axis=1)
        moved = _means(points, of, centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return Partition(axes, centres)


def _distances(points: Floats, centres: Floats) -> Floats:
    squares = (centres**2).sum(axis=1) - 2 * points @ centres.T
    return np.asarray(np.maximum(0.0, squares + (points**2).sum(axis=1)[:, None]))


def _starts(points: Floats, k: int, seed: np.random.Generator) -> Floats:
    chosen = [int(seed.integers(len(points)))]
    nearest = _distances(points, points[chosen])[:, 0]
    while len(chosen) < k:
        total = float(nearest.sum())
        chance = nearest / total if total > 0 else None
        chosen.append(int(seed.choice(len(points), p=chance)))
        nearest = np.minimum(nearest, _distances(points, points[chosen[-1:]])[:, 0])
    return np.asarray(points[chosen], dtype=np.float64)


def _means(points: Floats, of: Ints, centres: Floats) -> Floats:
    counts = np.bincount(of, minlength=len(centres))
    member = (of[None] == np.arange(len(centres))[:, None]).astype(np.float64)
    # A centre that lost its rows stays where it was.
    means = member @ points / np.maximum(counts, 1)[:, None]
    return np.asarray(np.where(counts[:, None] > 0, means, centres))


def terms_of(words: Sequence[Sequence[str]], of: Ints, k: int) -> list[tuple[str, ...]]:
    """The words that tell each group from the others, [k] of at most three: those with the largest
    log-odds of a row having them, a row of each kind added, times the root of their rows; words of
    grammar and of fewer than three letters are left out."""
    rows = [{w for w in row if w not in FUNCTION and len(w) >= LEAST_LETTERS} for row in words]
    everywhere = Counter(word for row in rows for word in row)
    found = []
    for number in range(k):
        mine = np.flatnonzero(of == number)
        inside = Counter(word for place in mine for word in rows[place])
        n, others = len(mine), len(rows) - len(mine)
        worth = {
            word: np.log((count + 1) / (n + 2) / ((everywhere[word] - count + 1) / (others + 2)))
            * np.sqrt(count)
            for word, count in inside.items()
            if count >= 2 and not word.isdigit()
        }
        ranked = sorted(worth, key=lambda word: (-worth[word], word))
        found.append(tuple(word for word in ranked[:TERMS] if worth[word] > 0))
    return found
