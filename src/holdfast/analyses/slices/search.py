"""The search: among all simple conditions that rows suggest, and pairs of them, those whose rows
are worst, shrunken, merged, at most twenty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from holdfast.analyses.slices.conditions import (
    FORMS,
    Both,
    Category,
    Condition,
    Holds,
    Language,
    Length,
    NumberRange,
    RowFacts,
    TextForm,
    Topic,
    as_category,
)
from holdfast.analyses.slices.topics import Axes, Partition, partition, terms_of
from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

# Of the rows: what a slice has at least and at most. Fewer could be confirmed by no test.
LEAST, MOST, LEAST_ROWS = 0.02, 0.5, 8
SHARES = (0.05, 0.1, 0.2, 0.25, 0.5)
BINS = 5
# A column of more different values, most of them numbers, is a number.
FEW_NUMBERS = 8
MOST_VALUES = 200
TOPICS = (4, 6, 8, 10, 12, 16, 20)
# Parts hang on chance, and each way to divide brings others.
TIMES = 3
# A topic should have as many rows on average.
ROWS_A_TOPIC = 15
MOST_CANDIDATES = 20
# What differences of slices are taken to spread by before anything is seen: ten points of a rate, a
# quarter of a standard deviation of a number.
SPREAD, SPREAD_OF_NUMBERS = 0.1, 0.25
# Conditions of which pairs are made, and how much worse a pair must be than either of its parts.
PAIRED, CLEARLY = 60, 2.5
# Of two slices that share so much of their rows (of both, or of the smaller) one is enough.
ALIKE, INSIDE = 0.5, 0.6
LEAST_SCORE = 1.0
# Topics that share so much of their rows, and have so much of the best one's score, are readings of
# one; the one that is most like all of them stands for them.
READINGS, NEARLY = 0.3, 0.7
# What a topic or a pair is worth beside a plain condition.
TOPIC, PAIR = 0.97, 0.9


def least_rows(n: int) -> int:
    """How many of ``n`` rows a slice has at least."""
    return max(LEAST_ROWS, int(np.ceil(LEAST * n)))


def atoms(facts: RowFacts, seed: int) -> list[Condition]:
    """Conditions of depth 1 that these rows suggest: lengths at quantiles, forms, languages, words
    and pairs of words, values and ranges of the side columns, topics."""
    found: list[Condition] = []
    if facts.texts is not None:
        found += [*_lengths(facts), *(TextForm(name) for name in FORMS)]
        found += [*_languages(facts), *_grams(facts)]
    for name in facts.columns:
        found += _column(facts, name)
    return [*found, *_topics(facts, seed)]


def _lengths(facts: RowFacts) -> Iterator[Condition]:
    for low, high in _ends(facts.lengths):
        yield Length(None if low is None else int(low), None if high is None else int(high))


def _languages(facts: RowFacts) -> Iterator[Condition]:
    foreign = TextForm("a letter beyond ASCII").holds(facts)
    # Loading what tells languages apart takes longer than the rest of the search.
    if foreign.sum() < least_rows(len(facts)):
        return
    known = Counter(code for code in facts.languages if code)
    if len(known) > 1:
        yield from (Language(code) for code in sorted(known))


def _grams(facts: RowFacts) -> Iterator[Condition]:
    rows_with = Counter(gram for row in facts.grams for gram in row)
    low, high = least_rows(len(facts)), MOST * len(facts)
    yield from (Holds(gram) for gram in sorted(rows_with) if low <= rows_with[gram] <= high)


def _column(facts: RowFacts, name: str) -> Iterator[Condition]:
    cells = [as_category(cell) for cell in facts.columns[name]]
    known = Counter(cells)
    if len(known) < 2:
        return
    numbers = facts.numbers(name)
    given = sum(cell is not None for cell in cells)
    if np.isfinite(numbers).sum() >= 0.95 * given and len(known) > FEW_NUMBERS:
        if known[None]:
            yield Category(name, None)
        yield from (
            NumberRange(name, low, high) for low, high in _ends(numbers[np.isfinite(numbers)])
        )
        return
    often = [value for value, n in known.most_common(MOST_VALUES) if n >= least_rows(len(facts))]
    yield from (Category(name, value) for value in sorted(often, key=str))


def _ends(values: np.ndarray) -> Iterator[tuple[float | None, float | None]]:
    """Ranges at quantiles: the lowest and highest shares, and five parts of even size."""
    if not len(values):
        return
    ordered = np.sort(values)
    cut = {share: ordered[int(np.ceil(share * len(ordered))) - 1] for share in SHARES}
    top = {share: ordered[len(ordered) - int(np.ceil(share * len(ordered)))] for share in SHARES}
    found: list[tuple[float | None, float | None]] = [(None, cut[s]) for s in SHARES]
    found += [(top[s], None) for s in SHARES]
    inner = [ordered[int(k * len(ordered) / BINS)] for k in range(1, BINS)]
    for low, high in pairwise(inner):
        below = ordered[ordered < high]
        if len(below) and below[-1] >= low:
            found.append((low, below[-1]))
    yield from dict.fromkeys(found)


def _topics(facts: RowFacts, seed: int) -> Iterator[Condition]:
    space = facts.space
    if space is None or not len(space):
        return
    axes = Axes.of(space)
    if not axes.directions.shape[1]:
        return
    for k in TOPICS:
        if k * ROWS_A_TOPIC > len(space):
            return
        for again in range(TIMES):
            made = partition(space, k, generator(seed, "topics", k, again), axes)
            yield from named_topics(made, facts)


def named_topics(made: Partition, facts: RowFacts) -> Sequence[Topic]:
    """A condition for each part, with the terms that tell it from the others."""
    of = facts.topic_of(made)
    if facts.texts is None:
        terms: list[tuple[str, ...]] = [()] * len(made)
    else:
        terms = terms_of(facts.words, of, len(made))
    return [Topic(made, number, terms[number]) for number in range(len(made))]


@dataclass(frozen=True, slots=True)
class SliceCandidate:
    """A condition that is to be tested, with what spoke for it: how many of the finding rows it
    holds (``n``), their mean ``value``, what they are above the others by (``shrunken``), and the
    ``score`` by which candidates are ranked."""

    condition: Condition
    n: int
    value: float
    shrunken: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class ConditionPool:
    """Simple conditions with the finding rows that they hold, [k, n]."""

    conditions: tuple[Condition, ...]
    masks: Bools


def pool_of(facts: RowFacts, seed: int) -> ConditionPool:
    """What may be asked of these rows, by the rows alone: no error has been looked at. Conditions
    with a sensible share of the rows; of those with the same rows the first."""
    kept: dict[bytes, tuple[Condition, Bools]] = {}
    low, high = least_rows(len(facts)), MOST * len(facts)
    for condition in atoms(facts, seed):
        mask = condition.holds(facts)
        if low <= int(mask.sum()) <= high:
            kept.setdefault(np.packbits(mask).tobytes(), (condition, mask))
    masks = np.array([mask for _, mask in kept.values()], dtype=np.bool_).reshape(-1, len(facts))
    return ConditionPool(tuple(one for one, _ in kept.values()), masks)


def search(
    pool: ConditionPool, values: Floats, *, groups: Ints | None = None, least: float = LEAST_SCORE
) -> tuple[SliceCandidate, ...]:
    """Candidates among the conditions of a pool, best first.

    values : [n], 1 for a wrong row and 0 for a right one, or any numbers of which more is worse;
        NaN for a row of which nothing is known.
    groups : [n] whole numbers, where rows are no independent draws.

    The score of a condition with m of n rows is z · m ÷ (m + s² ÷ τ²): z the standardised
    difference of its mean from that of all rows (the permutation variance; with groups at least
    that of the sums over groups), s² the variance of the values, and τ what differences spread by
    (0.1 of a rate). It is the z that a test on as many new rows is expected to give, by a normal
    prior.

    Pairs of conditions are tried among the best and kept where they are clearly worse than each of
    their parts. Going down the ranking, a condition is left out that has nearly the rows of one
    before it, or whose rows are worse only where one before it holds.
    """
    usable = np.flatnonzero(np.isfinite(values))
    values, masks = values[usable], pool.masks[:, usable]
    groups = None if groups is None else groups[usable]
    if len(values) < 2 or float(values.std()) == 0 or not len(masks):
        return ()
    rating = _Rating(values, groups)
    simple = _Ranked(pool.conditions, masks, _liked(pool.conditions, masks, rating))
    ranked = _with_pairs(simple, rating)
    return tuple(_candidate(ranked, k, rating) for k in _merged(ranked, rating, least))


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """Conditions with their rows [k, n] and scores [k]."""

    conditions: tuple[Condition, ...]
    masks: Bools
    scores: Floats

    def best(self, count: int) -> list[int]:
        order = np.argsort(-self.scores, kind="stable")
        return [int(k) for k in order[:count]]

    def also(self, found: Sequence[tuple[Condition, Bools]], rating: _Rating) -> _Ranked:
        """With more conditions behind these."""
        if not found:
            return self
        new = np.array([mask for _, mask in found], dtype=np.bool_)
        named = tuple(condition for condition, _ in found)
        return _Ranked(
            (*self.conditions, *named),
            np.concatenate([self.masks, new]),
            np.concatenate([self.scores, _liked(named, new, rating)]),
        )


def _liked(conditions: Sequence[Condition], masks: Bools, rating: _Rating) -> Floats:
    """Scores, a little less for what takes more words to say: of two that are nearly the same slice
    the plainer one is named."""
    worth = {"topic": TOPIC, "both": PAIR}
    return np.asarray(rating.scores(masks) * [worth.get(one.kind, 1.0) for one in conditions])


class _Rating:
    """The score of rows, by what is bad about them."""

    def __init__(self, values: Floats, groups: Ints | None) -> None:
        self.values = np.asarray(values, dtype=np.float64)
        self.groups = groups
        self.residuals = self.values - self.values.mean()
        self.variance = float(self.values.var(ddof=1))
        rate = bool(np.isin(values, (0.0, 1.0)).all())
        spread = SPREAD**2 if rate else SPREAD_OF_NUMBERS**2 * self.variance
        self.prior = self.variance / spread

    def z(self, masks: Bools) -> Floats:
        """Standardised differences of [k, n] rows' means from the mean of all."""
        n, counts = len(self.values), masks.sum(axis=1).astype(np.float64)
        sums = masks.astype(np.float64) @ self.residuals
        variance = counts * (1 - counts / n) * self.variance
        if self.groups is not None:
            variance = np.maximum(variance, self._of_groups(masks, counts / n, self.groups))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(variance > 0, sums / np.sqrt(variance), 0.0)

    def _of_groups(self, masks: Bools, shares: Floats, groups: Ints) -> Floats:
        codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
        found = np.zeros(len(masks))
        for k, (mask, share) in enumerate(zip(masks, shares, strict=True)):
            sums = np.bincount(codes, weights=(mask - share) * self.residuals)
            found[k] = (sums**2).sum()
        return found

    def scores(self, masks: Bools) -> Floats:
        counts = masks.sum(axis=1)
        return np.asarray(self.z(masks) * counts / (counts + self.prior))

    def left(self, mask: Bools, without: Bools) -> float:
        """Score of the rows of ``mask`` that are not in another slice, against all rows that are
        not."""
        rest = ~without
        part = mask & rest
        m, n = int(part.sum()), int(rest.sum())
        if m == 0 or m == n:
            return 0.0
        z = (self.values[part].mean() - self.values[rest].mean()) / np.sqrt(
            self.variance * (1 / m - 1 / n)
        )
        return float(z * m / (m + self.prior))


