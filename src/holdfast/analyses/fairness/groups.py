"""Group fairness: whether a model is as good for each group of rows as for the others.

A ``Measure`` is a value per row, among the rows to which it applies. On validation rows each group
is compared with all other rows of the column, in every measure; the largest gaps, at most
``MAX_CANDIDATES``, become candidates. Each candidate is tested once on the test rows, in the
direction seen. Holm's adjustment over the candidates keeps the probability of a single false
finding in a run at ``ALPHA`` or less, however many groups and measures were compared.

``rows_to_add`` counts the rows that would make groups and classes independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from holdfast.analyses.row_scores import rate_estimate
from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.data.labels.spelling import MISSING
from holdfast.stats.intervals import (
    fisher_above,
    group_freedom,
    rate_gap,
    rows_for_rates,
    wilson_by_groups,
)
from holdfast.stats.paired_tests import paired_t, welch
from holdfast.stats.two_samples import group_effect, group_error, holm

ACCURACY, POSITIVE = "accuracy", "positive rate"
FALSE_POSITIVE, FALSE_NEGATIVE = "false-positive rate", "false-negative rate"
LOSS, ERROR, SIGNED = "loss", "absolute error", "error"


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """``values`` [n] are 0 or 1 for a ``rate``, numbers otherwise; ``applies`` [n] marks the rows
    that count; ``of_class`` is the class (label) that the measure is about."""

    name: str
    values: Floats
    applies: Bools
    of_class: str | None = None
    rate: bool = True

    @property
    def title(self) -> str:
        """The name for readers."""
        return self.name if self.of_class is None else f"{self.name} of {self.of_class}"


def measures_of(predictions: Predictions) -> tuple[Measure, ...]:
    """The measures that apply to these predictions.

    For classes: accuracy; for each class c P(predicted c), P(predicted c | not c),
    P(not predicted c | c) (demographic parity, and the two halves of equalised odds, 1610.02413).
    For two classes only the second, since the first has the complements. For several labels the
    same for each label, and how often all are correct. For numbers the absolute error and the
    signed error. For tags how often all are correct. Otherwise the loss.
    """
    table = predictions.table
    all_rows = np.ones(len(predictions), dtype=bool)
    if predictions.predictions is not None and "value" in table.rows.column_names:
        error = np.asarray(predictions.predictions, dtype=np.float64) - table.column("value")
        return (
            Measure(ERROR, np.abs(error), all_rows, rate=False),
            Measure(SIGNED, error, all_rows, rate=False),
        )
    if predictions.wrong is None:
        return (Measure(LOSS, predictions.losses, np.isfinite(predictions.losses), rate=False),)
    measures = [Measure(ACCURACY, (~predictions.wrong).astype(np.float64), all_rows)]
    if predictions.predictions is None or not predictions.names:
        return tuple(measures)
    labels, answers = _label_masks(predictions)
    # The complement of the second class adds nothing.
    class_names = (
        predictions.names[1:]
        if len(predictions.names) == 2 and not _has_label_sets(predictions)
        else predictions.names
    )
    for k, name in enumerate(predictions.names):
        if name not in class_names:
            continue
        predicted, labelled = answers[:, k].astype(np.float64), labels[:, k]
        measures += [
            Measure(POSITIVE, predicted, all_rows, name),
            Measure(FALSE_POSITIVE, predicted, ~labelled, name),
            Measure(FALSE_NEGATIVE, 1 - predicted, labelled, name),
        ]
    return tuple(measures)


def _has_label_sets(predictions: Predictions) -> bool:
    return "labels" in predictions.table.rows.column_names


def _label_masks(predictions: Predictions) -> tuple[Bools, Bools]:
    """Whether each row has each name as a label and as a prediction, [n, names] twice."""
    assert predictions.predictions is not None
    index = {name: k for k, name in enumerate(predictions.names)}
    sets = [_names_of(one) for one in predictions.predictions]
    if _has_label_sets(predictions):
        truth: list[list[int]] = predictions.table.column("labels")
    else:
        classes: Ints = predictions.table.column("label")
        truth = [[int(k)] if k >= 0 else [] for k in classes]
    labels = np.zeros((len(predictions), len(index)), dtype=bool)
    answers = np.zeros_like(labels)
    for row, (label_indices, names) in enumerate(zip(truth, sets, strict=True)):
        labels[row, label_indices] = True
        answers[row, [index[name] for name in names if name in index]] = True
    return labels, answers


def _names_of(prediction: object) -> Sequence[str]:
    if prediction is None:
        return ()
    if isinstance(prediction, (list, tuple, np.ndarray)):
        return [str(one) for one in prediction]
    return [str(prediction)]


ALPHA = 0.05
# A gap on validation rows with this p-value or less makes a candidate.
CANDIDATE_P = 0.1
MAX_CANDIDATES = 10
# Groups with fewer validation rows are reported as too small, and never compared.
MIN_ROWS = 10
# How large a gap of rates must be to matter, and the power to show it.
RELEVANT_GAP, POWER = 0.1, 0.8
MAX_GROUPS = 20
# With more than ten classes, tables show only the measures that are candidates.
MAX_SHOWN_MEASURES = 31


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """A column that defines groups of rows: its ``name``, and the group of each row [n], ``None``
    for a row in no group."""

    name: str
    row_groups: Sequence[str | None]

    @property
    def names(self) -> tuple[str, ...]:
        """The groups with at least one row."""
        return tuple(sorted({one for one in self.row_groups if one is not None}))

    def inside(self, group: str) -> Bools:
        """Which rows are in ``group`` [n]."""
        return np.array([one == group for one in self.row_groups], dtype=bool)

    @property
    def has_group(self) -> Bools:
        """Which rows are in any group [n]."""
        return np.array([one is not None for one in self.row_groups], dtype=bool)


Columns = Mapping[str, Sequence[str | None]]


def groupings_of(columns: Columns, names: Sequence[str]) -> list[Grouping]:
    """The groupings by those of the ``columns`` that have these ``names``."""
    groupings = []
    for name in names:
        if name in columns:
            cells = [str(cell or "").strip() for cell in columns[name]]
            groups = [None if not c or c.casefold() in MISSING else c for c in cells]
            groupings.append(Grouping(name, groups))
    return groupings


@dataclass(frozen=True, slots=True)
class GroupCandidate:
    """A ``group`` of ``column`` that was ``above`` or below the others on validation rows in a
    ``measure`` (of class ``of_class``); ``gap`` is group − others there."""

    column: str
    group: str
    measure: str
    of_class: str | None
    above: bool
    gap: float


@dataclass(frozen=True, slots=True)
class GroupCandidates:
    """Candidates, fixed on validation rows; ``n_compared`` pairs of group and measure were
    compared; ``small_groups`` have too few rows: (column, group) → validation rows."""

    candidates: tuple[GroupCandidate, ...]
    n_compared: int
    small_groups: Mapping[tuple[str, str], int]
    columns: tuple[str, ...]


def usable(grouping: Grouping) -> bool:
    """Whether a column defines groups: two to ``MAX_GROUPS`` values, two of them in ``MIN_ROWS``
    rows or more."""
    counts = [int(grouping.inside(name).sum()) for name in grouping.names[: MAX_GROUPS + 1]]
    return 2 <= len(counts) <= MAX_GROUPS and sum(n >= MIN_ROWS for n in counts) >= 2


def find_gaps(predictions: Predictions, groupings: Sequence[Grouping]) -> GroupCandidates:
    """Find candidates among the groups of validation rows."""
    measures, ranked, small_groups, n_compared = measures_of(predictions), [], {}, 0
    for grouping in groupings:
        known = grouping.has_group
        for group in grouping.names:
            inside = grouping.inside(group)
            if inside.sum() < MIN_ROWS:
                small_groups[grouping.name, group] = int(inside.sum())
                continue
            for one in measures:
                n_compared += 1
                gap_and_p = _compare(one, inside & one.applies, known & ~inside & one.applies)
                if gap_and_p is None:
                    continue
                gap, above, below = gap_and_p
                p = min(above, below)
                if p <= CANDIDATE_P:
                    new_candidate = GroupCandidate(
                        grouping.name, group, one.name, one.of_class, above < below, gap
                    )
                    ranked.append((p, new_candidate))
    ranked.sort(key=lambda pair: (pair[0], -abs(pair[1].gap)))
    selected = tuple(candidate for _, candidate in _drop_mirrored(ranked)[:MAX_CANDIDATES])
    return GroupCandidates(selected, n_compared, small_groups, tuple(one.name for one in groupings))


def _drop_mirrored(
    ranked: list[tuple[float, GroupCandidate]],
) -> list[tuple[float, GroupCandidate]]:
    """In a column with two groups, the second mirrors the first: only the first is kept."""
    unique, keys = [], set()
    for p, one in ranked:
        key = (one.column, one.measure, one.of_class, round(p, 12), round(abs(one.gap), 12))
        if key not in keys:
            keys.add(key)
            unique.append((p, one))
    return unique


def confirm_gaps(
    group_candidates: GroupCandidates, predictions: Predictions, groupings: Sequence[Grouping]
) -> dict[str, object]:
    """Test the candidates on the test rows: every group's measures with intervals, the confirmed
    candidates, and for the others how many rows would decide them."""
    measures = {(one.name, one.of_class): one for one in measures_of(predictions)}
    by_name = {one.name: one for one in groupings}
    candidate_keys = {(one.measure, one.of_class) for one in group_candidates.candidates}
    show_all = len(measures) <= MAX_SHOWN_MEASURES
    shown_measures = {
        k: m for k, m in measures.items() if show_all or k in candidate_keys or k[1] is None
    }
    units = predictions.groups
    tested = [
        _test_candidate(
            one, by_name.get(one.column), measures.get((one.measure, one.of_class)), units
        )
        for one in group_candidates.candidates
    ]
    adjusted = holm(np.array([p if p is not None else 1.0 for p, _ in tested]))
    findings, inconclusive = [], []
    for one, (p, record), q in zip(group_candidates.candidates, tested, adjusted, strict=True):
        if p is not None and q < ALPHA:
            findings.append({**record, "p_adjusted": float(q)})
        else:
            rows = _rows_to_settle(
                one, by_name.get(one.column), measures, len(group_candidates.candidates), units
            )
            inconclusive.append({**record, "p_adjusted": float(q), "rows_to_settle": rows})
    return {
        "columns": [
            _table(by_name[name], shown_measures, units)
            for name in group_candidates.columns
            if name in by_name
        ],
        "looked": group_candidates.n_compared,
        "candidates": len(group_candidates.candidates),
        "findings": findings,
        "undecided": inconclusive,
        "small": [
            {"column": c, "group": g, "valid_rows": n, "rows_to_settle": _min_group_rows()}
            for (c, g), n in group_candidates.small_groups.items()
        ],
    }


def _compare(measure: Measure, inside: Bools, others: Bools) -> tuple[float, float, float] | None:
    """group − others, and the one-sided p-values of "above" and "below"."""
    n, m = int(inside.sum()), int(others.sum())
    if n < 2 or m < 2:
        return None
    one, other = measure.values[inside], measure.values[others]
    gap = float(one.mean() - other.mean())
    if measure.rate:
        a, b = round(float(one.sum())), round(float(other.sum()))
        return gap, fisher_above(a, n, b, m), fisher_above(n - a, n, m - b, m)
    share = welch(one, other).above
    return None if math.isnan(share) else (gap, 1 - share, share)


def _test_candidate(
    one: GroupCandidate, grouping: Grouping | None, measure: Measure | None, units: Ints | None
) -> tuple[float | None, dict[str, object]]:
    record: dict[str, object] = {
        "column": one.column,
        "group": one.group,
        "measure": one.measure,
        "class": one.of_class,
        "gap_valid": one.gap,
    }
    if grouping is None or measure is None:
        return None, {**record, "gap": Estimate(None, why="no such rows").to_json()}
    inside = grouping.inside(one.group) & measure.applies
    others = grouping.has_group & ~grouping.inside(one.group) & measure.applies
    record |= {"n": int(inside.sum()), "others": int(others.sum())}
    gap_and_p = _compare(measure, inside, others)
    if gap_and_p is None:
        why = "fewer than two test rows in the group or outside it"
        return None, {**record, "gap": Estimate(None, why=why).to_json()}
    gap, above, below = gap_and_p
    p = above if one.above else below
    low, high = _gap_limits(measure, inside, others)
    if units is not None:
        gap, low, high, p_by_units = _gap_by_units(measure, inside, others, units, one.above)
        # The test by units finds no spread in a few rows of equal values; the test of rows does.
        p = max(p, p_by_units)
    record["value"] = float(measure.values[inside].mean())
    record["value_others"] = float(measure.values[others].mean())
    if math.isnan(low):
        # Give readers the reason instead of a number that is NaN.
        one_unit = Estimate(gap, why="all these rows are of one unit").to_json()
        return p, {**record, "gap": one_unit}
    return p, {**record, "gap": Estimate(gap, low, high).to_json()}


def _gap_limits(measure: Measure, inside: Bools, others: Bools) -> tuple[float, float]:
    one, other = measure.values[inside], measure.values[others]
    if measure.rate:
        return rate_gap(round(float(one.sum())), len(one), round(float(other.sum())), len(other))
    difference = welch(one, other)
    return difference.low, difference.high


def _gap_by_units(
    measure: Measure, inside: Bools, others: Bools, units: Ints, above: bool
) -> tuple[float, float, float, float]:
    """The gap for rows that come in groups, its limits and its p-value: the linearised standard
    error of a difference of two means (``two_samples.group_error``), and Student's t with the
    smaller ``intervals.group_freedom`` of the two sides (Kish 1965), as in ``two_samples``. The
    limits of rates join Wilson's of each side (Newcombe 1998), which stay wide where all values of
    a side are equal."""
    from scipy.special import stdtr, stdtrit

    rows = inside | others
    values, mask = measure.values[rows], inside[rows]
    codes = np.unique(units[rows], return_inverse=True)[1].reshape(-1)
    gap = float(values[mask].mean() - values[~mask].mean())
    error = group_error(values, mask, codes)
    if math.isnan(error):
        return gap, math.nan, math.nan, 1.0
    freedom = min(group_freedom(np.bincount(codes[side])) for side in (mask, ~mask))
    half = float(stdtrit(freedom, 0.975)) * error
    low, high = gap - half, gap + half
    if measure.rate:
        (low_1, high_1), (low_2, high_2) = (
            wilson_by_groups(values[side] > 0.5, codes[side]) for side in (mask, ~mask)
        )
        one, other = float(values[mask].mean()), float(values[~mask].mean())
        low = gap - math.hypot(one - low_1, high_2 - other)
        high = gap + math.hypot(high_1 - one, other - low_2)
    if not error:
        # Without spread the rows give no evidence by this method.
        return gap, low, high, 1.0
    t = gap / error if above else -gap / error
    return gap, low, high, float(stdtr(freedom, -t))


def _rows_to_settle(
    one: GroupCandidate,
    grouping: Grouping | None,
    measures: Mapping[tuple[str, str | None], Measure],
    candidates: int,
    units: Ints | None,
) -> int | None:
    """Test rows of the column that would show a gap of ``RELEVANT_GAP``, at the proportions of the
    groups and with the design effect of the units here; ``None`` if the measure is not a rate or
    has no rows."""
    measure = measures.get((one.measure, one.of_class))
    if grouping is None or measure is None or not measure.rate:
        return None
    applicable = grouping.has_group & measure.applies
    inside = grouping.inside(one.group) & applicable
    if not inside.any() or not (applicable & ~inside).any():
        return None
    rate = float(measure.values[applicable & ~inside].mean())
    other = min(1.0, rate + RELEVANT_GAP) if one.above else max(0.0, rate - RELEVANT_GAP)
    if abs(other - rate) < RELEVANT_GAP / 2:
        other = rate - RELEVANT_GAP if one.above else rate + RELEVANT_GAP
    share = float(inside.sum() / applicable.sum())
    n_rows: float = rows_for_rates(other, rate, share, ALPHA / max(1, candidates), POWER)
    if units is not None:
        n_rows *= group_effect(measure.values[applicable], inside[applicable], units[applicable])
    return math.ceil(n_rows * int(grouping.has_group.sum()) / int(applicable.sum()))


def _min_group_rows() -> int:
    """Rows of a group that would show a gap of ``RELEVANT_GAP`` from one half, with nine other rows
    for each of them."""
    return math.ceil(0.1 * rows_for_rates(0.5 - RELEVANT_GAP, 0.5, 0.1, ALPHA, POWER))


def _table(
    grouping: Grouping, measures: Mapping[tuple[str, str | None], Measure], units: Ints | None
) -> dict[str, object]:
    """Every group's measures on test rows, and the largest gap in each measure."""
    groups = {}
    for group in grouping.names:
        inside = grouping.inside(group)
        each = [_measure_block(one, inside & one.applies, units) for one in measures.values()]
        groups[group] = {"rows": int(inside.sum()), "measures": each}
    return {"column": grouping.name, "groups": groups, "gaps": _gaps(grouping, measures)}


