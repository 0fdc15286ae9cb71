"""The search for slices: of all simple conditions that the rows suggest, and pairs of them, find
those with the most errors, after shrinkage and merging; at most twenty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from holdfast.analyses.slices.conditions import (
    FORMS,
    Both,
    Category,
    Condition,
    HasWords,
    Language,
    Length,
    NumberRange,
    RowFacts,
    TextForm,
    Topic,
    as_category,
)
from holdfast.analyses.slices.topics import partition, terms_of
from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import derive_seed

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

# Smallest and largest share of the rows in a slice. No test could confirm fewer rows.
MIN_SHARE, MAX_SHARE, MIN_ROWS = 0.02, 0.5, 8
QUANTILE_SHARES = (0.05, 0.1, 0.2, 0.25, 0.5)
BINS = 5
# A column with more distinct values than this, most of them numbers, is numeric.
MIN_DISTINCT_NUMBERS = 8
MAX_VALUES = 200
TOPICS = (4, 6, 8, 10, 12, 16, 20)
# Clusters depend on chance, and each partition brings others.
PARTITIONS_PER_SIZE = 3
# Rows that a topic should have on average.
ROWS_A_TOPIC = 15
MAX_CANDIDATES = 20
# Prior standard deviation of the differences between slices: ten points of a rate, a quarter of a
# standard deviation of a number.
SPREAD, SPREAD_OF_NUMBERS = 0.1, 0.25
# How many conditions are paired, and how much worse a pair must be than each of its two conditions.
PAIRED_CONDITIONS, MIN_PAIR_Z = 60, 2.5
# Of two slices that share this much of their rows (of both, or of the smaller) one is enough.
MAX_JACCARD, MAX_CONTAINED = 0.5, 0.6
MIN_SCORE = 1.0
# Topics that share this much of their rows, and have this much of the best one's score, count as
# versions of one topic; the one most similar to all of them represents them.
TOPIC_OVERLAP, TOPIC_SCORE_SHARE = 0.3, 0.7
# Factor of the score of a topic or a pair, compared with a simple condition.
TOPIC_WEIGHT, PAIR_WEIGHT = 0.97, 0.9


def min_rows(n: int) -> int:
    """The smallest number of rows of a slice, of ``n`` rows."""
    return max(MIN_ROWS, int(np.ceil(MIN_SHARE * n)))


def atoms(facts: RowFacts, seed: int) -> list[Condition]:
    """Simple conditions that these rows suggest: lengths at quantiles, forms, languages, words
    and pairs of words, values and ranges of the other columns, topics."""
    conditions: list[Condition] = []
    if facts.texts is not None:
        conditions += [*_lengths(facts), *(TextForm(name) for name in FORMS)]
        conditions += [*_languages(facts), *_grams(facts)]
    for name in facts.columns:
        conditions += _column(facts, name)
    return [*conditions, *_topics(facts, seed)]


def _lengths(facts: RowFacts) -> Iterator[Condition]:
    for low, high in _ends(facts.lengths):
        yield Length(None if low is None else int(low), None if high is None else int(high))


def _languages(facts: RowFacts) -> Iterator[Condition]:
    foreign = TextForm("a letter beyond ASCII").holds(facts)
    # Loading the language identifier takes longer than the rest of the search.
    if foreign.sum() < min_rows(len(facts)):
        return
    counts = Counter(code for code in facts.languages if code)
    if len(counts) > 1:
        yield from (Language(code) for code in sorted(counts))


def _grams(facts: RowFacts) -> Iterator[Condition]:
    rows_with = Counter(gram for row in facts.grams for gram in row)
    low, high = min_rows(len(facts)), MAX_SHARE * len(facts)
    yield from (HasWords(gram) for gram in sorted(rows_with) if low <= rows_with[gram] <= high)


def _column(facts: RowFacts, name: str) -> Iterator[Condition]:
    cells = [as_category(cell) for cell in facts.columns[name]]
    counts = Counter(cells)
    if len(counts) < 2:
        return
    numbers = facts.numbers(name)
    n_filled = sum(cell is not None for cell in cells)
    if np.isfinite(numbers).sum() >= 0.95 * n_filled and len(counts) > MIN_DISTINCT_NUMBERS:
        if counts[None]:
            yield Category(name, None)
        yield from (
            NumberRange(name, low, high) for low, high in _ends(numbers[np.isfinite(numbers)])
        )
        return
    frequent = [value for value, n in counts.most_common(MAX_VALUES) if n >= min_rows(len(facts))]
    yield from (Category(name, value) for value in sorted(frequent, key=str))


def _ends(values: np.ndarray) -> Iterator[tuple[float | None, float | None]]:
    """Ranges at quantiles: the lowest and highest shares, and five parts of equal size."""
    if not len(values):
        return
    ordered = np.sort(values)
    cut = {share: ordered[int(np.ceil(share * len(ordered))) - 1] for share in QUANTILE_SHARES}
    top = {
        share: ordered[len(ordered) - int(np.ceil(share * len(ordered)))]
        for share in QUANTILE_SHARES
    }
    ranges: list[tuple[float | None, float | None]] = [(None, cut[s]) for s in QUANTILE_SHARES]
    ranges += [(top[s], None) for s in QUANTILE_SHARES]
    inner = [ordered[int(k * len(ordered) / BINS)] for k in range(1, BINS)]
    for low, high in pairwise(inner):
        below = ordered[ordered < high]
        if len(below) and below[-1] >= low:
            ranges.append((low, below[-1]))
    yield from dict.fromkeys(ranges)


def _topics(facts: RowFacts, seed: int) -> Iterator[Condition]:
    space = facts.space
    if space is None or not len(space):
        return
    for k in TOPICS:
        if k * ROWS_A_TOPIC > len(space):
            return
        for repeat in range(PARTITIONS_PER_SIZE):
            topic_partition = partition(space, k, derive_seed(seed, "topics", k, repeat))
            yield from named_topics(topic_partition, facts)


def named_topics(topic_partition: KMeans, facts: RowFacts) -> Sequence[Topic]:
    """A condition for each topic, with the terms that distinguish it from the others."""
    topic_of_row, k = facts.topic_of(topic_partition), topic_partition.n_clusters
    terms = [()] * k if facts.texts is None else terms_of(facts.words, topic_of_row, k)
    return [Topic(topic_partition, number, terms[number]) for number in range(k)]


@dataclass(frozen=True, slots=True)
class SliceCandidate:
    """A condition to test, with its evidence from the search: on how many validation rows it holds
    (``n``), their mean error (``value``), its shrunken difference from the other rows
    (``shrunken``), and the ``score`` that ranks candidates."""

    condition: Condition
    n: int
    value: float
    shrunken: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class ConditionPool:
    """Simple conditions with the masks of the validation rows for which they hold, [k, n]."""

    conditions: tuple[Condition, ...]
    masks: Bools


def pool_of(facts: RowFacts, seed: int) -> ConditionPool:
    """The conditions that these rows suggest, without a look at any error: those with a sensible
    share of the rows. Of conditions with the same rows the first is kept."""
    distinct: dict[bytes, tuple[Condition, Bools]] = {}
    low, high = min_rows(len(facts)), MAX_SHARE * len(facts)
    for condition in atoms(facts, seed):
        mask = condition.holds(facts)
        if low <= int(mask.sum()) <= high:
            distinct.setdefault(np.packbits(mask).tobytes(), (condition, mask))
    masks = np.array([mask for _, mask in distinct.values()], dtype=np.bool_).reshape(
        -1, len(facts)
    )
    return ConditionPool(tuple(one for one, _ in distinct.values()), masks)


def search(
    pool: ConditionPool, values: Floats, *, groups: Ints | None = None, min_score: float = MIN_SCORE
) -> tuple[SliceCandidate, ...]:
    """Candidates among the conditions of a pool, best first.

    values : [n], 1 for a wrong row and 0 for a correct one, or any numbers of which more is worse;
        NaN for a row without a prediction.
    groups : [n] whole numbers, where rows are not independent draws.

    The score of a condition with m of n rows is z · m ÷ (m + s² ÷ τ²): z the standardised
    difference of its mean from that of all rows (the permutation variance; with groups at least
    that of the sums over groups), s² the variance of the values, and τ the prior standard deviation
    of differences (0.1 for a rate). It is the z that a test on as many new rows is expected to
    give, under a normal prior.

    Pairs of the best conditions are tried, and kept if they are clearly worse than each of the two.
    In order of rank, a condition is left out if it has nearly the rows of one before it, or if its
    rows are worse only where one before it holds.
    """
    usable = np.flatnonzero(np.isfinite(values))
    values, masks = values[usable], pool.masks[:, usable]
    groups = None if groups is None else groups[usable]
    if len(values) < 2 or float(values.std()) == 0 or not len(masks):
        return ()
    rating = _Rating(values, groups)
    simple = _RankedConditions(
        pool.conditions, masks, _weighted_scores(pool.conditions, masks, rating)
    )
    ranked = _with_pairs(simple, rating)
    return tuple(_candidate(ranked, k, rating) for k in _select_distinct(ranked, rating, min_score))


@dataclass(frozen=True, slots=True, eq=False)
class _RankedConditions:
    """Conditions with their rows [k, n] and scores [k]."""

    conditions: tuple[Condition, ...]
    masks: Bools
    scores: Floats

    def best(self, count: int) -> list[int]:
        order = np.argsort(-self.scores, kind="stable")
        return [int(k) for k in order[:count]]

    def extended(
        self, pairs: Sequence[tuple[Condition, Bools]], rating: _Rating
    ) -> _RankedConditions:
        """These conditions followed by more."""
        if not pairs:
            return self
        new = np.array([mask for _, mask in pairs], dtype=np.bool_)
        conditions = tuple(condition for condition, _ in pairs)
        return _RankedConditions(
            (*self.conditions, *conditions),
            np.concatenate([self.masks, new]),
            np.concatenate([self.scores, _weighted_scores(conditions, new, rating)]),
        )


def _weighted_scores(conditions: Sequence[Condition], masks: Bools, rating: _Rating) -> Floats:
    """Scores, lowered a little for conditions that take more words: of two nearly equal slices the
    simpler one is named."""
    weights = {"topic": TOPIC_WEIGHT, "both": PAIR_WEIGHT}
    return np.asarray(rating.scores(masks) * [weights.get(one.kind, 1.0) for one in conditions])


class _Rating:
    """Scores slices by the errors of their rows."""

    def __init__(self, values: Floats, groups: Ints | None) -> None:
        self.values = np.asarray(values, dtype=np.float64)
        self.groups = groups
        self.residuals = self.values - self.values.mean()
        self.variance = float(self.values.var(ddof=1))
        rate = bool(np.isin(values, (0.0, 1.0)).all())
        spread = SPREAD**2 if rate else SPREAD_OF_NUMBERS**2 * self.variance
        self.prior = self.variance / spread

    def z(self, masks: Bools) -> Floats:
        """Standardised differences of the means of [k, n] masks' rows from the mean of all."""
        n, counts = len(self.values), masks.sum(axis=1).astype(np.float64)
        sums = masks.astype(np.float64) @ self.residuals
        variance = counts * (1 - counts / n) * self.variance
        if self.groups is not None:
            variance = np.maximum(variance, self._group_variance(masks, counts / n, self.groups))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(variance > 0, sums / np.sqrt(variance), 0.0)

    def _group_variance(self, masks: Bools, shares: Floats, groups: Ints) -> Floats:
        codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
        variances = np.zeros(len(masks))
        for k, (mask, share) in enumerate(zip(masks, shares, strict=True)):
            sums = np.bincount(codes, weights=(mask - share) * self.residuals)
            variances[k] = (sums**2).sum()
        return variances

    def scores(self, masks: Bools) -> Floats:
        counts = masks.sum(axis=1)
        return np.asarray(self.z(masks) * counts / (counts + self.prior))

    def score_outside(self, mask: Bools, without: Bools) -> float:
        """Score of the rows of ``mask`` outside another slice, against all rows outside it."""
        rest = ~without
        part = mask & rest
        m, n = int(part.sum()), int(rest.sum())
        if m == 0 or m == n:
            return 0.0
        z = (self.values[part].mean() - self.values[rest].mean()) / np.sqrt(
            self.variance * (1 / m - 1 / n)
        )
        return float(z * m / (m + self.prior))


