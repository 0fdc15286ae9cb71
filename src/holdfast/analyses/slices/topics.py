"""Topics of texts: groups of rows that lie close together in a vector space, named by their terms.

``WordSpace`` is a cheap such space: weighted word counts, projected on their main directions.
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
OVERSAMPLING, POWER_STEPS = 10, 4
MIN_ROWS, MAX_WORDS = 2, 20_000


@dataclass(frozen=True, slots=True, eq=False)
class WordSpace:
    """Latent semantic analysis (Deerwester and others 1990): counts of content words as
    (1 + log count) · (1 + log((1 + n) ÷ (1 + texts with it))), each text scaled to length 1,
    projected on the ``WORD_DIRECTIONS`` largest singular vectors of the texts that it was fitted
    to, and scaled to length 1 again. It needs no network, and works for any language."""

    column_of: Mapping[str, int]
    rarity: Floats
    directions: Floats

    @classmethod
    def fit(cls, words: Sequence[Sequence[str]]) -> WordSpace | None:
        """The space of texts given as words; ``None`` if there are too few texts or words."""
        rows_with = Counter(word for row in words for word in set(row) if word not in FUNCTION)
        vocabulary = [word for word, n in rows_with.items() if n >= MIN_ROWS]
        vocabulary = sorted(vocabulary, key=lambda word: (-rows_with[word], word))[:MAX_WORDS]
        n_directions = min(WORD_DIRECTIONS, len(words) - 1, len(vocabulary) - 1)
        if n_directions < 2:
            return None
        counts = np.array([rows_with[word] for word in vocabulary])
        rarity = 1 + np.log((1 + len(words)) / (1 + counts))
        space = cls({word: at for at, word in enumerate(vocabulary)}, rarity, np.zeros((0, 0)))
        return cls(space.column_of, rarity, _main_directions(space._tf_idf(words), n_directions))

    def __call__(self, words: Sequence[Sequence[str]]) -> Floats:
        """The texts' vectors [n, d]; zeros for a text without a known word."""
        vectors = np.asarray(self._tf_idf(words) @ self.directions)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12))

    def _tf_idf(self, words: Sequence[Sequence[str]]) -> Any:
        from scipy.sparse import csr_matrix

        columns: list[int] = []
        counts: list[int] = []
        ends = [0]
        for row in words:
            word_counts = Counter(self.column_of[word] for word in row if word in self.column_of)
            columns += word_counts.keys()
            counts += word_counts.values()
            ends.append(len(columns))
        positions = np.asarray(columns, dtype=np.int64)
        weights = (1 + np.log(np.asarray(counts, dtype=np.float64))) * self.rarity[positions]
        table = csr_matrix(
            (weights, positions, np.asarray(ends)), shape=(len(words), len(self.column_of))
        )
        lengths = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).reshape(-1))
        table.data /= np.repeat(np.maximum(lengths, 1e-12), np.diff(table.indptr))
        return table


def _main_directions(table: csr_matrix, n_directions: int) -> Floats:
    """The right singular vectors [words, many] of the largest singular values, by a randomized
    range finder with four power steps (Halko, Martinsson and Tropp 2011, 0909.4061) and a fixed
    seed."""
    rng = generator(0, "main directions")
    width = min(n_directions + OVERSAMPLING, *table.shape)
    basis, _ = np.linalg.qr(table @ rng.standard_normal((table.shape[1], width)))
    for _ in range(POWER_STEPS):
        other, _ = np.linalg.qr(table.T @ basis)
        basis, _ = np.linalg.qr(table @ other)
    _, _, directions = np.linalg.svd((table.T @ basis).T, full_matrices=False)
    return np.ascontiguousarray(directions[:n_directions].T)


