"""The words and pairs of words that carry each class: candidates from what a model says of training
and validation rows, and the test that taking them out of test rows costs more than taking out
others of the same rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.analyses.analysis import Analysis, NoAnswer, Session
from holdfast.analyses.explain.explain import asked_text, texts_of
from holdfast.analyses.explain.masking import log_odds, rounded, words_of
from holdfast.contract.predictions import Predictions
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.quality.cues import (
    DOMINANT_CLASS_SHARE,
    MIN_PURITY,
    MIN_ROWS_WITH_WORD,
    is_in_class_name,
)
from holdfast.runs.predictor import Predictor
from holdfast.stats.paired_tests import paired_t, rows_needed_for_power
from holdfast.stats.two_samples import holm
from holdfast.tasks.classes.answers import TextPredictor

Words = tuple[str, ...]
MOST, FEATURES = 6, 600
LEAST_ROWS, LEAST_SHARE = 5, 0.02
# Test rows of each candidate: all signs of their differences are tried.
ROWS = 12
RIDGE = 5.0
# Beyond these odds a model that is surer says no more about its words.
SUREST = 6.0
LEVEL = 0.05
SAME_ROWS = 0.8
NOT_HERE = "words that carry a class are looked for where texts have classes or labels"
NOTHING = "no word stands in enough of the rows: five, and 2 % of them"
FALSE_ALARMS = {
    "share": 0.05,
    "what": "runs in which any of six candidates that are like other words would be confirmed, at "
    "most: the test is exact, and Holm's adjustment holds it for all of them together",
}


@dataclass(frozen=True, slots=True)
class WordCandidates:
    """The candidates, and how many rows they were looked for in."""

    found: tuple[WordCandidate, ...]
    rows: int


def find(session: Session) -> WordCandidates | NoAnswer:
    told = (session.train, session.valid)
    if "text" not in told[0].table.rows.column_names or told[0].probabilities is None:
        return NoAnswer(NOT_HERE)
    texts = [row for side in told for row in texts_of(side.table)]
    chances = np.concatenate([np.asarray(side.probabilities) for side in told])
    found = candidates(texts, chances, told[0].names, _labels(told))
    return WordCandidates(found, len(texts)) if found else NoAnswer(NOTHING)


def _labels(told: Sequence[Predictions]) -> Ints | None:
    """The class of each row, where it has one."""
    if any(not side.table.columns.one_class for side in told):
        return None
    return np.concatenate([np.asarray(side.table.column("label")) for side in told])


def confirm(searched: WordCandidates, session: Session, test: Predictions) -> dict[str, Any]:
    costs, others = [], []
    for one in searched.found:
        mine, theirs = costs_of(session.predictor, one, test.table)
        costs.append(mine)
        others.append(theirs)
    return {
        "rows_searched": searched.rows,
        "words": [one.to_json() for one in confirmed(searched.found, costs, others)],
        "false_alarms": FALSE_ALARMS,
    }


def costs_of(predictor: Predictor, one: WordCandidate, table: Table) -> tuple[Floats, Floats]:
    """By how much the log-odds of the candidate's class fall without its words, and without as many
    others of the same row, [n] of at most ``ROWS`` rows with them, the first in a fixed order."""
    use = predictor.model
    assert isinstance(use, TextPredictor)
    place = use.names.index(one.name)
    mine, theirs = [], []
    texts = texts_of(table)
    for at in _holding(one, texts):
        with predictor.alone():
            asked = asked_text(use, table, at)
            units = asked.read.parted.words(texts[at])
            taken = places_of(one.words, units)
            key = (" ".join(one.words), *texts[at])
            control = others_of(taken, len(units), generator(0, "other words", *key))
            if control is None:
                continue
            masks = np.ones((3, len(units)), dtype=bool)
            masks[1, taken], masks[2, control] = False, False
            outputs = asked.outputs(masks)
        sets = use.label_kind == "several"
        odds = outputs[:, place] if sets else log_odds(outputs, place)
        mine.append(float(odds[0] - odds[1]))
        theirs.append(float(odds[0] - odds[2]))
    return np.asarray(mine), np.asarray(theirs)


def _holding(one: WordCandidate, texts: Sequence[tuple[str, ...]]) -> list[int]:
    """Rows with the candidate's words, at most ``ROWS``."""
    order = generator(0, "rows of a word", *one.words).permutation(len(texts))
    found = []
    for at in order:
        row = texts[at]
        # Quick, before a text is taken apart.
        if all(word in " ".join(row).lower() for word in one.words) and one.words in grams(row):
            found.append(int(at))
        if len(found) == ROWS:
            break
    return sorted(found)