def _with_pairs(ranked: _RankedConditions, rating: _Rating) -> _RankedConditions:
    """All conditions, and those pairs of the best that are clearly worse than each of the two."""
    best = ranked.best(PAIRED_CONDITIONS)
    masks = ranked.masks[best]
    float_masks = masks.astype(np.float64)
    counts, sums = float_masks @ float_masks.T, (float_masks * rating.residuals) @ float_masks.T
    sizes, total_sums = np.diag(counts)[:, None], np.diag(sums)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = sizes - counts
        gap = sums / counts - (total_sums - sums) / rest
        z = gap / np.sqrt(rating.variance * (1 / counts + 1 / rest))
    worse = np.nan_to_num(np.minimum(z, z.T), nan=-np.inf) >= MIN_PAIR_Z
    worse &= counts >= min_rows(ranked.masks.shape[1])
    names = [ranked.conditions[k] for k in best]
    index_pairs = [
        (int(a), int(b))
        for a, b in zip(*np.nonzero(np.triu(worse, 1)), strict=True)
        if _can_combine(names[int(a)], names[int(b)])
    ]
    pairs = [(Both(names[a], names[b]), masks[a] & masks[b]) for a, b in index_pairs]
    return ranked.extended(pairs, rating)


def _can_combine(one: Condition, other: Condition) -> bool:
    """Two ranges of one column, or two topics, add nothing to each other."""
    if one.kind != other.kind:
        return True
    if one.kind == "column":
        return bool(one.column != other.column)  # type: ignore[attr-defined]
    return one.kind in ("words", "form")