def _measure_block(one: Measure, inside: Bools, units: Ints | None) -> dict[str, object]:
    n, values = int(inside.sum()), one.values[inside]
    block: dict[str, object] = {"measure": one.name, "class": one.of_class, "n": n}
    if not n:
        return {**block, **Estimate(None, why="no such rows").to_json()}
    of_rows = None if units is None else units[inside]
    if one.rate:
        estimate = rate_estimate(values > 0.5, of_rows, "")
    else:
        difference = paired_t(values, np.zeros(n), groups=of_rows)
        estimate = Estimate(float(values.mean()))
        if not math.isnan(difference.low):
            estimate = replace(estimate, low=difference.low, high=difference.high)
    return {**block, **estimate.to_json()}


def _gaps(
    grouping: Grouping, measures: Mapping[tuple[str, str | None], Measure]
) -> list[dict[str, object]]:
    """Largest − smallest value over groups in which the measure applies to ``MIN_ROWS`` rows."""
    gaps: list[dict[str, object]] = []
    for one in measures.values():
        values = group_means(one, grouping, MIN_ROWS)
        if len(values) < 2:
            continue
        largest, smallest = (
            max(values, key=lambda g: values[g]),
            min(values, key=lambda g: values[g]),
        )
        gap = values[largest] - values[smallest]
        gaps.append(
            {
                "measure": one.name,
                "class": one.of_class,
                "gap": gap,
                "most": largest,
                "least": smallest,
            }
        )
    return gaps


