"""Is a model as good for each group of rows as for the others?

What is compared is a value a row, among the rows of which it is asked (``Measure``). On validation
rows each group is held against all other rows of the column, in every measure; what stands out
there, at most ``MOST`` of them, are candidates. The test rows are asked about these and in the
direction seen, each once: Holm's adjustment over the candidates makes a single false finding among
all of a run at most as likely as ``ALPHA``, however many groups and measures were looked at.

How many rows of which group and class would make groups and classes independent?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.analyses.row_scores import rate_estimate
from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.stats.intervals import fisher_above, rate_gap, rows_for_rates
from holdfast.stats.paired_tests import welch
from holdfast.stats.two_samples import holm

ACCURACY, POSITIVE = "accuracy", "positive rate"
FALSE_POSITIVE, FALSE_NEGATIVE = "false-positive rate", "false-negative rate"
LOSS, ERROR, SIGNED = "loss", "absolute error", "error"


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """``values`` [n] are 0 or 1 of a ``rate``, numbers otherwise; ``among`` [n] says of which rows
    it is asked; ``of`` is the class (label) it is about."""

    name: str
    values: Floats
    among: Bools
    of: str | None = None
    rate: bool = True

    @property
    def title(self) -> str:
        """As one reads it."""
        return self.name if self.of is None else f"{self.name} of {self.of}"


def measures_of(told: Predictions) -> tuple[Measure, ...]:
    """What can be compared of these answers.

    Of classes: accuracy; of each class P(answered c), P(answered c | not c), P(not answered c | c)
    (demographic parity, and the two halves of equalised odds, 1610.02413). Of two classes the
    second alone, since the first's are its complements. Of several labels the same of each label,
    and how often all are right. Of numbers the absolute error and the error with its sign. Of tags
    how often all are right. Else the loss.
    """
    table = told.table
    every = np.ones(len(told), dtype=bool)
    if told.predictions is not None and "value" in table.rows.column_names:
        error = np.asarray(told.predictions, dtype=np.float64) - table.column("value")
        return (
            Measure(ERROR, np.abs(error), every, rate=False),
            Measure(SIGNED, error, every, rate=False),
        )
    if told.wrong is None:
        return (Measure(LOSS, told.losses, np.isfinite(told.losses), rate=False),)
    found = [Measure(ACCURACY, (~told.wrong).astype(np.float64), every)]
    if told.predictions is None or not told.names:
        return tuple(found)
    labels, answers = _marks(told)
    # The complement of the second class says nothing new.
    only = told.names[1:] if len(told.names) == 2 and not _several(told) else told.names
    for k, name in enumerate(told.names):
        if name not in only:
            continue
        answered, is_it = answers[:, k].astype(np.float64), labels[:, k]
        found += [
            Measure(POSITIVE, answered, every, name),
            Measure(FALSE_POSITIVE, answered, ~is_it, name),
            Measure(FALSE_NEGATIVE, 1 - answered, is_it, name),
        ]
    return tuple(found)


def _several(told: Predictions) -> bool:
    return "labels" in told.table.rows.column_names


def _marks(told: Predictions) -> tuple[Bools, Bools]:
    """Whether each row is labelled and answered as each name, [n, names] twice."""
    assert told.predictions is not None
    index = {name: k for k, name in enumerate(told.names)}
    sets = [_names_of(one) for one in told.predictions]
    if _several(told):
        truth: list[list[int]] = told.table.column("labels")
    else:
        known: Ints = told.table.column("label")
        truth = [[int(k)] if k >= 0 else [] for k in known]
    labels = np.zeros((len(told), len(index)), dtype=bool)
    answers = np.zeros_like(labels)
    for row, (is_it, said) in enumerate(zip(truth, sets, strict=True)):
        labels[row, is_it] = True
        answers[row, [index[name] for name in said if name in index]] = True
    return labels, answers


def _names_of(prediction: object) -> Sequence[str]:
    if prediction is None:
        return ()
    if isinstance(prediction, (list, tuple, np.ndarray)):
        return [str(one) for one in prediction]
    return [str(prediction)]


ALPHA = 0.05
# Validation rows this far from the others make a candidate.
STANDS_OUT = 0.1
MOST = 10
# Fewer validation rows than this are named as too few, and never compared.
LEAST = 10
# How large a gap of rates is to be worth settling, and how surely it is to be seen.
MATTERS, POWER = 0.1, 0.8
MOST_GROUPS = 20
# With more classes than ten, only the measures that are candidates stand in the tables.
MOST_SHOWN = 31


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """A column by which rows are told apart: its ``name``, and the group of each row [n], ``None``
    for a row that is in none."""

    name: str
    of_rows: Sequence[str | None]

    @property
    def names(self) -> tuple[str, ...]:
        """The groups that have rows."""
        return tuple(sorted({one for one in self.of_rows if one is not None}))

    def inside(self, group: str) -> Bools:
        """Which rows are of ``group`` [n]."""
        return np.array([one == group for one in self.of_rows], dtype=bool)

    @property
    def known(self) -> Bools:
        """Which rows are of any group [n]."""
        return np.array([one is not None for one in self.of_rows], dtype=bool)


Columns = Mapping[str, Sequence[str | None]]


def groupings_of(columns: Columns, names: Sequence[str]) -> list[Grouping]:
    """The ``columns`` beside the rows by these ``names``, as rows are told apart by them."""
    found = []
    for name in names:
        if name in columns:
            cells = [None if c is None or not str(c).strip() else str(c) for c in columns[name]]
            found.append(Grouping(name, cells))
    return found


@dataclass(frozen=True, slots=True)
class GroupCandidate:
    """A ``group`` of ``column`` that looked ``above`` or below the others on validation rows in a
    ``measure`` (of class ``of``); ``gap`` is group − others there."""

    column: str
    group: str
    measure: str
    of: str | None
    above: bool
    gap: float


@dataclass(frozen=True, slots=True)
class GroupCandidates:
    """Candidates, fixed on validation rows; ``looked`` group × measure pairs were looked at, and
    ``small`` are the groups with too few rows: (column, group) → validation rows."""

    candidates: tuple[GroupCandidate, ...]
    looked: int
    small: Mapping[tuple[str, str], int]
    columns: tuple[str, ...]


def usable(grouping: Grouping) -> bool:
    """Whether a column tells groups apart: two to ``MOST_GROUPS`` values, two of them in ``LEAST``
    rows."""
    counts = [int(grouping.inside(name).sum()) for name in grouping.names[: MOST_GROUPS + 1]]
    return 2 <= len(counts) <= MOST_GROUPS and sum(n >= LEAST for n in counts) >= 2


def find_gaps(told: Predictions, groupings: Sequence[Grouping]) -> GroupCandidates:
    """Candidates among the groups of validation rows."""
    measures, ranked, small, looked = measures_of(told), [], {}, 0
    for grouping in groupings:
        known = grouping.known
        for group in grouping.names:
            inside = grouping.inside(group)
            if inside.sum() < LEAST:
                small[grouping.name, group] = int(inside.sum())
                continue
            for one in measures:
                looked += 1
                seen = _compared(one, inside & one.among, known & ~inside & one.among)
                if seen is None:
                    continue
                gap, above, below = seen
                p = min(above, below)
                if p <= STANDS_OUT:
                    which = GroupCandidate(
                        grouping.name, group, one.name, one.of, above < below, gap
                    )
                    ranked.append((p, which))
    ranked.sort(key=lambda pair: (pair[0], -abs(pair[1].gap)))
    chosen = tuple(candidate for _, candidate in _once(ranked)[:MOST])
    return GroupCandidates(chosen, looked, small, tuple(one.name for one in groupings))


def _once(ranked: list[tuple[float, GroupCandidate]]) -> list[tuple[float, GroupCandidate]]:
    """Of a column with two groups the one is the other turned round: the first stays."""
    kept, seen = [], set()
    for p, one in ranked:
        key = (one.column, one.measure, one.of, round(p, 12), round(abs(one.gap), 12))
        if key not in seen:
            seen.add(key)
            kept.append((p, one))
    return kept


def confirm_gaps(
    found: GroupCandidates, told: Predictions, groupings: Sequence[Grouping]
) -> dict[str, object]:
    """What the test rows say: every group's measures with intervals, the candidates that hold, and
    of the others how many rows would settle them."""
    measures = {(one.name, one.of): one for one in measures_of(told)}
    by_name = {one.name: one for one in groupings}
    asked = {(one.measure, one.of) for one in found.candidates}
    few = len(measures) <= MOST_SHOWN
    shown = {k: m for k, m in measures.items() if few or k in asked or k[1] is None}
    units = told.groups
    tested = [
        _tested(one, by_name.get(one.column), measures.get((one.measure, one.of)), units)
        for one in found.candidates
    ]
    adjusted = holm(np.array([p if p is not None else 1.0 for p, _ in tested]))
    findings, open_ = [], []
    for one, (p, record), q in zip(found.candidates, tested, adjusted, strict=True):
        if p is not None and q < ALPHA:
            findings.append({**record, "p_adjusted": float(q)})
        else:
            rows = _to_settle(one, by_name.get(one.column), measures, len(found.candidates))
            open_.append({**record, "p_adjusted": float(q), "rows_to_settle": rows})
    return {
        "columns": [
            _table(by_name[name], shown, units) for name in found.columns if name in by_name
        ],
        "looked": found.looked,
        "candidates": len(found.candidates),
        "findings": findings,
        "undecided": open_,
        "small": [
            {"column": c, "group": g, "valid_rows": n, "rows_to_settle": _least_rows()}
            for (c, g), n in found.small.items()
        ],
    }


def _compared(measure: Measure, inside: Bools, others: Bools) -> tuple[float, float, float] | None:
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


def _tested(
    one: GroupCandidate, grouping: Grouping | None, measure: Measure | None, units: Ints | None
) -> tuple[float | None, dict[str, object]]:
    record: dict[str, object] = {
        "column": one.column,
        "group": one.group,
        "measure": one.measure,
        "class": one.of,
        "gap_valid": one.gap,
    }
    if grouping is None or measure is None:
        return None, {**record, "gap": Estimate(None, why="no such rows").to_json()}
    inside = grouping.inside(one.group) & measure.among
    others = grouping.known & ~grouping.inside(one.group) & measure.among
    record |= {"n": int(inside.sum()), "others": int(others.sum())}
    seen = _compared(measure, inside, others)
    if seen is None:
        why = "fewer than two test rows on a side"
        return None, {**record, "gap": Estimate(None, why=why).to_json()}
    gap, above, below = seen
    p = above if one.above else below
    low, high = _gap_limits(measure, inside, others)
    if units is not None:
        gap, low, high, p = _by_units(measure, inside, others, units, one.above)
    record["value"] = float(measure.values[inside].mean())
    record["value_others"] = float(measure.values[others].mean())
    if math.isnan(low):
        # A reader is told why there is no interval, not shown a number that is none.
        one_unit = Estimate(gap, why="all these rows are of one unit").to_json()
        return p, {**record, "gap": one_unit}
    return p, {**record, "gap": Estimate(gap, low, high).to_json()}


def _gap_limits(measure: Measure, inside: Bools, others: Bools) -> tuple[float, float]:
    one, other = measure.values[inside], measure.values[others]
    if measure.rate:
        return rate_gap(round(float(one.sum())), len(one), round(float(other.sum())), len(other))
    found = welch(one, other)
    return found.low, found.high


def _by_units(
    measure: Measure, inside: Bools, others: Bools, units: Ints, above: bool
) -> tuple[float, float, float, float]:
    """The gap with rows that come in groups: the linearised variance of a difference of two ratios,
    Σ_u (Σ_{i∈u} (x_i − x̄_a)/n − (x_i − x̄_b)/m)² · U/(U − 1), and Student's t with U − 1 degrees
    of freedom (Kish 1965)."""
    from scipy.special import stdtr, stdtrit

    n, m = int(inside.sum()), int(others.sum())
    mean_a, mean_b = measure.values[inside].mean(), measure.values[others].mean()
    part = np.zeros(len(units))
    part[inside] = (measure.values[inside] - mean_a) / n
    part[others] -= (measure.values[others] - mean_b) / m
    there = inside | others
    sums = np.bincount(units[there], weights=part[there])
    count = len(np.unique(units[there]))
    gap = float(mean_a - mean_b)
    if count < 2:
        return gap, math.nan, math.nan, 1.0
    error = math.sqrt(float((sums**2).sum()) * count / (count - 1))
    half = float(stdtrit(count - 1, 0.975)) * error
    if not error:
        # Rows that show no spread give no evidence by this way.
        return gap, gap, gap, 1.0
    t = gap / error if above else -gap / error
    return gap, gap - half, gap + half, float(stdtr(count - 1, -t))


def _to_settle(
    one: GroupCandidate,
    grouping: Grouping | None,
    measures: Mapping[tuple[str, str | None], Measure],
    candidates: int,
) -> int | None:
    """Test rows of the column with which a gap of ``MATTERS`` would be seen, at the mix of the
    groups here; ``None`` where the measure is no rate or nothing is known of it."""
    measure = measures.get((one.measure, one.of))
    if grouping is None or measure is None or not measure.rate:
        return None
    asked = grouping.known & measure.among
    inside = grouping.inside(one.group) & asked
    if not inside.any() or not (asked & ~inside).any():
        return None
    rate = float(measure.values[asked & ~inside].mean())
    other = min(1.0, rate + MATTERS) if one.above else max(0.0, rate - MATTERS)
    if abs(other - rate) < MATTERS / 2:
        other = rate - MATTERS if one.above else rate + MATTERS
    share = float(inside.sum() / asked.sum())
    need = rows_for_rates(other, rate, share, ALPHA / max(1, candidates), POWER)
    return math.ceil(need * int(grouping.known.sum()) / int(asked.sum()))


def _least_rows() -> int:
    """Rows of a group of its own with which a gap of ``MATTERS`` from half would be seen, were
    there nine others to each of them."""
    return math.ceil(0.1 * rows_for_rates(0.5 - MATTERS, 0.5, 0.1, ALPHA, POWER))


def _table(
    grouping: Grouping, measures: Mapping[tuple[str, str | None], Measure], units: Ints | None
) -> dict[str, object]:
    """Every group's measures on test rows, and the largest gap of each measure."""
    groups = {}
    for group in grouping.names:
        inside = grouping.inside(group)
        each = [_value(one, inside & one.among, units) for one in measures.values()]
        groups[group] = {"rows": int(inside.sum()), "measures": each}
    return {"column": grouping.name, "groups": groups, "gaps": _gaps(grouping, measures)}


