"""Influential words and pairs of words of each class: candidates from the predictions for training
and validation rows, and the test that removing them from test rows costs more than removing other
words of the same rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.analyses.analysis import Analysis, NoAnswer, Session
from holdfast.analyses.explain.explain import text_query, texts_of
from holdfast.analyses.explain.masking import log_odds, round_or_none, split_words
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
MAX_CANDIDATES, MAX_FEATURES = 6, 600
MIN_ROWS, MIN_SHARE = 5, 0.02
# Test rows per candidate: all sign changes of their differences are enumerated.
TEST_ROWS = 12
RIDGE = 5.0
# Larger log-odds say no more about the words.
MAX_LOG_ODDS = 6.0
LEVEL = 0.05
MAX_OVERLAP = 0.8
NOT_HERE = "influential words are searched for only in texts with classes or labels"
NO_WORDS = "images have no words; holdfast explain RUN IMAGES shows the regions that matter"
NOTHING = "no word is in enough of the rows: at least five, and 2 % of them"
FALSE_ALARMS = {
    "share": 0.05,
    "what": "runs in which any of six candidates without influence would be confirmed, at most: "
    "the test is exact, and Holm's adjustment covers all candidates together",
}


@dataclass(frozen=True, slots=True)
class WordCandidates:
    """The candidates, and the number of rows that were searched."""

    candidates: tuple[WordCandidate, ...]
    rows: int


def find(session: Session) -> WordCandidates | NoAnswer:
    # Out of fold, the validation rows are the training rows: each counts once.
    splits = (session.valid,) if session.out_of_fold else (session.train, session.valid)
    table = splits[0].table
    if table.has_images:
        return NoAnswer(NO_WORDS)
    if "text" not in table.rows.column_names or splits[0].probabilities is None:
        return NoAnswer(NOT_HERE)
    texts = [row for split in splits for row in texts_of(split.table)]
    probabilities = np.concatenate([np.asarray(split.probabilities) for split in splits])
    candidates = find_word_candidates(texts, probabilities, splits[0].names, _labels(splits))
    return WordCandidates(candidates, len(texts)) if candidates else NoAnswer(NOTHING)


def _labels(splits: Sequence[Predictions]) -> Ints | None:
    """The class of each row; ``None`` if rows may have several labels."""
    if any(not split.table.columns.one_class for split in splits):
        return None
    return np.concatenate([np.asarray(split.table.column("label")) for split in splits])


def confirm(searched: WordCandidates, session: Session, test: Predictions) -> dict[str, Any]:
    costs, other_costs = [], []
    for candidate in searched.candidates:
        word_costs, control_costs = removal_costs(session.predictor, candidate, test.table)
        costs.append(word_costs)
        other_costs.append(control_costs)
    return {
        "rows_searched": searched.rows,
        "words": [one.to_json() for one in confirm_words(searched.candidates, costs, other_costs)],
        "false_alarms": FALSE_ALARMS,
    }


def removal_costs(
    predictor: Predictor, candidate: WordCandidate, table: Table
) -> tuple[Floats, Floats]:
    """How much the log-odds of the candidate's class fall without its words, and without as many
    other words of the same row, [n] for at most ``TEST_ROWS`` rows with them, the first in a fixed
    order."""
    model = predictor.model
    assert isinstance(model, TextPredictor)
    class_index = model.names.index(candidate.name)
    word_costs, control_costs = [], []
    texts = texts_of(table)
    for at in _rows_with(candidate, texts):
        with predictor.alone():
            query = text_query(model, table, at)
            units = query.read.row_units.words(texts[at])
            removed = positions_of(candidate.words, units)
            key = (" ".join(candidate.words), *texts[at])
            control = draw_other_units(removed, len(units), generator(0, "other words", *key))
            if control is None:
                continue
            masks = np.ones((3, len(units)), dtype=bool)
            masks[1, removed], masks[2, control] = False, False
            outputs = query.outputs(masks)
        sets = model.label_kind == "several"
        odds = outputs[:, class_index] if sets else log_odds(outputs, class_index)
        word_costs.append(float(odds[0] - odds[1]))
        control_costs.append(float(odds[0] - odds[2]))
    return np.asarray(word_costs), np.asarray(control_costs)


def _rows_with(candidate: WordCandidate, texts: Sequence[tuple[str, ...]]) -> list[int]:
    """Rows with the candidate's words, at most ``TEST_ROWS``."""
    order = generator(0, "rows of a word", *candidate.words).permutation(len(texts))
    positions = []
    for at in order:
        row = texts[at]
        # A quick check before the text is split.
        if all(
            word in " ".join(row).lower() for word in candidate.words
        ) and candidate.words in word_ngrams(row):
            positions.append(int(at))
        if len(positions) == TEST_ROWS:
            break
    return sorted(positions)


