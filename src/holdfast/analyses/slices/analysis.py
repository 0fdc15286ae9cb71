"""The question whole: from what a model said of validation rows to candidates, and from what it
said of test rows to the block of ``result.json``.

How often a slice is said to fail where none does, as measured.

Where does it fail? Slices of validation rows that are wrong more often, confirmed on test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.analyses.analysis import After, Analysis, Before, NoAnswer
from holdfast.analyses.row_texts import read_texts
from holdfast.analyses.slices.badness import badness
from holdfast.analyses.slices.confirmation import SliceData, block, confirm_candidates
from holdfast.analyses.slices.facts import RowFacts
from holdfast.analyses.slices.search import ConditionPool, SliceCandidate, pool_of, search
from holdfast.analyses.slices.topics import WordSpace
from holdfast.contract.predictions import Predictions
from holdfast.core.records import Floats
from holdfast.core.seeds import generator

# More finding rows than these make no slice surer, and the search slower.
MOST_ROWS = 5_000
LEAST_ROWS = 40
Columns = Mapping[str, Sequence[object]]
# The vectors of rows [n, d].
Space = Callable[[RowFacts], Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Hypotheses:
    """The candidates of a run, fixed before its test rows are looked at; ``space`` is where its
    topics lie, ``n`` how many rows they were found on."""

    candidates: tuple[SliceCandidate, ...]
    space: Space | None
    n: int
    what: str


def find_slices(
    valid: Predictions, train: Predictions, columns: Columns, seed: int
) -> Hypotheses | str:
    """Candidates among the validation rows (out-of-fold answers where there are none), beside their
    side ``columns`` [n]; why there are none to be had, in words.

    The space of topics is made of the words of training and validation rows, whose labels it does
    not see.
    """
    if why := _lacking(valid):
        return why
    valid, columns = _some(valid, columns, seed)
    texts = read_texts(valid.table)
    facts, space = RowFacts(len(valid), texts, columns), None
    if texts is not None:
        others = RowFacts(len(train), read_texts(train.table))
        words = WordSpace.fit((*facts.words, *others.words))
        space = None if words is None else (lambda facts: words(facts.words))
    found = pool_of(in_space(facts, space), seed)
    return _hypotheses(found, valid, space)


def find_topics(valid: Predictions, space: Space, seed: int) -> Hypotheses | str:
    """The same among topics of another space alone, which a network makes of the texts."""
    if why := _lacking(valid):
        return why
    valid, _ = _some(valid, {}, seed)
    texts = read_texts(valid.table)
    if texts is None:
        return "rows are no texts"
    pool = pool_of(in_space(RowFacts(len(valid), texts), space), seed)
    topics = np.array([one.kind == "topic" for one in pool.conditions], dtype=np.bool_)
    named = tuple(one for one in pool.conditions if one.kind == "topic")
    return _hypotheses(ConditionPool(named, pool.masks[topics]), valid, space)


def _lacking(valid: Predictions) -> str:
    n = len(valid)
    if n < LEAST_ROWS:
        return f"{n} validation rows are too few to find slices on; {LEAST_ROWS} are needed"
    if not np.isfinite(badness(valid).values).any():
        return "nothing is known of the validation rows' answers"
    return ""


def _some(valid: Predictions, columns: Columns, seed: int) -> tuple[Predictions, Columns]:
    """At most ``MOST_ROWS`` of the rows, a fixed sample."""
    if len(valid) <= MOST_ROWS:
        return valid, columns
    chosen = np.sort(generator(seed, "slice rows").permutation(len(valid))[:MOST_ROWS])
    kept = {name: [cells[int(i)] for i in chosen] for name, cells in columns.items()}
    return valid.take(chosen), kept


def _hypotheses(pool: ConditionPool, valid: Predictions, space: Space | None) -> Hypotheses:
    bad = badness(valid)
    found = search(pool, bad.values, groups=valid.groups)
    return Hypotheses(found, space, len(valid), bad.what)


def confirm_slices(
    found: Hypotheses, test: Predictions, columns: Columns, seed: int
) -> dict[str, Any]:
    """The block of the run: each candidate tested once on the test rows."""
    facts = in_space(RowFacts(len(test), read_texts(test.table), columns), found.space)
    tested = confirm_candidates(found.candidates, facts, asked_of(test), seed=seed)
    n = {"validation": found.n, "test": len(test)}
    return {**block(tested, FALSE_ALARMS), "what": found.what, "rows": n}


def in_space(facts: RowFacts, space: Space | None) -> RowFacts:
    """The facts with their topics' space."""
    if space is None:
        return facts
    return RowFacts(facts.n, facts.texts, facts.columns, lambda: space(facts))


def asked_of(told: Predictions) -> SliceData:
    """What is asked of the rows of a side."""
    bad = badness(told)
    doubt: Floats | None = None
    if bad.is_rate and told.probabilities is not None and told.probabilities.shape[1] > 1:
        sums = told.probabilities.sum(axis=1)
        if np.allclose(sums, 1.0, atol=1e-3):
            doubt = np.asarray(1.0 - told.probabilities.max(axis=1))
    return SliceData(bad.values, told.rows, doubt, told.groups)


# ``benchmarks/slices.py``: 46 of 1,020, errors dealt out at random among the rows of CR, TREC and
# BANKING77, 500 or 1,000 rows a side. Holm's procedure promises 5 % at most.
FALSE_ALARMS: Mapping[str, Any] = {
    "value": 0.045,
    "low": 0.034,
    "high": 0.060,
    "what": "1,020 simulated models without a slice that fails",
}


def find(before: Before) -> Hypotheses | NoAnswer:
    columns = before.beside(before.valid.table)
    found = find_slices(before.valid, before.train, columns, before.fitted.recipe.seed)
    return NoAnswer(found) if isinstance(found, str) else found


def confirm(found: Hypotheses, after: After) -> dict[str, Any]:
    columns = after.beside(after.test.table)
    return confirm_slices(found, after.test, columns, after.fitted.recipe.seed)


QUESTION = Analysis("slices", ("slices",), find, confirm)
