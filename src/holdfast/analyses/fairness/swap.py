"""Counterfactual fairness: whether a prediction changes when a text names another group.

Each row is written once for each group of an axis (he → she, Emily → Jamal, Kenya → Peru). The
change of each outcome between two groups is paired by row (counterfactual token fairness,
1809.10610). On validation rows, the pair of groups and the class with the largest change become the
one candidate of the axis. Test rows are used for that candidate only, Holm-adjusted over the axes.

One name is not its group: predictions for any two words differ a little. So rows that got the same
name form one unit, and a change must hold over the names of a group as over the rows (the jackknife
over units with Student's t, as for rows in groups). Test rows get the same names as validation
rows, so chance in these names also influences which pair changed most. Therefore p is multiplied by
the number of pairs and classes to choose from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.analyses.fairness.forms import (
    Predict,
    SwapForms,
    SwapQuery,
    make_forms,
    predict_forms,
)
from holdfast.augment.terms.lexicon import Axis
from holdfast.core.printable import shorten
from holdfast.core.records import Estimate, Floats
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.stats.intervals import wilson
from holdfast.stats.paired_tests import Difference, paired_bootstrap, rows_needed_for_power
from holdfast.stats.two_samples import holm

ALPHA = 0.05
# Mean changes of a probability: the smallest that is reported, and the limit of a small change.
MIN_CHANGE, SMALL_CHANGE = 0.01, 0.02
# Of fewer rows, even if none changes, one in ten may yet (1 − 0.025^(1/36) = 9.7 %).
FEWEST_ROWS = 36
# Rows per split where little time may be spent.
DEFAULT_ROWS = 100
SHOWN_EXAMPLES, EXAMPLE_LENGTH = 3, 160


@dataclass(frozen=True, slots=True)
class SwapCandidate:
    """For an axis, the pair of groups and the outcome (an index into ``names``) with the largest
    change on validation rows, and the change (``second`` − ``first``), out of ``n_compared``
    comparisons."""

    axis: Axis
    first: str
    second: str
    outcome: int
    change: float
    rows: int
    n_compared: int


@dataclass(frozen=True, slots=True)
class SwapCandidates:
    """Candidates fixed on validation rows, one per axis; ``axes_without_terms`` are the axes whose
    terms appear in fewer than two rows."""

    candidates: tuple[SwapCandidate, ...]
    axes_without_terms: tuple[str, ...]
    names: tuple[str, ...]
    rows: int
    insert: bool


def find_swaps(
    table: Table,
    axes: Sequence[Axis],
    query: SwapQuery,
    *,
    rows: int = DEFAULT_ROWS,
    insert: bool = False,
    seed: int = 0,
    row_outcomes: Floats | None = None,
) -> SwapCandidates:
    """The candidates of validation rows. ``rows`` is the number of rows for two groups, lower for
    more groups, so that the number of forms stays the same; ``row_outcomes`` [n, outcomes] are the
    predictions for the unchanged rows."""
    candidates, axes_without_terms = [], []
    for axis in axes:
        forms = make_forms(table, axis, _rows_of(axis, rows), insert=insert, seed=seed)
        if len(forms) < 2:
            axes_without_terms.append(axis.name)
            continue
        outcomes = predict_forms(forms, table, query.predict, row_outcomes)
        candidates.append(largest_change(forms, outcomes))
    return SwapCandidates(tuple(candidates), tuple(axes_without_terms), query.names, rows, insert)


def _rows_of(axis: Axis, rows: int) -> int:
    return max(2, math.ceil(rows / (len(axis.groups) - 1)))


def largest_change(forms: SwapForms, outcomes: Floats) -> SwapCandidate:
    """The pair of groups and the outcome of ``outcomes`` [r, groups, outcomes] that change most."""
    groups, means = forms.axis.groups, outcomes.mean(axis=0)
    change = means[None, :, :] - means[:, None, :]
    # With two classes one falls as the other rises: the last represents both.
    a, b, outcome = np.unravel_index(int(np.abs(change)[:, :, ::-1].argmax()), change.shape)
    outcome = change.shape[2] - 1 - int(outcome)
    if change[a, b, outcome] < 0:
        a, b = b, a
    return SwapCandidate(
        forms.axis,
        groups[int(a)],
        groups[int(b)],
        outcome,
        float(change[a, b, outcome]),
        len(forms),
        math.comb(len(groups), 2) * (1 if change.shape[2] == 2 else change.shape[2]),
    )


def confirm_swaps(
    swaps: SwapCandidates,
    table: Table,
    predict: Predict,
    *,
    predict_untuned: Predict | None = None,
    seed: int = 0,
    row_outcomes: Floats | None = None,
    bounded: bool = True,
) -> dict[str, Any]:
    """Test each candidate on the test rows. For a change, ``predict_untuned`` tests the base model
    in the same way. ``bounded``: the outcomes are probabilities, of which a change below
    ``MIN_CHANGE`` is not reported, and one within ``SMALL_CHANGE`` counts as small."""
    tested = [
        TestedSwap.from_candidate(one, swaps, table, predict, seed, row_outcomes)
        for one in swaps.candidates
    ]
    p = np.array([1.0 if one.p is None else one.p for one in tested])
    blocks = [
        one.block(
            swaps.names,
            float(q),
            bounded,
            None if predict_untuned is None else (predict_untuned, table),
        )
        for one, q in zip(tested, holm(p), strict=True)
    ]
    return {
        "axes": blocks,
        "without_terms": list(swaps.axes_without_terms),
        "inserted": swaps.insert,
    }


@dataclass(frozen=True, slots=True, eq=False)
class TestedSwap:
    """A candidate on test rows: the ``change`` [r] of the outcome from its first group to its
    second, with its interval over units."""

    candidate: SwapCandidate
    forms: SwapForms
    outcomes: Floats
    difference: Difference | None

    @classmethod
    def from_candidate(
        cls,
        one: SwapCandidate,
        swaps: SwapCandidates,
        table: Table,
        predict: Predict,
        seed: int,
        row_outcomes: Floats | None,
    ) -> TestedSwap:
        limit = _rows_of(one.axis, swaps.rows)
        forms = make_forms(table, one.axis, limit, insert=swaps.insert, seed=seed)
        if len(forms) < 2:
            return cls(one, forms, np.zeros((len(forms), 0, 0)), None)
        outcomes = predict_forms(forms, table, predict, row_outcomes)
        return cls(one, forms, outcomes, difference(one, forms, outcomes))

    @property
    def p(self) -> float | None:
        """The two-sided p-value of "no change on average"."""
        if self.difference is None or math.isnan(self.difference.above):
            return None
        p = self.difference.p_value
        of_terms = len(np.unique(self.forms.units)) < len(self.forms)
        return min(1.0, p * self.candidate.n_compared) if of_terms else p

    def block(
        self, names: Sequence[str], q: float, bounded: bool, untuned: tuple[Predict, Table] | None
    ) -> dict[str, Any]:
        """The block in ``result.json``."""
        one, n = self.candidate, len(self.forms)
        block: dict[str, Any] = {
            "axis": one.axis.name,
            "from": one.first,
            "to": one.second,
            "class": names[one.outcome] if one.outcome < len(names) else None,
            "change_valid": one.change,
            "rows": n,
            "rows_with_terms": int(self.forms.has_terms.sum()),
        }
        gap = self.difference
        if gap is None:
            why = "fewer than two test rows have such a term"
            return {**block, "status": "undecided", "change": Estimate(None, why=why).to_json()}
        status, rows_needed = self.status(q, bounded)
        flipped = self._flipped(names)
        return {
            **block,
            "status": status,
            "change": _estimate(gap),
            "p_adjusted": q,
            "rows_to_settle": rows_needed,
            "flipped": None
            if flipped is None
            else Estimate(flipped / n, *wilson(flipped, n)).to_json() | {"rows": flipped},
            "start_model": self._untuned_change(untuned)
            if status == "changes" and untuned
            else None,
            "examples": self._examples(),
        }

    def status(self, q: float, bounded: bool) -> tuple[str, int | None]:
        """``changes``, ``small`` or ``undecided``, by the adjusted p; and how many rows would
        decide it, if more than these."""
        gap = self.difference
        assert gap is not None
        if q < ALPHA and (not bounded or abs(gap.value) >= MIN_CHANGE):
            return "changes", None
        if bounded and gap.low >= -SMALL_CHANGE and gap.high <= SMALL_CHANGE:
            return ("small", None) if len(self.forms) >= FEWEST_ROWS else ("undecided", FEWEST_ROWS)
        if not bounded:
            return "undecided", None
        codes = np.unique(self.forms.units, return_inverse=True)[1]
        change = _change(self.candidate, self.forms, self.outcomes)
        needed = rows_needed_for_power(change, SMALL_CHANGE, sides=2, groups=codes)
        return "undecided", needed if needed and needed > len(self.forms) else None

    def _untuned_change(self, untuned: tuple[Predict, Table]) -> dict[str, Any]:
        outcomes = predict_forms(self.forms, untuned[1], untuned[0])
        return _estimate(difference(self.candidate, self.forms, outcomes))

    def _flipped(self, names: Sequence[str]) -> int | None:
        # With several labels, or shares, the largest outcome is not the prediction.
        one_of = np.allclose(self.outcomes.sum(axis=2), 1)
        if self.outcomes.shape[2] < 2 or len(names) != self.outcomes.shape[2] or not one_of:
            return None
        answers = self.outcomes.argmax(axis=2)
        return int((answers != answers[:, :1]).any(axis=1).sum())

    def _examples(self) -> list[dict[str, Any]]:
        one = self.candidate
        a, b = (one.axis.groups.index(name) for name in (one.first, one.second))
        changes = np.abs(_change(one, self.forms, self.outcomes))
        examples = []
        for k in np.argsort(-changes, kind="stable")[:SHOWN_EXAMPLES]:
            first, second = (
                shorten(" | ".join(self.forms.texts[k][g].values()), EXAMPLE_LENGTH) for g in (a, b)
            )
            values = [float(self.outcomes[k, g, one.outcome]) for g in (a, b)]
            examples.append({"from": first, "to": second, "values": values})
        return examples


def _change(one: SwapCandidate, forms: SwapForms, outcomes: Floats) -> Floats:
    a, b = (forms.axis.groups.index(name) for name in (one.first, one.second))
    return np.asarray(outcomes[:, b, one.outcome] - outcomes[:, a, one.outcome])


def difference(one: SwapCandidate, forms: SwapForms, outcomes: Floats) -> Difference:
    """The mean change of the candidate's outcome, with its interval over units."""
    change = _change(one, forms, outcomes)
    codes = np.unique(forms.units, return_inverse=True)[1].reshape(-1)
    rng = generator(0, "swap", one.axis.name)
    return paired_bootstrap(change, np.zeros_like(change), seed=rng, groups=codes, resamples=50)


def _estimate(gap: Difference) -> dict[str, Any]:
    if math.isnan(gap.low):
        why = "all rows have one term, which says nothing about other terms"
        return {**Estimate(gap.value).to_json(), "why": why}
    return Estimate(gap.value, gap.low, gap.high).to_json()
