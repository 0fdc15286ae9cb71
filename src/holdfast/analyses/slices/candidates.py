"""The simple conditions that rows suggest: which are worth asking about, before any error is
looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from holdfast.analyses.slices.conditions import (
    Category,
    Condition,
    Holds,
    Language,
    Length,
    NumberRange,
    TextForm,
    Topic,
    as_category,
)
from holdfast.analyses.slices.facts import FORMS, RowFacts
from holdfast.analyses.slices.topics import Axes, Partition, partition, terms_of
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
