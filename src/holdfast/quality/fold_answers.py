"""What rows say of each other: answers for every row from fits that had not seen it.

Two probes answer for labels, one on the vectors of a frozen model and one on the words. They err on
different rows, so that a weighted sum of their log-probabilities (a log opinion pool, Genest and
Zidek 1986) finds more wrong labels than either: average precision of 10 % exchanged labels at 1,600
rows, see ``benchmarks/labels.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.duplicates.vectors import Vectors
from holdfast.models.probes.logistic import first_softmax, fit_softmax, logits_of
from holdfast.models.probes.probe import FOLDS, Probe, choose_c, fit_probe, stratified_folds

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

REPEATS = 3
# C is the inverse variance of a prior, which does not hang on how many rows there are.
CHOSEN_BY = 1500
# From so many rows times classes one division is enough: what another brings is under a point.
MANY = 200_000
# The largest half-decades of C never won on unit-length vectors of several depths.
GRID = tuple(float(c) for c in 10.0 ** np.arange(-3.5, 0.1, 0.5))
WORDS_C = 3.0
# Two classes of five rows each: below that a fold teaches nothing.
LEAST_ROWS = 20
LEAST_IN_CLASS = 2
# A probability below e to the minus this is none.
FLOOR = -25.0


@dataclass(frozen=True)
class FoldLogProbabilities:
    """``log_p`` [n, C], log-probabilities of each row by fits on other rows, of all ``C`` classes;
    ``labels`` [n], −1 where there is none, which every fit answers. ``runs`` [r, n, C] are the
    single answers of each division that ``log_p`` is the pool of. ``weights`` are those of the
    vectors, of the words and, where there are any, of the tuned answers in it; ``c`` is the inverse
    penalty of the vectors' probe."""

    log_p: Floats
    labels: Ints
    runs: Floats
    weights: tuple[float, ...]
    c: float

    @property
    def known(self) -> Ints:
        """The positions of the rows that have a label."""
        return np.flatnonzero(self.labels >= 0)

    @property
    def losses(self) -> Floats:
        """−log p of each row's label [n], nats; NaN where there is none."""
        found = -self.log_p[np.arange(len(self.labels)), np.maximum(self.labels, 0)]
        return np.where(self.labels >= 0, found, np.nan)

    @property
    def right(self) -> float:
        """The share of labelled rows whose likeliest class is their label."""
        known = self.known
        return float((self.log_p[known].argmax(axis=1) == self.labels[known]).mean())


def cross_fit(
    vectors: Floats,
    texts: Sequence[str],
    labels: Ints,
    *,
    classes: int,
    seed: int,
    tuned: Floats | None = None,
) -> FoldLogProbabilities | None:
    """Answer every row by fits on the others: five folds, divided in three ways.

    Both probes are L2-regularised multinomial logistic regressions; C of the vectors' probe is
    chosen once by cross-validated log loss (of 1,500 rows at most), that of the words' is 3. The
    weights of their log-probabilities minimise the out-of-fold log loss of the pool: two numbers
    fitted to n rows, or three with ``tuned``.

    Parameters
    ----------
    vectors, texts, labels : [n, d] finite numbers, n texts, [n] classes; −1 for no label.
    classes : how many there are, of which some may have no row.
    tuned : [n, classes] log-probabilities by a tuned model that had not seen the row.

    ``None`` where fewer than 20 rows have a label, or fewer than two classes two rows.
    """
    marks = np.asarray(labels)
    known = np.flatnonzero(marks >= 0)
    present = np.bincount(marks[known], minlength=classes) >= LEAST_IN_CLASS
    if len(known) < LEAST_ROWS or present.sum() < 2:
        return None
    x, words = scaled(vectors), word_features(texts)
    c = penalty(x, marks, known, seed)
    by_vectors, by_words = [], []
    for repeat in range(REPEATS if len(known) * classes <= MANY else 1):
        folds = np.full(len(marks), -1)
        folds[known] = stratified_folds(marks[known], FOLDS, seed + repeat)
        by_vectors.append(_by_folds(x, marks, folds, classes, c))
        by_words.append(_by_folds(words, marks, folds, classes, WORDS_C))
    sources = np.stack([by_vectors, by_words])
    if tuned is not None:
        known_twice = np.maximum(log_softmax(np.asarray(tuned, dtype=np.float64)), FLOOR)
        sources = np.concatenate([sources, np.stack([[known_twice] * len(by_vectors)])])
    means = sources.mean(axis=1)
    weights = pool_weights(means[:, known], marks[known])
    runs = log_softmax(np.tensordot(weights, sources, axes=1))
    pooled = log_softmax(np.tensordot(weights, means, axes=1))
    return FoldLogProbabilities(pooled, marks, runs, tuple(weights.tolist()), c)