ROUNDS = 30
DIRECTIONS = 64
TERMS = 3
MIN_LETTERS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """The main directions [d, k] of vectors, centred on their ``mean`` [d]."""

    mean: Floats
    directions: Floats

    @classmethod
    def of(cls, vectors: Floats, max_directions: int = DIRECTIONS) -> Axes:
        """The principal components of these vectors [n, d], at most ``max_directions``."""
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        values, eigenvectors = np.linalg.eigh(centred.T @ centred)
        largest = np.argsort(-values)[
            : min(max_directions, int((values > 1e-9 * max(1e-300, values[-1])).sum()))
        ]
        return cls(mean, eigenvectors[:, largest])

    def __call__(self, vectors: Floats) -> Floats:
        return np.asarray((vectors - self.mean) @ self.directions)


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Clusters with ``centres`` [k, axes]: a row belongs to the nearest one."""

    axes: Axes
    centres: Floats

    def __len__(self) -> int:
        return len(self.centres)

    def nearest(self, vectors: Floats) -> Ints:
        """The number of each row's nearest centre, [n]; the lower of two at the same distance."""
        return np.asarray(_distances(self.axes(vectors), self.centres).argmin(axis=1))


def partition(vectors: Floats, k: int, seed: np.random.Generator, axes: Axes) -> Partition:
    """k-means (Lloyd 1982) of vectors [n, d] along ``axes``, from a k-means++ start (Arthur and
    Vassilvitskii 2007), in 30 rounds at most. One start is enough: clusters are only candidates."""
    points = axes(vectors)
    centres = _starts(points, k, seed)
    for _ in range(ROUNDS):
        nearest = _distances(points, centres).argmin(axis=1)
        counts = np.bincount(nearest, minlength=len(centres))
        member = (nearest[None] == np.arange(len(centres))[:, None]).astype(np.float64)
        # A centre without rows stays in its place.
        means = member @ points / np.maximum(counts, 1)[:, None]
        new_centres = np.asarray(np.where(counts[:, None] > 0, means, centres))
        if np.array_equal(new_centres, centres):
            break
        centres = new_centres
    return Partition(axes, centres)


def _distances(points: Floats, centres: Floats) -> Floats:
    squares = (centres**2).sum(axis=1) - 2 * points @ centres.T
    return np.asarray(np.maximum(0.0, squares + (points**2).sum(axis=1)[:, None]))


def _starts(points: Floats, k: int, seed: np.random.Generator) -> Floats:
    start_rows = [int(seed.integers(len(points)))]
    nearest = _distances(points, points[start_rows])[:, 0]
    while len(start_rows) < k:
        total = float(nearest.sum())
        probabilities = nearest / total if total > 0 else None
        start_rows.append(int(seed.choice(len(points), p=probabilities)))
        nearest = np.minimum(nearest, _distances(points, points[start_rows[-1:]])[:, 0])
    return np.asarray(points[start_rows], dtype=np.float64)


def terms_of(words: Sequence[Sequence[str]], group_of_row: Ints, k: int) -> list[tuple[str, ...]]:
    """The words that distinguish each group from the others, [k] of at most three: those with the
    largest log-odds of a row having them, with one row of each kind added, times the root of their
    rows. Function words and words of fewer than three letters are left out."""
    rows = [{w for w in row if w not in FUNCTION and len(w) >= MIN_LETTERS} for row in words]
    total_counts = Counter(word for row in rows for word in row)
    terms = []
    for number in range(k):
        group_rows = np.flatnonzero(group_of_row == number)
        inside = Counter(word for place in group_rows for word in rows[place])
        n, others = len(group_rows), len(rows) - len(group_rows)
        scores = {
            word: np.log((count + 1) / (n + 2) / ((total_counts[word] - count + 1) / (others + 2)))
            * np.sqrt(count)
            for word, count in inside.items()
            if count >= 2 and not word.isdigit()
        }
        ranked = sorted(scores, key=lambda word: (-scores[word], word))
        terms.append(tuple(word for word in ranked[:TERMS] if scores[word] > 0))
    return terms
