"""How much of one model's score another one keeps, and how often the two say the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.know.compare.pairs import AnswerKind, Pairs
from holdfast.know.compare.verdict import PairedVerdict
from holdfast.stats.bootstrap import bootstrap, folded, sums
from holdfast.stats.intervals import wilson, wilson_by_groups


def kept_share(
    pairs: Pairs, found: PairedVerdict, seed: np.random.Generator, groups: Ints | None = None
) -> dict[str, Any]:
    """The second model's score ÷ the first one's, of the same rows, with its 95 % interval.

    Of right and wrong answers the ratio is resampled by rows (BCa; of whole ``groups`` [n]
    Student's, one group left out at a time). Of other scores it is 1 − difference ÷ score, with the
    interval of the paired difference ``found``. An error has none: no share of it is kept.
    """
    if not pairs.higher_is_better:
        return _unknown("the metric is an error, of which no share is kept: see the difference")
    if not len(pairs.gap) or not pairs.first > 0:
        return _unknown("the teacher's score is 0, or there are no rows")
    value = pairs.second / pairs.first
    if pairs.right is None:
        if found.why:
            return {**_unknown(found.why), "value": value}
        low, high = (1 - end * pairs.scale / pairs.first for end in (found.high, found.low))
        return Estimate(value, low, high).to_json()
    both = np.column_stack([np.asarray(one, dtype=np.float64) for one in pairs.right])
    codes = np.arange(len(both)) if groups is None else groups
    codes, atoms = folded(codes, int(codes.max()) + 1)
    table = sums(both, codes, atoms)
    made = bootstrap(lambda w: _ratio(w @ table), np.ones(atoms, dtype=np.int64), seed=seed)
    limits = (made.low, made.high) if groups is None else made.student(atoms, 0.95)
    low, high = (float(one[0]) for one in limits)
    if not (math.isfinite(low) and math.isfinite(high)):
        return {**_unknown("the rows are too few for an interval"), "value": value}
    return Estimate(value, low, high).to_json()


def _ratio(sums_of: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums_of[:, 0] > 0, sums_of[:, 1] / sums_of[:, 0], np.nan)


def agreement(
    kind: AnswerKind, first: Sequence[Any], second: Sequence[Any], groups: Ints | None = None
) -> dict[str, Any]:
    """The share of rows of which both say the same (a set of labels whatever its order), with
    Wilson's interval; of numbers the correlation of the two."""
    if not len(first):
        return _unknown("there are no rows")
    if kind == "number":
        one, two = (
            np.array([np.nan if x is None else x for x in s], float) for s in (first, second)
        )
        known = np.isfinite(one) & np.isfinite(two)
        if known.sum() < 3 or not (one[known].std() > 0 and two[known].std() > 0):
            return _unknown("the numbers do not vary")
        value = float(np.corrcoef(one[known], two[known])[0, 1])
        return {"value": value, "low": None, "high": None, "what": "correlation"}
    plain = (lambda x: sorted(x or ())) if kind == "several" else (lambda x: x)
    same = np.array([plain(a) == plain(b) for a, b in zip(first, second, strict=True)])
    if groups is None:
        low, high = wilson(float(same.sum()), len(same))
    else:
        low, high = wilson_by_groups(same, groups)
        if math.isnan(low):
            return {**_unknown("the rows are of one group"), "value": float(same.mean())}
    return Estimate(float(same.mean()), float(low), float(high)).to_json()


def _unknown(why: str) -> dict[str, Any]:
    return {"value": None, "low": None, "high": None, "why": why}