def _value(one: Measure, inside: Bools, units: Ints | None) -> dict[str, object]:
    n, values = int(inside.sum()), one.values[inside]
    said: dict[str, object] = {"measure": one.name, "class": one.of, "n": n}
    if not n:
        return {**said, **Estimate(None, why="no such rows").to_json()}
    found = Estimate(float(values.mean()))
    if one.rate:
        found = rate_estimate(values > 0.5, None if units is None else units[inside], "")
    elif n > 1:
        from scipy.special import stdtrit

        half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n))
        mean = float(values.mean())
        found = Estimate(mean, mean - half, mean + half)
    return {**said, **found.to_json()}


def _gaps(
    grouping: Grouping, measures: Mapping[tuple[str, str | None], Measure]
) -> list[dict[str, object]]:
    """Largest − smallest value over groups with ``LEAST`` rows of the measure."""
    found: list[dict[str, object]] = []
    for one in measures.values():
        values = group_means(one, grouping, LEAST)
        if len(values) < 2:
            continue
        most, least = max(values, key=lambda g: values[g]), min(values, key=lambda g: values[g])
        gap = values[most] - values[least]
        found.append(
            {"measure": one.name, "class": one.of, "gap": gap, "most": most, "least": least}
        )
    return found


def group_means(one: Measure, grouping: Grouping, least: int = 1) -> dict[str, float]:
    """The mean of a measure in each group that has ``least`` rows of it."""
    found = {}
    for group in grouping.names:
        inside = grouping.inside(group) & one.among
        if inside.sum() >= least:
            found[group] = float(one.values[inside].mean())
    return found


def rows_to_add(
    groups: Sequence[str | None], labels: Ints, classes: Sequence[str]
) -> list[dict[str, object]]:
    """The fewest rows that, added to these [n], give every group the classes at the rates of all
    rows: ``{group, class, rows, add}`` of each pair that lacks some.

    A group with n_gy rows of class y needs s = max_y n_gy ÷ P(y) rows in all, so s P(y) of each
    class, of which n_gy are there. Rows without a group or class are left out.
    """
    known = [k for k, group in enumerate(groups) if group is not None and labels[k] >= 0]
    names = sorted({str(groups[k]) for k in known})
    counts = np.zeros((len(names), len(classes)))
    for k in known:
        counts[names.index(str(groups[k])), labels[k]] += 1
    rates = counts.sum(axis=0) / max(1, len(known))
    found: list[dict[str, object]] = []
    for group, held in zip(names, counts, strict=True):
        there = rates > 0
        whole = float((held[there] / rates[there]).max()) if there.any() else 0.0
        for y, name in enumerate(classes):
            # A hair above a whole number is rounding.
            add = math.ceil(whole * float(rates[y]) - held[y] - 1e-9)
            if add > 0:
                found.append({"group": group, "class": name, "rows": int(held[y]), "add": add})
    return found
