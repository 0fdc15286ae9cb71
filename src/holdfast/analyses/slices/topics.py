"""A space of texts that costs next to nothing: their words, weighed, in the main directions.

Topics: groups of rows that lie near one another in a space of vectors, named by their terms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.augment.texts.word_edits import FUNCTION
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


WORD_DIRECTIONS = 50
EXTRA, POWERS = 10, 4
LEAST_ROWS, MOST_WORDS = 2, 20_000


@dataclass(frozen=True, slots=True, eq=False)
class WordSpace:
    """Latent semantic analysis (Deerwester and others 1990): counts of words of content as
    (1 + log count) · (1 + log((1 + n) ÷ (1 + texts with it))), each text of length 1, projected on
    the ``DIRECTIONS`` largest singular vectors of the texts that it was fitted to, and of length 1
    again. No network is asked, and any language does."""

    place: Mapping[str, int]
    rarity: Floats
    directions: Floats

    @classmethod
    def fit(cls, words: Sequence[Sequence[str]]) -> WordSpace | None:
        """The space of texts given as their words; ``None`` where there is too little to divide."""
        rows_with = Counter(word for row in words for word in set(row) if word not in FUNCTION)
        kept = [word for word, n in rows_with.items() if n >= LEAST_ROWS]
        kept = sorted(kept, key=lambda word: (-rows_with[word], word))[:MOST_WORDS]
        many = min(WORD_DIRECTIONS, len(words) - 1, len(kept) - 1)
        if many < 2:
            return None
        counts = np.array([rows_with[word] for word in kept])
        rarity = 1 + np.log((1 + len(words)) / (1 + counts))
        space = cls({word: at for at, word in enumerate(kept)}, rarity, np.zeros((0, 0)))
        return cls(space.place, rarity, _main_directions(space._weighed(words), many))

    def __call__(self, words: Sequence[Sequence[str]]) -> Floats:
        """The texts' vectors [n, d]; zeros for one whose words are all unknown."""
        found = np.asarray(self._weighed(words) @ self.directions)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(lengths, 1e-12))

    def _weighed(self, words: Sequence[Sequence[str]]) -> Any:
        from scipy.sparse import csr_matrix

        columns: list[int] = []
        counts: list[int] = []
        ends = [0]
        for row in words:
            known = Counter(self.place[word] for word in row if word in self.place)
            columns += known.keys()
            counts += known.values()
            ends.append(len(columns))
        at = np.asarray(columns, dtype=np.int64)
        weights = (1 + np.log(np.asarray(counts, dtype=np.float64))) * self.rarity[at]
        table = csr_matrix((weights, at, np.asarray(ends)), shape=(len(words), len(self.place)))
        lengths = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).reshape(-1))
        table.data /= np.repeat(np.maximum(lengths, 1e-12), np.diff(table.indptr))
        return table


def _main_directions(table: csr_matrix, many: int) -> Floats:
    """The right singular vectors [words, many] of the largest singular values, by a random range
    with four power steps (Halko, Martinsson and Tropp 2011, 0909.4061), the same each time."""
    rng = generator(0, "main directions")
    width = min(many + EXTRA, *table.shape)
    basis, _ = np.linalg.qr(table @ rng.standard_normal((table.shape[1], width)))
    for _ in range(POWERS):
        other, _ = np.linalg.qr(table.T @ basis)
        basis, _ = np.linalg.qr(table @ other)
    _, _, found = np.linalg.svd((table.T @ basis).T, full_matrices=False)
    return np.ascontiguousarray(found[:many].T)


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
        counts = np.bincount(of, minlength=len(centres))
        member = (of[None] == np.arange(len(centres))[:, None]).astype(np.float64)
        # A centre that lost its rows stays where it was.
        means = member @ points / np.maximum(counts, 1)[:, None]
        moved = np.asarray(np.where(counts[:, None] > 0, means, centres))
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