def _with_pairs(ranked: _Ranked, rating: _Rating) -> _Ranked:
    """The pairs of the best that are clearly worse than each of their parts, among the others."""
    best = ranked.best(PAIRED)
    masks = ranked.masks[best]
    plain = masks.astype(np.float64)
    counts, sums = plain @ plain.T, (plain * rating.residuals) @ plain.T
    alone, own = np.diag(counts)[:, None], np.diag(sums)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = alone - counts
        gap = sums / counts - (own - sums) / rest
        z = gap / np.sqrt(rating.variance * (1 / counts + 1 / rest))
    worse = np.nan_to_num(np.minimum(z, z.T), nan=-np.inf) >= CLEARLY
    worse &= counts >= least_rows(ranked.masks.shape[1])
    names = [ranked.conditions[k] for k in best]
    found = [
        (int(a), int(b))
        for a, b in zip(*np.nonzero(np.triu(worse, 1)), strict=True)
        if _fit(names[int(a)], names[int(b)])
    ]
    pairs = [(Both(names[a], names[b]), masks[a] & masks[b]) for a, b in found]
    return ranked.also(pairs, rating)


def _fit(one: Condition, other: Condition) -> bool:
    """Two ranges of one thing, or two topics, say nothing together that one does not."""
    if one.kind != other.kind:
        return True
    if one.kind == "column":
        return bool(one.column != other.column)  # type: ignore[attr-defined]
    return one.kind in ("words", "form")


