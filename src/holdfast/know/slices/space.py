"""A space of texts that costs next to nothing: their words, weighed, in the main directions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.core.seeds import generator
from holdfast.enrich.texts.words import FUNCTION

DIRECTIONS = 50
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
        many = min(DIRECTIONS, len(words) - 1, len(kept) - 1)
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


def _main_directions(table: Any, many: int) -> Floats:
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