def group_means(one: Measure, grouping: Grouping, min_rows: int = 1) -> dict[str, float]:
    """The mean of a measure in each group in which it applies to ``min_rows`` rows or more."""
    means = {}
    for group in grouping.names:
        inside = grouping.inside(group) & one.applies
        if inside.sum() >= min_rows:
            means[group] = float(one.values[inside].mean())
    return means


def rows_to_add(
    groups: Sequence[str | None], labels: Ints, classes: Sequence[str]
) -> list[dict[str, object]]:
    """The fewest rows that, added to these [n], give every group the class shares of all rows:
    ``{group, class, rows, add}`` for each pair that lacks some.

    A group with n_gy rows of class y needs s = max_y n_gy ÷ P(y) rows in all, so s P(y) of each
    class, of which it has n_gy. Rows without a group or class are left out.
    """
    known = [k for k, group in enumerate(groups) if group is not None and labels[k] >= 0]
    names = sorted({str(groups[k]) for k in known})
    counts = np.zeros((len(names), len(classes)))
    for k in known:
        counts[names.index(str(groups[k])), labels[k]] += 1
    rates = counts.sum(axis=0) / max(1, len(known))
    additions: list[dict[str, object]] = []
    for group, class_counts in zip(names, counts, strict=True):
        frequent = rates > 0
        group_total = (
            float((class_counts[frequent] / rates[frequent]).max()) if frequent.any() else 0.0
        )
        for y, name in enumerate(classes):
            # Anything below 1e-9 above a whole number is rounding.
            add = math.ceil(group_total * float(rates[y]) - class_counts[y] - 1e-9)
            if add > 0:
                additions.append(
                    {"group": group, "class": name, "rows": int(class_counts[y]), "add": add}
                )
    return additions