def _merged(pool: _Ranked, rating: _Rating, least: float) -> list[int]:
    kept: list[int] = []
    for k in pool.best(len(pool.conditions)):
        if len(kept) == MOST_CANDIDATES or pool.scores[k] < least:
            break
        if not any(_told_by(pool.masks[k], pool.masks[other], rating) for other in kept):
            kept.append(_middle(pool, k) if pool.conditions[k].kind == "topic" else k)
    return kept


def _middle(pool: _Ranked, best: int) -> int:
    """Of the topics that are readings of the best one, the one that is most like all of them: which
    of many partitions cuts a little better is chance."""
    topics = np.array([one.kind == "topic" for one in pool.conditions])
    near = np.flatnonzero(topics & (pool.scores >= NEARLY * pool.scores[best]))
    masks = pool.masks[near].astype(np.float64)
    both = masks @ masks.T
    sizes = masks.sum(axis=1)
    alike = both / (sizes[:, None] + sizes - both)
    own = alike[int(np.flatnonzero(near == best)[0])] >= READINGS
    votes = np.where(own, alike[:, own] @ pool.scores[near][own], -np.inf)
    return int(near[int(votes.argmax())])


def _told_by(mask: Bools, other: Bools, rating: _Rating) -> bool:
    """Whether a slice says little that a better one has not said."""
    both = int((mask & other).sum())
    if both == 0:
        return False
    either = int((mask | other).sum())
    if both >= ALIKE * either or both >= INSIDE * int(mask.sum()):
        return True
    return rating.left(mask, other) < LEAST_SCORE


def _candidate(pool: _Ranked, k: int, rating: _Rating) -> SliceCandidate:
    mask = pool.masks[k]
    n = int(mask.sum())
    value = float(rating.values[mask].mean())
    above = value - float(rating.values[~mask].mean())
    shrunken = above * n / (n + rating.prior)
    return SliceCandidate(pool.conditions[k], n, value, shrunken, float(pool.scores[k]))
