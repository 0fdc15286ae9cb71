"""Where a model fails: slices of validation rows that are wrong more often, each tested once on the
test rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.analyses.analysis import Analysis, NoAnswer, Session
from holdfast.analyses.row_scores import badness
from holdfast.analyses.row_texts import read_texts
from holdfast.analyses.slices.conditions import RowFacts
from holdfast.analyses.slices.search import ConditionPool, SliceCandidate, pool_of, search
from holdfast.analyses.slices.topics import WordSpace
from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.records import Estimate, Floats, Ints, finite
from holdfast.core.seeds import generator
from holdfast.stats.intervals import wilson, wilson_by_groups
from holdfast.stats.two_samples import excess, excess_p_values, rows_for_excess, weighted_holm

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
) -> Hypotheses | NoAnswer:
    """Candidates among the validation rows (out-of-fold answers where there are none), beside their
    side ``columns`` [n]; why there are none to be had.

    The space of topics is made of the words of training and validation rows, whose labels it does
    not see.
    """
    if why := _lacking(valid):
        return NoAnswer(why)
    valid, columns = _some(valid, columns, seed)
    texts = read_texts(valid.table)
    facts, space = RowFacts(len(valid), texts, columns), None
    if texts is not None:
        others = RowFacts(len(train), read_texts(train.table))
        words = WordSpace.fit((*facts.words, *others.words))
        space = None if words is None else (lambda facts: words(facts.words))
    found = pool_of(in_space(facts, space), seed)
    return _hypotheses(found, valid, space)


def _lacking(valid: Predictions) -> str:
    """Why no slice can be found on these rows."""
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


def find(session: Session) -> Hypotheses | NoAnswer:
    columns = session.beside(session.valid.table)
    return find_slices(session.valid, session.train, columns, session.recipe.seed)


def confirm(found: Hypotheses, session: Session, test: Predictions) -> dict[str, Any]:
    return confirm_slices(found, test, session.beside(test.table), session.recipe.seed)


ANALYSIS = Analysis("slices", ("slices",), find, confirm)


def find_topics(session: Session) -> Hypotheses | NoAnswer:
    """The same among topics alone, in the space of a sentence encoder (English)."""
    from holdfast.augment.text_forms import meaning

    seed = session.recipe.seed
    if why := _lacking(session.valid):
        return NoAnswer(why)
    valid, _ = _some(session.valid, {}, seed)
    texts = read_texts(valid.table)
    if texts is None:
        return NoAnswer("rows are no texts")

    def space(facts: RowFacts) -> Floats:
        return meaning().vectors(facts.texts or ())

    pool = pool_of(in_space(RowFacts(len(valid), texts), space), seed)
    topics = np.array([one.kind == "topic" for one in pool.conditions], dtype=np.bool_)
    named = tuple(one for one in pool.conditions if one.kind == "topic")
    return _hypotheses(ConditionPool(named, pool.masks[topics]), valid, space)


def confirm_topics(found: Hypotheses, session: Session, test: Predictions) -> dict[str, Any]:
    return confirm_slices(found, test, {}, session.recipe.seed)


# Of the command alone: it asks the stored answers a second question.
TOPICS = Analysis("topics", ("topics",), find_topics, confirm_topics)

ALPHA, POWER, LEVEL = 0.05, 0.8, 0.95
# Beyond so many times the rows that there are nobody will ask for more.
MOST_TIMES = 100
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class TestedSlice:
    """A candidate and what the test rows say of it. ``value`` is the mean over its ``n`` rows of
    what is bad, ``rest`` that over all others; ``p_value`` after Holm; ``more_rows`` how many more
    test rows would settle it, or ``because`` they would not."""

    candidate: SliceCandidate
    n: int
    value: Estimate
    rest: Estimate
    difference: float | None
    p_value: float
    confirmed: bool
    expected: float | None
    more_rows: int | None
    because: str
    rows: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        found = self.candidate
        return {
            "slice": str(found.condition),
            "condition": found.condition.to_json(),
            "n": self.n,
            "value": self.value.to_json(),
            "rest": self.rest.to_json(),
            "difference": self.difference,
            "p_value": self.p_value,
            "expected_by_confidence": self.expected,
            "on_validation": {"n": found.n, "value": found.value, "shrunken": found.shrunken},
            "more_rows": self.more_rows,
            "because": self.because,
            "rows": list(self.rows),
        }


@dataclass(frozen=True, slots=True)
class SliceData:
    """What of the test rows is asked about: ``values`` [n] of what is bad (1 for wrong), source
    ``rows`` [n], ``doubt`` [n] (1 − the confidence of the answer) and ``groups`` [n] where they
    exist."""

    values: Floats
    rows: Ints
    doubt: Floats | None = None
    groups: Ints | None = None


def weights(count: int) -> Floats:
    """How the level is divided among candidates, by their rank on the finding rows: as 1 ÷ rank."""
    return np.asarray(1.0 / np.arange(1, count + 1))


def confirm_candidates(
    candidates: Sequence[SliceCandidate], facts: RowFacts, asked: SliceData, *, seed: int
) -> tuple[TestedSlice, ...]:
    """Each candidate with its one-sided test, together at a level of 5 % (Holm 1979, weighted by
    the rank that validation gave: ``weights``). The conditions were fixed before; nothing is chosen
    here.

    A slice is compared with all other rows: wrong or not by Fisher's exact test, numbers by
    permutation, rows in groups by the stricter of that and a t test over groups
    (``stats.two_samples``). ``expected`` is the share of wrong rows that the model's own confidence
    leads one to expect in the slice: where the slice is as bad as that, a threshold on confidence
    catches it.
    """
    if not candidates:
        return ()
    masks = np.array([one.condition.holds(facts) for one in candidates], dtype=np.bool_)
    usable = np.isfinite(asked.values)
    if not usable.all():
        kept = np.flatnonzero(usable)
        masks, asked = masks[:, kept], _only(asked, kept)
    if not len(asked.values):
        masks = np.zeros((len(candidates), 0), dtype=np.bool_)
    seeded = generator(seed, "slices")
    raw = excess_p_values(asked.values, masks, seed=seeded, groups=asked.groups)
    share = weights(len(candidates))
    adjusted = weighted_holm(raw, share)
    levels = ALPHA * share / share.sum()
    gaps = excess(asked.values, masks)
    return tuple(
        _tested(one, mask, asked, float(p), float(gap), float(level))
        for one, mask, p, gap, level in zip(candidates, masks, adjusted, gaps, levels, strict=True)
    )


def block(tested: Sequence[TestedSlice], rate: Mapping[str, object]) -> dict[str, Any]:
    """``slices`` of ``result.json``: the confirmed ones by their rows in excess, the others by what
    they lack."""
    found = [one for one in tested if one.confirmed]
    found.sort(key=lambda one: (-(one.difference or 0.0) * one.n, one.p_value))
    undecided = [one for one in tested if not one.confirmed]
    undecided.sort(key=lambda one: (one.more_rows is None, one.more_rows or 0, one.p_value))
    return {
        "schema": 1,
        "n_candidates": len(tested),
        "found": [one.to_json() for one in found],
        "undecided": [one.to_json() for one in undecided],
        "false_alarm_rate": dict(rate),
    }


def _only(asked: SliceData, kept: Ints) -> SliceData:
    return SliceData(
        asked.values[kept],
        asked.rows[kept],
        None if asked.doubt is None else asked.doubt[kept],
        None if asked.groups is None else asked.groups[kept],
    )


def _tested(
    candidate: SliceCandidate, mask: Bools, asked: SliceData, p: float, gap: float, level: float
) -> TestedSlice:
    n, confirmed = int(mask.sum()), p <= ALPHA
    more, because = (None, "") if confirmed else _to_settle(mask, asked, level)
    worst = np.flatnonzero(mask)
    worst = worst[np.argsort(-asked.values[worst], kind="stable")][:EXAMPLES]
    expected = None
    if asked.doubt is not None and n:
        expected = float(asked.doubt[mask].mean())
    return TestedSlice(
        candidate,
        n,
        mean_of(asked, mask),
        mean_of(asked, ~mask),
        finite(gap),
        p,
        confirmed,
        expected,
        more,
        because,
        tuple(int(row) for row in asked.rows[worst]),
    )


def _to_settle(mask: Bools, asked: SliceData, level: float) -> tuple[int | None, str]:
    """How many more rows would settle it, or why none are named."""
    if not mask.any():
        return None, "no test row is in it"
    if mask.all():
        return None, "all test rows are in it"
    total = rows_for_excess(asked.values, mask, alpha=level, power=POWER, groups=asked.groups)
    if total is None:
        if asked.values[mask].mean() <= asked.values[~mask].mean():
            return None, "on the test rows it is no worse than the others"
        return None, "too few test rows are in it"
    n = len(asked.values)
    if total > MOST_TIMES * n:
        return None, f"what is left of it on the test rows is too small for {MOST_TIMES} times them"
    # Just missed: chance decided, and as many rows again would be a fair second look.
    more = total - n if total > n else n
    return more, f"{more:,} more test rows would settle it"


def mean_of(asked: SliceData, mask: Bools) -> Estimate:
    """The mean over some rows with its interval: Wilson's of a rate (by groups where there are
    some), Student's of numbers."""
    values = asked.values[mask]
    n = len(values)
    if not n:
        return Estimate(None, why="no row")
    value = float(values.mean())
    groups = None if asked.groups is None else asked.groups[mask]
    if np.isin(asked.values, (0.0, 1.0)).all():
        low, high = (
            wilson(float(values.sum()), n, LEVEL)
            if groups is None
            else wilson_by_groups(values.astype(bool), groups, LEVEL)
        )
    else:
        low, high = _student(values, groups)
    if math.isnan(low):
        return Estimate(value, level=LEVEL, why="no interval: too few rows or groups")
    return Estimate(value, low, high, LEVEL)


def _student(values: Floats, groups: Ints | None) -> tuple[float, float]:
    from scipy.special import stdtrit

    n, residuals = len(values), values - values.mean()
    codes = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(codes.reshape(-1), weights=residuals)
    units = len(sums)
    if units < 2:
        return math.nan, math.nan
    error = math.sqrt(units / (units - 1) * float((sums**2).sum())) / n
    half = float(stdtrit(units - 1, 0.5 + LEVEL / 2)) * error
    return float(values.mean()) - half, float(values.mean()) + half
