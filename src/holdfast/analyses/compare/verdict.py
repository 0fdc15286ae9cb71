"""The paired comparison of two models on the same rows: the first is better, equivalent within a
margin, worse, or inconclusive, and then how many rows would decide it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from holdfast.analyses.row_texts import LabelType
from holdfast.core.errors import RecipeError
from holdfast.core.printable import shorten
from holdfast.core.records import Floats, Ints
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.intervals import tango
from holdfast.stats.paired_tests import MCNEMAR_EXACT, mcnemar, newcombe, paired_t
from holdfast.stats.two_samples import holm
from holdfast.tasks.tags.entities import TagTable, entity_counts

SHOWN, CHARACTERS, CLASSES = 10, 300, 10


def differing_rows(
    pairs: PairedRows,
    rows: Ints,
    texts: Sequence[str],
    labels: Sequence[object],
    first: Sequence[object],
    second: Sequence[object],
) -> dict[str, list[dict[str, Any]]]:
    """``a_better`` and ``b_better``: the rows [n] with the largest differences in each direction,
    ten each; ties in the order of the source."""
    by_winner = {}
    for name, gap in (("a_better", pairs.gap), ("b_better", -pairs.gap)):
        order = np.argsort(-gap, kind="stable")
        largest = [int(i) for i in order[:SHOWN] if gap[i] > 0]
        by_winner[name] = [
            {
                "row": int(rows[i]),
                "text": shorten(texts[i], CHARACTERS),
                "label": labels[i],
                "a": first[i],
                "b": second[i],
            }
            for i in largest
        ]
    return by_winner


def by_class(
    pairs: PairedRows, labels: Sequence[object], groups: object = None
) -> list[dict[str, Any]] | None:
    """For each class the rows that only one model predicts correctly, and the p-value of "equally
    many" (``judge_pairs``: exact sign test, or Student's t over ``groups`` [n]; Holm over the
    classes: by chance one of them is below 5 % in at most 5 % of comparisons), 1 if its rows are
    too few groups. At most ten classes, the smallest p-values first; ``None`` if predictions are
    not counted as correct or wrong."""
    if pairs.correct is None:
        return None
    names = sorted(set(map(str, labels)))
    label_names = np.array([str(one) for one in labels], dtype=object)
    lines: list[dict[str, Any]] = []
    for name in names:
        chosen = label_names == name
        own_groups = None if groups is None else np.asarray(groups)[chosen]
        found = judge_pairs(pairs.gap[chosen], 0.01, own_groups)
        line = {"class": name, "n": found.n, "only_a": found.only_first}
        p_value = found.p_value if found.why is None else 1.0
        lines.append({**line, "only_b": found.only_second, "p_value": p_value})
    adjusted = holm(np.array([line["p_value"] for line in lines]))
    for line, p_value in zip(lines, adjusted, strict=True):
        line["p_value"] = float(p_value)
    lines.sort(key=lambda line: (line["p_value"], -abs(line["only_a"] - line["only_b"])))
    return lines[:CLASSES]


Rows = Sequence[Any]


@dataclass(frozen=True, slots=True)
class PairedRows:
    """``gap`` [n] is how much better the first model predicts each row; its mean times ``scale`` is
    ``metric`` of the first (``first``) minus that of the second (``second``). A point of margin is
    0.01 of ``gap``'s unit: of a share, or of the labels' standard deviation. ``correct`` holds the
    rows [n] that each model predicts correctly, if predictions are correct or wrong."""

    metric: str
    higher_is_better: bool
    first: float
    second: float
    gap: Floats
    scale: float = 1.0
    correct: tuple[Any, Any] | None = None


def pair_rows(label_type: LabelType, labels: Rows, first: Rows, second: Rows) -> PairedRows:
    """Pair the predictions ``first`` and ``second`` for rows with these ``labels`` [n]; a missing
    prediction (``None``) counts as wrong.

    ``class``: accuracy. ``several``: F1 over all (row, label) pairs. ``number``: mean absolute
    error, in the labels' unit; a missing number counts as the mean of the labels. ``tags``: entity
    F1. ``text``: ROUGE-L with the label. An F1 is a ratio of sums; a row's part in it is its
    influence (the linearisation 2 (h_i − F1 (a_i + l_i) ÷ 2) ÷ mean(a + l), Efron 1982).
    """
    return PAIR_FUNCTIONS[label_type](labels, first, second)


def _classes(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    correct = tuple(
        np.array([a == b for a, b in zip(labels, one, strict=True)], dtype=bool)
        for one in (first, second)
    )
    values = [float(one.mean()) for one in correct]
    gap = correct[0].astype(float) - correct[1]
    return PairedRows("accuracy", True, values[0], values[1], gap, correct=(correct[0], correct[1]))


def _sets(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    label_sets = [set(one) for one in labels]
    counts = []
    for answers in (first, second):
        sets = [set(one or ()) for one in answers]
        hits = np.array([len(a & b) for a, b in zip(label_sets, sets, strict=True)], dtype=float)
        counts.append((hits, np.array([len(one) for one in sets], dtype=float)))
    return _ratio("f1_micro", np.array([len(one) for one in label_sets], dtype=float), *counts)


def _tags(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    all_tags = (tag for said in (labels, first, second) for row in said for tag in row or ())
    names = sorted({OUTSIDE, *all_tags})
    table, tag_ids = TagTable.of(names), {name: i for i, name in enumerate(names)}
    lengths = np.array([len(row) for row in labels], dtype=np.int64)

    def ids_of(answers: Rows) -> Any:
        # A row with another number of words counts as completely wrong.
        pairs = zip(answers, lengths, strict=True)
        rows = [row if row and len(row) == n else [OUTSIDE] * n for row, n in pairs]
        return np.array([tag_ids[tag] for row in rows for tag in row], dtype=np.int64)

    truth, types = ids_of(labels), len(table.entities)
    counts_by_model, labelled = [], np.zeros(len(lengths))
    for answers in (first, second):
        entities = entity_counts(truth, ids_of(answers), lengths, table).reshape(
            len(lengths), 3, types
        )
        hits, predicted, labelled = entities.sum(axis=2).T
        counts_by_model.append((hits, predicted))
    return _ratio("entity_f1", labelled, *counts_by_model)


def _ratio(
    metric: str, labelled: Floats, first: tuple[Floats, Floats], second: tuple[Floats, Floats]
) -> PairedRows:
    values, parts = [], []
    for hits, predicted in (first, second):
        size = predicted + labelled
        value = 2 * float(hits.sum()) / float(size.sum()) if size.sum() else float("nan")
        values.append(value)
        parts.append(
            value + (2 * hits - value * size) / size.mean() if size.sum() else hits * value
        )
    return PairedRows(metric, True, values[0], values[1], parts[0] - parts[1])


def _numbers(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    targets = np.array([float(one) for one in labels])
    spread = float(targets.std()) or 1.0
    errors = []
    for answers in (first, second):
        predicted = np.array([targets.mean() if one is None else float(one) for one in answers])
        errors.append(np.abs(predicted - targets))
    values = [float(one.mean()) for one in errors]
    return PairedRows("mae", False, values[0], values[1], (errors[1] - errors[0]) / spread, -spread)


def _texts(labels: Rows, first: Rows, second: Rows) -> PairedRows:
    from holdfast.metrics.texts import need_score_packages, rouge_rows

    need_score_packages()
    references = [str(one) for one in labels]
    scores = [
        rouge_rows(references, [str(one or "") for one in answers], ("rougeL",))[0][:, 0]
        for answers in (first, second)
    ]
    values = [float(one.mean()) for one in scores]
    return PairedRows("rouge_l", True, values[0], values[1], cast("Floats", scores[0] - scores[1]))


PAIR_FUNCTIONS: Mapping[LabelType, Callable[[Rows, Rows, Rows], PairedRows]] = {
    "class": _classes,
    "several": _sets,
    "number": _numbers,
    "tags": _tags,
    "text": _texts,
}


POWER = 0.8
# Of the normal distribution: 2.5 % for better and worse, 5 % for each side of "equivalent".
Z_DIFFERENCE, Z_EQUIVALENCE = 1.959964, 1.644854
GROWTH = 1.01
MAX_ROWS = 10**9


def required_rows(gap: Floats, margin: float, codes: Ints | None = None) -> int | None:
    """The smallest total number of rows with which the same tests reach a verdict (better, worse
    or equivalent within ``margin``) with a power of 80 %, given the paired differences ``gap`` [n].

    The differences of new rows are not known: their mean is N(d, v ÷ n + v ÷ k) for k more rows,
    with d and v the mean and variance of the present ones (assurance: O'Hagan, Stevens and Campbell
    2005), so the mean of all N = n + k is N(d, v k ÷ (n N)). A verdict is reached if it lies beyond
    1.96 standard errors, or within the margin by 1.64 of them; with N = 13 v ÷ margin² one of the
    two always holds. For correct and wrong predictions v counts one more row for each model that
    only this model predicts correctly, since none seen does not mean that there are none. ``codes``
    [n] are groups of rows, which count as whole groups of the present mean size. ``None`` for no
    rows, fewer than two groups or rows of numbers, differences without spread, and results above a
    billion.
    """
    from scipy.special import ndtr

    differences = np.asarray(gap, dtype=np.float64)
    spread, size = differences, 1.0
    if codes is not None:
        size = len(differences) / (int(codes.max(initial=-1)) + 1)
        spread = np.bincount(codes, differences - differences.mean()) / size + differences.mean()
    n, signs = len(spread), codes is None and np.isin(differences, (-1.0, 0.0, 1.0)).all()
    if n < 2 and not (signs and n):
        return None
    value = float(spread.mean())
    if signs:
        # With one row that only one model predicts correctly, value² would exceed that share.
        discordant = (float((differences != 0).sum()) + 2) / (n + 2)
        variance = max(discordant - value**2, discordant / 2)
    else:
        variance = float(spread.var(ddof=1))
    if not variance:
        return None
    # Avoids division by zero; such a small margin takes more rows than anybody has.
    largest_total = (Z_DIFFERENCE + Z_EQUIVALENCE) ** 2 * variance / max(margin**2, 1e-30)
    total_limit = max(n * GROWTH, largest_total * GROWTH)
    totals = n * GROWTH ** np.arange(1, math.ceil(math.log(total_limit / n) / math.log(GROWTH)) + 2)
    error = np.sqrt(variance / totals)
    wide = np.sqrt(variance * (totals - n) / (n * totals))
    beyond, within = Z_DIFFERENCE * error, margin - Z_EQUIVALENCE * error

    def below(limit: Floats) -> Floats:
        return np.asarray(ndtr((limit - value) / wide))

    power = 1 - below(beyond) + below(-beyond)
    power += np.where(within > 0, below(np.abs(within)) - below(-np.abs(within)), 0.0)
    enough = (power >= POWER) | (within >= beyond)
    rows = math.ceil(float(totals[np.argmax(enough)]) * size)
    return rows if enough.any() and rows <= MAX_ROWS else None


Verdict = Literal["better", "equivalent", "worse", "undecided"]
# A difference is claimed at 2.5 % in each direction; "equivalent" by two one-sided tests at 5 %.
ONE_SIDED_LEVEL, EQUIVALENCE_LEVEL = 0.025, 0.05
MIN_GROUPS = 3
# With fewer rows the mean of values other than −1, 0 or 1 is not approximately normal.
MIN_VALUES = 20


@dataclass(frozen=True, slots=True)
class PairedVerdict:
    """How the first model compares with the second on ``n`` rows.

    ``value`` is first minus second with limits ``low`` and ``high`` at 95 %; ``equivalence_limits``
    are its limits at 90 %, which decide "equivalent" (within ±``margin``); ``p_value`` is the
    two-sided test of no difference. For correct and wrong predictions ``only_first`` and
    ``only_second`` count the rows that only one model predicts correctly. ``rows_needed`` is the
    total that would decide an undecided comparison. Undefined numbers are NaN, with ``why``.
    """

    verdict: Verdict
    value: float
    low: float
    high: float
    equivalence_limits: tuple[float, float]
    p_value: float
    margin: float
    n: int
    groups: int | None
    only_first: int | None
    only_second: int | None
    rows_needed: int | None
    why: str | None = None

    @property
    def test(self) -> str:
        """The test that gives ``p_value``."""
        if self.groups is not None:
            return "paired t-test of groups"
        return "paired t-test" if self.only_first is None else MCNEMAR_EXACT

    def difference(self, scale: float = 1.0) -> dict[str, Any]:
        """``value`` and its limits times ``scale``, for JSON; for errors the sign is reversed."""
        low, high = _scaled((self.low, self.high), scale)
        block = {
            "value": self.value * scale,
            "low": low,
            "high": high,
            "level": 1 - 2 * ONE_SIDED_LEVEL,
        }
        return {**block, "why": self.why} if self.why else block

    def to_json(self, scale: float = 1.0) -> dict[str, Any]:
        """The fields of ``compare --json`` that are numbers, differences times ``scale``."""
        discordant = {"only_a": self.only_first, "only_b": self.only_second}
        low, high = _scaled(self.equivalence_limits, scale)
        return {
            "verdict": self.verdict,
            "difference": self.difference(scale),
            "rows_to_settle": self.rows_needed,
            "margin": self.margin * abs(scale),
            "equivalence": {"low": low, "high": high, "level": 1 - 2 * EQUIVALENCE_LEVEL},
            "p_value": self.p_value,
            "test": self.test,
            "n": self.n,
            "groups": self.groups,
            "discordant": None if self.only_first is None else discordant,
        }


def _scaled(limits: tuple[float, float], scale: float) -> tuple[float, float]:
    low, high = (end * scale for end in limits)
    return (low, high) if scale > 0 else (high, low)


def check_margin(points: float) -> None:
    """Raise ``RecipeError`` for a margin in points that is not above 0 and below 100."""
    if not 0 < points < 100 or not math.isfinite(points):
        rule = "must be above 0 and below 100 points"
        raise RecipeError("--margin", rule, points, "E.g. --margin 2 for two points.")


def judge_pairs(gap: Floats, margin: float, groups: object = None) -> PairedVerdict:
    """The verdict on the paired differences ``gap`` [n], first minus second; larger is better.

    Correct and wrong predictions (every difference −1, 0 or 1) of single rows: better or worse by
    the exact sign test on the rows that only one model predicts correctly, one-sided at 2.5 % (so
    equal models get such a verdict in 5 % at most, and far less often if few rows differ);
    equivalent if Tango's score test with its correction rejects a difference of the margin on both
    sides at 5 %; the interval is Newcombe's, widened to 0 if the exact test does not reject 0.
    Other differences, and rows in ``groups`` [n]: Student's t of the rows, or of the sums of groups
    about their share, at the same levels.

    A significant difference is "better" or "worse" even if it is smaller than the margin.
    """
    differences = np.asarray(gap, dtype=np.float64)
    codes = None if groups is None else group_codes(groups, len(differences))
    n_groups = None if codes is None else int(codes.max(initial=-1)) + 1
    binary = bool(np.isin(differences, (-1.0, 0.0, 1.0)).all())
    first, second = _counts(differences) if binary else (None, None)
    why = _too_few(differences, n_groups, binary)
    verdict: Verdict = "undecided"
    if why is not None:
        limits, equivalence_limits, p_value = (math.nan, math.nan), (math.nan, math.nan), math.nan
    elif binary and codes is None:
        limits, equivalence_limits, p_value = _judge_signs(*_counts(differences), len(differences))
    else:
        limits, equivalence_limits, p_value = _judge_values(differences, codes)
    if p_value <= 2 * ONE_SIDED_LEVEL and (limits[0] > 0 or limits[1] < 0):
        verdict = "better" if limits[0] > 0 else "worse"
    elif -margin < equivalence_limits[0] and equivalence_limits[1] < margin:
        verdict = "equivalent"
    undecided = verdict == "undecided" and why is None
    return PairedVerdict(
        verdict=verdict,
        value=float(differences.mean()) if len(differences) else math.nan,
        low=limits[0],
        high=limits[1],
        equivalence_limits=equivalence_limits,
        p_value=p_value,
        margin=margin,
        n=len(differences),
        groups=n_groups,
        only_first=first,
        only_second=second,
        rows_needed=required_rows(differences, margin, codes) if undecided else None,
        why=why,
    )


def _too_few(gap: Floats, n_groups: int | None, binary: bool) -> str | None:
    if not len(gap):
        return "there are no rows to compare"
    if not np.isfinite(gap).all():
        return "a row's number is not finite"
    if n_groups is not None and n_groups < MIN_GROUPS:
        return f"the rows are of {n_groups} group(s), too few to show how much groups differ"
    if not binary and n_groups is None and len(gap) < MIN_VALUES:
        return f"the interval of such numbers is unreliable with fewer than {MIN_VALUES} rows"
    return None


def _counts(gap: Floats) -> tuple[int, int]:
    return int((gap == 1).sum()), int((gap == -1).sum())


def _judge_signs(
    first: int, second: int, n: int
) -> tuple[tuple[float, float], tuple[float, float], float]:
    first_only = np.arange(n) < first
    second_only = (np.arange(n) >= first) & (np.arange(n) < first + second)
    p_value = mcnemar(first_only, second_only, mid=False)
    low, high = newcombe(first_only, second_only, 1 - 2 * ONE_SIDED_LEVEL)
    if p_value > 2 * ONE_SIDED_LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    return (low, high), tango(first, second, n, 1 - 2 * EQUIVALENCE_LEVEL), p_value


def _judge_values(
    gap: Floats, codes: Ints | None
) -> tuple[tuple[float, float], tuple[float, float], float]:
    value, nothing = float(gap.mean()), np.zeros(len(gap))
    wide = paired_t(gap, nothing, 1 - 2 * ONE_SIDED_LEVEL, codes)
    narrow = paired_t(gap, nothing, 1 - 2 * EQUIVALENCE_LEVEL, codes)
    if wide.low == wide.high:
        # Equal differences show how rare another one can be, not that there is none.
        low, high = tango(0, 0, wide.n, 1 - 2 * EQUIVALENCE_LEVEL)
        return (value + low, value + high), (value + low, value + high), 1.0
    return (wide.low, wide.high), (narrow.low, narrow.high), wide.p_value