def penalty(x: Floats, labels: Ints, known: Ints, seed: int) -> float:
    """The inverse penalty of a probe of the rows at ``known``: by the log loss of 1,500 of them."""
    some = generator(seed, "penalty").permutation(known)[:CHOSEN_BY]
    return choose_c(x[some], np.unique(labels[some], return_inverse=True)[1], seed, GRID).c


def scaled(vectors: Floats) -> npt.NDArray[np.float64]:
    """Centred and divided by the root of their mean variance, as a probe has them."""
    rows = np.asarray(vectors, dtype=np.float64)
    rows = rows - rows.mean(axis=0)
    return np.asarray(rows / (float(np.sqrt(rows.var(axis=0).mean())) or 1.0), dtype=np.float64)


def probe_logits(x: Any, y: Ints, held: Any, classes: int, c: float) -> Floats:
    """Logits [held, C] of a probe; near enough to its minimum for comparing losses."""
    present, short = np.unique(y, return_inverse=True)
    table = fit_softmax(x, short, c, first_softmax(x, short), tolerance=3e-4, steps=100)
    # A class without rows here is as if half a row of them had been seen.
    logits = np.full((held.shape[0], classes), -np.log(2 * len(y)))
    logits[:, present] = log_softmax(logits_of(table, held))
    return logits


def _by_folds(x: Any, labels: Ints, folds: Ints, classes: int, c: float) -> Floats:
    """Log-probabilities [n, C]: of a row of a fold by the fit without the fold; of any other (it
    has no label, or is the only one of its class) by the pool of all fits that lack it."""
    answers = np.zeros((len(labels), classes))
    outside = np.flatnonzero(folds < 0)
    single = outside[labels[outside] >= 0]
    for fold in range(FOLDS):
        # The only row of its class would be answered by a fit on itself.
        taught = np.flatnonzero((folds >= 0) & (folds != fold))
        held = np.flatnonzero(folds == fold)
        if not len(held) or not len(taught):
            continue
        asked = np.concatenate([held, outside])
        logits = np.maximum(
            log_softmax(probe_logits(x[taught], labels[taught], x[asked], classes, c)), FLOOR
        )
        answers[held] = logits[: len(held)]
        answers[outside] += logits[len(held) :] / FOLDS
    answers[single] = np.maximum(answers[single], FLOOR)
    return log_softmax(answers)


def pool_weights(sources: Floats, labels: Ints) -> Floats:
    """The weights w ≥ 0 [s] of the least mean −log softmax(Σ w_i · sources_i)[label]; ``sources``
    [s, n, C] log-probabilities, labels [n]. The problem is convex; by L-BFGS."""
    from scipy.optimize import minimize

    at = np.arange(len(labels))

    def value(weights: Floats) -> tuple[float, Floats]:
        log_p = log_softmax(np.tensordot(weights, sources, axes=1))
        expected = (np.exp(log_p) * sources).sum(axis=2)
        slope = (expected - sources[:, at, labels]).mean(axis=1)
        return float(-log_p[at, labels].mean()), slope

    count = len(sources)
    start = np.full(count, 1 / count)
    found = minimize(value, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 10.0)] * count)
    return np.asarray(found.x)


def log_softmax(logits: Floats) -> Floats:
    """Logits less the logarithm of the sum of their exponentials, over the last axis."""
    top = logits.max(axis=-1, keepdims=True)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))


# Words and word pairs; a mark is a word of its own, as it may be what decides.
_PARTS = re.compile(r"\w+|[^\w\s]")
LEAST_ROWS_WITH_WORD = 2
MOST_WORDS = 50_000
# Of a long text the beginning says what it is about; a novel in a cell takes no minutes.
MOST_PARTS = 2000


