"""Rows that come in pairs of different labels on one subject: a text and its rewritten form, a
human's and a machine's answer to one prompt, two hypotheses for one premise (*contrast sets*,
2004.02709; *counterfactually augmented data*, 1909.12434).

If a model is trained on one row of such a pair and predicts the other, the shared words suggest
the wrong label, and validation accuracy may fall below that of guessing. So both rows belong in the
same split and the same fold.

Two rows are a pair where each is the other's nearest neighbour by words. Ordinary neighbours have
different labels *less* often than two random rows; the rows of a rewritten pair nearly always do.
On ten data sets with 50 to 1,600 rows the one that consists of pairs was told from the others in
each of 170 cells (``benchmarks/pairs.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.duplicates.normalise import PAIR_MARK
from holdfast.duplicates.words import I64, RowTexts, read_texts

# More rows are not searched: so many that do come in pairs take seconds. The beginning of a long
# text shows its subject.
MAX_ROWS, MAX_CHARACTERS = 10_000, 8_000
# Rows whose neighbours decide whether the others' are searched, and similarities held at once.
SAMPLE, BLOCK = 1000, 10_000_000
UNSEARCHED = -2
LEAST_CLASS_ROWS = 8
# Level of the test that more than half of the neighbours are rewritten pairs.
LEVEL = 1e-3


@dataclass(frozen=True, slots=True)
class OppositePairs:
    """``first`` and ``second`` [pairs] are the positions of mutual nearest neighbours with
    different labels; ``neighbours`` counts the tested pairs of neighbours, of which ``different``
    have different labels, where ``expected`` is the share among pairs of random rows."""

    first: Ints
    second: Ints
    neighbours: int
    different: int
    expected: float

    def __len__(self) -> int:
        return len(self.first)

    def join(self, groups: I64, labels: Ints) -> I64:
        """The ``groups`` of rows [n], with the two rows of a pair in one: of pairs whose rows are
        alone in their groups, and whose ``labels`` [n] have eight rows or more, so that enough
        groups of a class are left to be dealt out."""
        alone = np.bincount(groups)[groups] == 1
        frequent = np.bincount(labels)[labels] >= LEAST_CLASS_ROWS
        free = alone & frequent
        pairs = free[self.first] & free[self.second]
        joined = groups.copy()
        joined[self.second[pairs]] = groups[self.first[pairs]]
        return joined


def opposite_pairs(texts: Sequence[str], labels: Ints) -> OppositePairs | None:
    """The pairs of ``texts`` [n] of different ``labels`` [n], or ``None`` where rows do not come in
    such pairs.

    They do where the share of different labels among mutual nearest neighbours, by the cosine
    similarity of the tf-idf weights of words, is significantly above (1 + q) ÷ 2, half-way between
    all of them and the share q among pairs of random rows (binomial test, p < 0.001). Above 1,000
    rows the test uses the neighbours of 1,000 of them. Equal texts count once, and more than 10,000
    rows are not searched. The result does not depend on the order of the rows.
    """
    by_text = sorted(range(len(texts)), key=lambda at: (texts[at], labels[at]))
    rows = np.array(
        [at for k, at in enumerate(by_text) if not k or texts[at] != texts[by_text[k - 1]]],
        dtype=np.int64,
    )
    counts = np.unique(labels[rows], return_counts=True)[1].astype(np.float64)
    if len(rows) > MAX_ROWS or len(counts) < 2:
        return None
    expected = float(1 - (counts * (counts - 1)).sum() / (len(rows) * (len(rows) - 1)))
    search = _Neighbours([texts[at] for at in rows])
    sample = np.arange(len(rows))
    if len(rows) > SAMPLE:
        sample = np.sort(generator(0, "opposite pairs").permutation(sample)[:SAMPLE])
    tested = search.mutual(sample)
    label = labels[rows]
    different = int((label[tested[0]] != label[tested[1]]).sum())
    if not _is_above((1 + expected) / 2, different, len(tested[0])):
        return None
    one, other = tested if len(rows) <= SAMPLE else search.mutual(np.arange(len(rows)))
    opposite = label[one] != label[other]
    first, second = rows[one[opposite]], rows[other[opposite]]
    return OppositePairs(
        np.minimum(first, second), np.maximum(first, second), len(tested[0]), different, expected
    )


def opposite_pairs_of(table: Table) -> OppositePairs | None:
    """``opposite_pairs`` of the rows of a table; ``None`` too where they are images, have not one
    class each, or are more than 10,000."""
    is_image = "path" in table.rows.column_names
    has_classes = table.columns.one_class and len(table.classes) > 1
    if is_image or not has_classes or len(table) > MAX_ROWS:
        return None
    labels = table.column("label")
    known = np.flatnonzero(labels >= 0)
    texts = [text.replace(PAIR_MARK, " ") for text in RowTexts(table)[:]]
    found = opposite_pairs([texts[at] for at in known.tolist()], labels[known])
    if found is None:
        return None
    return replace(found, first=known[found.first], second=known[found.second])


class _Neighbours:
    """Nearest neighbours by words among texts in a fixed order; ties go to the first."""

    def __init__(self, texts: Sequence[str]) -> None:
        from scipy.sparse import csr_matrix
        from sklearn.feature_extraction.text import TfidfTransformer

        words = read_texts([text[:MAX_CHARACTERS] for text in texts])
        shape = (len(texts), max(1, len(words.vocabulary)))
        counts = csr_matrix((np.ones(len(words.words)), words.words, words.starts), shape=shape)
        counts.sum_duplicates()
        self._vectors = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
        self._transposed = self._vectors.T.tocsr()
        self._known = np.full(len(texts), UNSEARCHED, dtype=np.int64)

    def mutual(self, rows: Ints) -> tuple[Ints, Ints]:
        """The pairs of mutual nearest neighbours of which one is among ``rows``, the lower position
        first, each pair once."""
        nearest = self._nearest(rows)
        found = nearest >= 0
        one, other = rows[found], nearest[found]
        mutual = self._nearest(other) == one
        pairs = np.sort(np.column_stack([one[mutual], other[mutual]]), axis=1)
        first, second = np.unique(pairs, axis=0).T
        return first, second

    def _nearest(self, rows: Ints) -> Ints:
        """The nearest other text of each of ``rows``, searched once; −1 for one that shares no
        word."""
        missing = np.unique(rows[self._known[rows] == UNSEARCHED])
        step = max(1, BLOCK // len(self._known))
        for at in range(0, len(missing), step):
            block = missing[at : at + step]
            similarity = (self._vectors[block] @ self._transposed).toarray()
            places = np.arange(len(block))
            similarity[places, block] = -1.0
            best = similarity.argmax(axis=1)
            self._known[block] = np.where(similarity[places, best] > 0, best, -1)
        return self._known[rows]


def _is_above(share: float, successes: int, n: int) -> bool:
    """Whether ``successes`` of ``n`` are significantly more than this share."""
    from scipy.special import bdtrc

    return successes > 0 and bool(bdtrc(successes - 1, n, share) < LEVEL)