ANALYSIS = Analysis("words that carry a class", ("reasons",), find, confirm)


@dataclass(frozen=True, slots=True)
class WordCandidate:
    """``words`` that may influence the class ``name``; ``rows`` of the searched rows contain them.
    ``class_share`` is the share of the class's rows that do, and ``other_share`` that of all
    others; ``None`` if a row may have several labels."""

    name: str
    words: Words
    rows: int
    class_share: float | None = None
    other_share: float | None = None

    @property
    def gives_away(self) -> bool:
        """Whether nearly all rows of the class have the words, and almost no other row, though
        the class name does not contain them: a sign of how the rows were collected (a shortcut)."""
        if self.class_share is None or self.other_share is None or self.rows < MIN_ROWS_WITH_WORD:
            return False
        named = any(is_in_class_name(self.name, word) for word in self.words)
        return (
            self.class_share >= DOMINANT_CLASS_SHARE
            and self.other_share <= 1 - MIN_PURITY
            and not named
        )

    def to_json(self) -> dict[str, Any]:
        block = {"class": self.name, "words": " ".join(self.words), "rows_searched": self.rows}
        shares = {
            "of_class": round_or_none(self.class_share),
            "of_others": round_or_none(self.other_share),
        }
        return block if self.class_share is None else {**block, **shares}


@dataclass(frozen=True, slots=True, eq=False)
class WordEffect:
    """A candidate on test rows. ``costs`` [n] is how much the log-odds of its class fall without
    its words, ``others`` [n] without as many other words of the same row; ``p`` is adjusted by
    Holm's procedure."""

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
        has_rows = len(self.costs) > 0
        return {
            **self.candidate.to_json(),
            "n": len(self.costs),
            "confirmed": self.confirmed,
            "gives_away": self.confirmed and self.candidate.gives_away,
            "p": round_or_none(self.p),
            "log_odds": round_or_none(float(self.costs.mean())) if has_rows else None,
            "log_odds_of_others": round_or_none(float(self.others.mean())) if has_rows else None,
            "difference": {
                "value": round_or_none(gap.value),
                "low": round_or_none(gap.low),
                "high": round_or_none(gap.high),
            },
            "rows_to_settle": self.rows_to_settle,
        }


def word_ngrams(texts: Sequence[str]) -> set[Words]:
    """The words of a row, in lowercase, and each pair of neighbours."""
    ngrams: set[Words] = set()
    for text in texts:
        previous = ""
        for unit in split_words(text):
            word = text[unit.start : unit.stop].lower()
            if not any(letter.isalnum() for letter in word):
                previous = ""
                continue
            ngrams.add((word,))
            if previous:
                ngrams.add((previous, word))
            previous = word
    return ngrams


def find_word_candidates(
    texts: Sequence[Sequence[str]],
    probabilities: Floats,
    names: Sequence[str],
    labels: Ints | None = None,
    limit: int = MAX_CANDIDATES,
) -> tuple[WordCandidate, ...]:
    """The ``limit`` candidates from rows [n] with the model's ``probabilities`` [n, names] and the
    classes ``labels`` [n], if each row has one. One ridge regression explains the log-odds by which
    words a row contains; candidates have the largest coefficients, times the standard deviation of
    their word. The classes take turns, the strongest first; of words in the same rows only one is
    kept."""
    row_ngrams = [word_ngrams(row) for row in texts]
    counts = Counter(gram for row in row_ngrams for gram in row)
    min_rows = max(MIN_ROWS, round(MIN_SHARE * len(row_ngrams)))
    frequent = sorted((g for g, n in counts.items() if min_rows <= n <= len(row_ngrams) - min_rows))
    frequent = sorted(frequent, key=lambda gram: -counts[gram])[:MAX_FEATURES]
    if not frequent:
        return ()
    column = {gram: place for place, gram in enumerate(frequent)}
    presence = np.zeros((len(row_ngrams), len(frequent)))
    for place, row in enumerate(row_ngrams):
        presence[place, [column[gram] for gram in row if gram in column]] = 1.0
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-9, 1 - 1e-9)
    odds = np.clip(np.log(p / (1 - p)), -MAX_LOG_ODDS, MAX_LOG_ODDS)
    x, y = presence - presence.mean(axis=0), odds - odds.mean(axis=0)
    weight = np.linalg.solve(x.T @ x + RIDGE * np.eye(len(frequent)), x.T @ y)
    strength = weight * presence.std(axis=0)[:, None]
    ranked = [list(np.argsort(-strength[:, k], kind="stable")) for k in range(len(names))]
    order = sorted(range(len(names)), key=lambda k: -strength[:, k].max())
    selected: list[tuple[int, int]] = []
    while len(selected) < limit and any(ranked):
        for k in order:
            best = _next_distinct(ranked[k], [one for one, _ in selected], presence)
            if best is not None and strength[best, k] > 0 and len(selected) < limit:
                selected.append((best, k))
            else:
                ranked[k] = []
    return tuple(
        WordCandidate(
            names[k], frequent[g], counts[frequent[g]], *_shares(presence[:, g], labels, k)
        )
        for g, k in selected
    )