def _select_distinct(pool: _RankedConditions, rating: _Rating, min_score: float) -> list[int]:
    selected: list[int] = []
    for k in pool.best(len(pool.conditions)):
        if len(selected) == MAX_CANDIDATES or pool.scores[k] < min_score:
            break
        if not any(_is_redundant(pool.masks[k], pool.masks[other], rating) for other in selected):
            selected.append(_central_topic(pool, k) if pool.conditions[k].kind == "topic" else k)
    return selected


def _central_topic(pool: _RankedConditions, best: int) -> int:
    """Of the topics that are versions of the best one, the one most similar to all of them: which
    of many partitions cuts slightly better is chance."""
    topics = np.array([one.kind == "topic" for one in pool.conditions])
    near_topics = np.flatnonzero(topics & (pool.scores >= TOPIC_SCORE_SHARE * pool.scores[best]))
    masks = pool.masks[near_topics].astype(np.float64)
    shared = masks @ masks.T
    sizes = masks.sum(axis=1)
    jaccard = shared / (sizes[:, None] + sizes - shared)
    similar = jaccard[int(np.flatnonzero(near_topics == best)[0])] >= TOPIC_OVERLAP
    votes = np.where(similar, jaccard[:, similar] @ pool.scores[near_topics][similar], -np.inf)
    return int(near_topics[int(votes.argmax())])


def _is_redundant(mask: Bools, other: Bools, rating: _Rating) -> bool:
    """Whether a slice adds little to a better one."""
    shared = int((mask & other).sum())
    if shared == 0:
        return False
    either = int((mask | other).sum())
    if shared >= MAX_JACCARD * either or shared >= MAX_CONTAINED * int(mask.sum()):
        return True
    return rating.score_outside(mask, other) < MIN_SCORE


def _candidate(pool: _RankedConditions, k: int, rating: _Rating) -> SliceCandidate:
    mask = pool.masks[k]
    n = int(mask.sum())
    value = float(rating.values[mask].mean())
    above = value - float(rating.values[~mask].mean())
    shrunken = above * n / (n + rating.prior)
    return SliceCandidate(pool.conditions[k], n, value, shrunken, float(pool.scores[k]))