def word_features(texts: Sequence[str]) -> csr_matrix:
    """Weights of words and of pairs of neighbouring words [n, words], each row of length 1.

    A weight is (1 + log count in the text) · (1 + log((1 + n) ÷ (1 + texts that have it))), as
    scikit-learn's ``TfidfVectorizer(sublinear_tf=True)`` has it. What stands in fewer than two
    texts is left out, and all but the 50,000 most frequent. Case is no matter.
    """
    from scipy.sparse import csr_matrix

    counted = [_parts(text) for text in texts]
    rows_with = Counter(part for row in counted for part in row)
    kept = [part for part, n in rows_with.items() if n >= LEAST_ROWS_WITH_WORD]
    if len(kept) > MOST_WORDS:
        kept = sorted(kept, key=lambda part: (-rows_with[part], part))[:MOST_WORDS]
    place = {part: at for at, part in enumerate(kept)}
    rarity = 1 + np.log((1 + len(texts)) / (1 + np.array([rows_with[part] for part in kept])))
    columns, counts, ends = [], [], [0]
    for row in counted:
        known = [(place[part], n) for part, n in row.items() if part in place]
        columns += [at for at, _ in known]
        counts += [n for _, n in known]
        ends.append(len(columns))
    at = np.asarray(columns, dtype=np.int32)
    weights = (1 + np.log(np.asarray(counts, dtype=np.float64))) * rarity[at]
    table = csr_matrix((weights, at, np.asarray(ends)), shape=(len(texts), max(1, len(kept))))
    lengths = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).reshape(-1))
    table.data /= np.repeat(np.maximum(lengths, 1e-12), np.diff(table.indptr))
    return table


def _parts(text: str) -> Counter[str]:
    words = _PARTS.findall(text.casefold())[:MOST_PARTS]
    return Counter([*words, *map(" ".join, pairwise(words))])


PENALTY = 0.3
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ContentProbes:
    """One probe a fold, and the ``fold`` of each row [n]: −1 for a row that every probe may judge,
    as its label is not known or it is the only one of its class."""

    probes: tuple[Probe, ...]
    fold: Ints

    def chances(self, rows: Ints, vectors: Vectors) -> Array:
        """The probabilities [m, classes] of vectors [m, d] that stand for these rows, each by the
        probe that was fitted without the row."""
        from scipy.special import softmax

        logits = np.empty((len(rows), len(self.probes[0].bias)))
        folds = np.maximum(self.fold[rows], 0)
        for fold, probe in enumerate(self.probes):
            mine = folds == fold
            logits[mine] = probe.logits(vectors[mine])
        made: Array = softmax(logits, axis=1)
        return made

    def leaning(self, vectors: Vectors, labels: Ints, direction: Floats) -> Array:
        """Whether the labels put anything on a ``direction`` [d] of the space: a two-sided p-value
        for each class [classes].

        The weight that ridge regression gives the direction is a sum over rows aᵢ yᵢ, with a = X
        (XᵀX + λI)⁻¹ direction. Were the labels drawn anew, each with its expected chance p̂ᵢ, the
        sum would vary by √Σ aᵢ² p̂ᵢ(1 − p̂ᵢ). λ is the penalty of the probes at a logistic
        regression's largest curvature.
        """
        from scipy.special import ndtr

        known = np.flatnonzero(labels >= 0)
        x = scaled(vectors[known])
        inverse = np.linalg.solve(x.T @ x + 4 / PENALTY * np.eye(x.shape[1]), direction)
        shares = x @ inverse
        chances = self.chances(known, vectors[known])
        drawn = labels[known][:, None] == np.arange(chances.shape[1])
        error = np.sqrt((shares[:, None] ** 2 * chances * (1 - chances)).sum(axis=0))
        weight = np.abs(shares @ (drawn - drawn.mean(axis=0)))
        made: Array = 2 * ndtr(-weight / np.maximum(error, 1e-12))
        return made


def expect(vectors: Vectors, labels: Ints, classes: int, seed: int) -> ContentProbes | None:
    """Cross-fitted probes of the labels [n] on the vectors [n, d]; ``None`` where fewer than two
    classes have two rows."""
    known = np.flatnonzero(labels >= 0)
    folds: Ints = np.full(len(labels), -1, dtype=np.int64)
    folds[known] = stratified_folds(labels[known], FOLDS, seed)
    counts = np.bincount(labels[known], minlength=classes)
    if (counts >= 2).sum() < 2:
        return None
    probes = []
    for fold in range(FOLDS):
        part = known[folds[known] != fold]
        probes.append(fit_probe(vectors[part], labels[part], classes=classes, seed=seed, c=PENALTY))
    return ContentProbes(tuple(probes), folds)