ANALYSIS = Analysis("words that carry a class", ("reasons",), find, confirm)


@dataclass(frozen=True, slots=True)
class WordCandidate:
    """``words`` that may carry the class ``name``: ``rows`` of those that were searched hold
    them. ``own`` is the share of the class's rows that do, and ``others`` that of all others;
    ``None`` where a row may have several labels."""

    name: str
    words: Words
    rows: int
    own: float | None = None
    others: float | None = None

    @property
    def gives_away(self) -> bool:
        """Whether nearly all rows of the class have the words, and next to no other row, though
        the class is not called so: a sign of how the rows were gathered, not of the class."""
        if self.own is None or self.others is None or self.rows < MIN_ROWS_WITH_WORD:
            return False
        named = any(is_in_class_name(self.name, word) for word in self.words)
        return self.own >= DOMINANT_CLASS_SHARE and self.others <= 1 - MIN_PURITY and not named

    def to_json(self) -> dict[str, Any]:
        found = {"class": self.name, "words": " ".join(self.words), "rows_searched": self.rows}
        shares = {"of_class": rounded(self.own), "of_others": rounded(self.others)}
        return found if self.own is None else {**found, **shares}


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """A candidate on test rows. ``costs`` [n] is by how much the log-odds of its class fall without
    its words, ``others`` [n] without as many others of the same row; ``p`` is Holm's."""

    candidate: WordCandidate
    costs: Floats
    others: Floats
    p: float
    rows_to_settle: int | None

    @property
    def confirmed(self) -> bool:
        return self.p <= LEVEL

    def to_json(self) -> dict[str, Any]:
        gap = paired_t(self.costs, self.others)
        found = len(self.costs) > 0
        return {
            **self.candidate.to_json(),
            "n": len(self.costs),
            "confirmed": self.confirmed,
            "gives_away": self.confirmed and self.candidate.gives_away,
            "p": rounded(self.p),
            "log_odds": rounded(float(self.costs.mean())) if found else None,
            "log_odds_of_others": rounded(float(self.others.mean())) if found else None,
            "difference": {
                "value": rounded(gap.value),
                "low": rounded(gap.low),
                "high": rounded(gap.high),
            },
            "rows_to_settle": self.rows_to_settle,
        }


def grams(texts: Sequence[str]) -> set[Words]:
    """The words of a row, in small letters, and each pair of neighbours."""
    found: set[Words] = set()
    for text in texts:
        before = ""
        for unit in words_of(text):
            word = text[unit.start : unit.stop].lower()
            if not any(letter.isalnum() for letter in word):
                before = ""
                continue
            found.add((word,))
            if before:
                found.add((before, word))
            before = word
    return found