def _shares(presence: Floats, labels: Ints | None, k: int) -> Sequence[float | None]:
    if labels is None:
        return None, None
    groups = presence[labels == k], presence[labels != k]
    return [float(group.mean()) if len(group) else 0.0 for group in groups]


def _next_distinct(ranked: list[int], selected: Sequence[int], presence: Floats) -> int | None:
    while ranked:
        place = ranked.pop(0)
        rows = presence[:, place] > 0
        overlaps = (
            (rows & (presence[:, one] > 0)).sum() / (rows | (presence[:, one] > 0)).sum()
            for one in selected
        )
        if all(share < MAX_OVERLAP for share in overlaps):
            return int(place)
    return None


def positions_of(words: Words, units: Sequence[str]) -> Ints:
    """The units at all positions where ``words`` follow one another."""
    lowered = [unit.lower() for unit in units]
    positions = [
        at + step
        for at in range(len(lowered) - len(words) + 1)
        if tuple(lowered[at : at + len(words)]) == words
        for step in range(len(words))
    ]
    return np.unique(np.asarray(positions, dtype=np.int64))


def draw_other_units(removed: Ints, units: int, rng: np.random.Generator) -> Ints | None:
    """As many other units, drawn at random; ``None`` if there are too few."""
    available = np.setdiff1d(np.arange(units), removed)
    return (
        rng.choice(available, len(removed), replace=False)
        if len(available) >= len(removed) > 0
        else None
    )


def confirm_words(
    candidates: Sequence[WordCandidate], costs: Sequence[Floats], other_costs: Sequence[Floats]
) -> tuple[WordEffect, ...]:
    """Test each candidate on its test rows [n].

    If its words were like other words of their rows, the two costs of each row could be exchanged:
    p is the share of all exchanges whose mean difference is as large (exact; Holm's procedure over
    the candidates). For an unconfirmed candidate, ``rows_to_settle`` is the number of rows with it
    that would show a difference as large as the observed one, by a t-test, and be enough for the
    exchange test; ``None`` if there are as many already.
    """
    p_values = holm(np.array([exchange_p(a - b) for a, b in zip(costs, other_costs, strict=True)]))
    effects = []
    for one, word_costs, control_costs, p in zip(
        candidates, costs, other_costs, p_values, strict=True
    ):
        gap, rows_needed = word_costs - control_costs, None
        if p > LEVEL and len(gap) >= 2 and gap.mean() > 0:
            alpha = LEVEL / len(candidates)
            rows_needed = rows_needed_for_power(gap, float(gap.mean()), alpha=alpha)
            rows_needed = rows_needed and max(rows_needed, math.ceil(-math.log2(alpha)))
            rows_needed = None if rows_needed is None or rows_needed <= len(gap) else rows_needed
        effects.append(WordEffect(one, word_costs, control_costs, float(p), rows_needed))
    return tuple(effects)


def exchange_p(gap: Floats) -> float:
    """The one-sided p-value of paired differences [n] with a mean of 0 or less: the share of all
    2ⁿ choices of their signs whose mean is as large (Fisher 1935). At most ``TEST_ROWS`` rows."""
    n = len(gap)
    if not n:
        return 1.0
    signs = 1 - 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)[None, :]) & 1)
    means = signs @ gap
    return float((means >= gap.sum() - 1e-9 * max(1.0, abs(gap).sum())).mean())