def candidates(
    texts: Sequence[Sequence[str]],
    chances: Floats,
    names: Sequence[str],
    labels: Ints | None = None,
    most: int = MOST,
) -> tuple[WordCandidate, ...]:
    """The ``most`` candidates of rows [n] whose probabilities ``chances`` [n, names] a model gave,
    and whose classes are ``labels`` [n] where each has one:
    those of the largest coefficients, in the spread of their word, of one ridge regression of the
    log-odds on which words there are. Each class in turn, the strongest first; of words that stand
    in the same rows only one."""
    held = [grams(row) for row in texts]
    counts = Counter(gram for row in held for gram in row)
    least = max(LEAST_ROWS, round(LEAST_SHARE * len(held)))
    often = sorted((g for g, n in counts.items() if least <= n <= len(held) - least))
    often = sorted(often, key=lambda gram: -counts[gram])[:FEATURES]
    if not often:
        return ()
    column = {gram: place for place, gram in enumerate(often)}
    there = np.zeros((len(held), len(often)))
    for place, row in enumerate(held):
        there[place, [column[gram] for gram in row if gram in column]] = 1.0
    p = np.clip(np.asarray(chances, dtype=np.float64), 1e-9, 1 - 1e-9)
    odds = np.clip(np.log(p / (1 - p)), -SUREST, SUREST)
    x, y = there - there.mean(axis=0), odds - odds.mean(axis=0)
    weight = np.linalg.solve(x.T @ x + RIDGE * np.eye(len(often)), x.T @ y)
    strength = weight * there.std(axis=0)[:, None]
    ranked = [list(np.argsort(-strength[:, k], kind="stable")) for k in range(len(names))]
    order = sorted(range(len(names)), key=lambda k: -strength[:, k].max())
    chosen: list[tuple[int, int]] = []
    while len(chosen) < most and any(ranked):
        for k in order:
            best = _next(ranked[k], [one for one, _ in chosen], there)
            if best is not None and strength[best, k] > 0 and len(chosen) < most:
                chosen.append((best, k))
            else:
                ranked[k] = []
    return tuple(
        WordCandidate(names[k], often[g], counts[often[g]], *_shares(there[:, g], labels, k))
        for g, k in chosen
    )


def _shares(there: Floats, labels: Ints | None, k: int) -> Sequence[float | None]:
    if labels is None:
        return None, None
    sides = there[labels == k], there[labels != k]
    return [float(side.mean()) if len(side) else 0.0 for side in sides]


def _next(ranked: list[int], taken: Sequence[int], there: Floats) -> int | None:
    while ranked:
        place = ranked.pop(0)
        own = there[:, place] > 0
        overlaps = (
            (own & (there[:, one] > 0)).sum() / (own | (there[:, one] > 0)).sum() for one in taken
        )
        if all(share < SAME_ROWS for share in overlaps):
            return int(place)
    return None


def places_of(words: Words, units: Sequence[str]) -> Ints:
    """The units that are of any of the places where ``words`` stand one behind the other."""
    lowered = [unit.lower() for unit in units]
    found = [
        at + step
        for at in range(len(lowered) - len(words) + 1)
        if tuple(lowered[at : at + len(words)]) == words
        for step in range(len(words))
    ]
    return np.unique(np.asarray(found, dtype=np.int64))


def others_of(taken: Ints, units: int, rng: np.random.Generator) -> Ints | None:
    """As many other units, drawn at random; ``None`` where there are not so many."""
    left = np.setdiff1d(np.arange(units), taken)
    return rng.choice(left, len(taken), replace=False) if len(left) >= len(taken) > 0 else None


def confirmed(
    found: Sequence[WordCandidate], costs: Sequence[Floats], others: Sequence[Floats]
) -> tuple[Carried, ...]:
    """Each candidate on its test rows [n].

    Were its words like others of their rows, the two of each row might as well be exchanged: p is
    the share of all exchanges whose mean difference is as large (exact; Holm's over the
    candidates). ``rows_to_settle`` of one that is not confirmed says how many rows with it would
    settle a difference as large as the one that was seen, by a t-test, and be enough for exchanges
    to tell; ``None`` where there are as many.
    """
    p_values = holm(np.array([exchange_p(a - b) for a, b in zip(costs, others, strict=True)]))
    carried = []
    for one, mine, theirs, p in zip(found, costs, others, p_values, strict=True):
        gap, more = mine - theirs, None
        if p > LEVEL and len(gap) >= 2 and gap.mean() > 0:
            alpha = LEVEL / len(found)
            more = rows_needed_for_power(gap, float(gap.mean()), alpha=alpha)
            more = more and max(more, math.ceil(-math.log2(alpha)))
            more = None if more is None or more <= len(gap) else more
        carried.append(Carried(one, mine, theirs, float(p), more))
    return tuple(carried)


def exchange_p(gap: Floats) -> float:
    """The one-sided p-value of paired differences [n] with a mean of 0 or less: the share of all
    2ⁿ choices of their signs whose mean is as large (Fisher 1935). At most ``ROWS`` rows."""
    n = len(gap)
    if not n:
        return 1.0
    signs = 1 - 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)[None, :]) & 1)
    means = signs @ gap
    return float((means >= gap.sum() - 1e-9 * max(1.0, abs(gap).sum())).mean())
