"""Choose a confidence threshold on validation rows with a guarantee; and read the costs of errors,
by which predictions may be chosen instead.

``for_precision`` guarantees the precision of the predictions that are given, ``for_coverage`` the
share of rows that get one; ``read_costs`` reads a CSV with the columns ``true``, ``predicted`` and
``cost``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from holdfast.core.errors import DataError, Defect
from holdfast.core.records import Floats, Ints
from holdfast.core.wording import list_phrase
from holdfast.data.labels.spelling import match_spellings
from holdfast.data.source import read_source
from holdfast.runs.threshold import CostMatrix
from holdfast.stats.intervals import design_effect
from holdfast.stats.paired_tests import Bools

CONFIDENCE_LEVEL = 0.95
# Each walk from confident to less confident rows begins where the first rows may hold this many
# errors. Of eleven sets of starts, on draws of 100 to 1,000 rows of CR, MR, TREC and BANKING77,
# this one had the highest coverage (others 84 to 99 % of it); it was then measured on other draws.
STARTS = (0, 4)
# Two more starts, at these shares of all rows, each with a tenth of the error: a walk from the most
# confident row may stop by chance long before the many rows that satisfy a modest guarantee.
LATE_STARTS = (0.5, 1.0)
LATE_ERROR_SHARE = 0.1
EARLY_ERROR_SHARE = 1 - LATE_ERROR_SHARE * len(LATE_STARTS)
POWER = 0.8
MAX_ROWS = 10_000_000
# The highest possible guarantee is searched for in thousandths.
GRID = 1000


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """A row gets a prediction if its confidence is at least ``threshold``. If nothing can be
    guaranteed it is ``None``, with ``why`` and the ``rows_needed``: the number of validation rows
    that would allow it with a power of 80 %, if they are like these (``None``: no number would).
    ``answered`` of the ``n`` validation rows get a prediction, and ``wrong`` of these are wrong."""

    threshold: float | None
    n: int
    answered: int
    wrong: int
    why: str | None = None
    rows_needed: int | None = None


def for_precision(
    confidence: Floats,
    wrong: Bools,
    target: float,
    *,
    sure: float = CONFIDENCE_LEVEL,
    groups: Ints | None = None,
) -> ThresholdChoice:
    """The lowest threshold above which the precision is shown to be ``target`` or more.

    Learn then test (2110.01052) with fixed sequences: rows are sorted by confidence. From a start
    on, each longer prefix is tested (exact binomial test of "precision below the target", which is
    Clopper–Pearson's limit), and the walk ends at the first test that does not reject. The first
    prefix that is not good enough is rejected with a probability of at most 1 − ``sure``, and
    nothing beyond it is reached otherwise. The start of a walk depends only on the number of rows;
    several starts share the error. Exact if rows are drawn alike and confident predictions are
    correct more often than less confident ones; measured for other data.
    Parameters
    ----------
    confidence, wrong : [n], of rows that the model was not trained on.
    target : strictly between 0 and 1.
    groups : [n], whole numbers: the rows of a group count as n ÷ design effect.
    """
    if not 0 < target < 1 or not 0 < sure < 1:
        raise Defect("a guaranteed precision", "must lie strictly between 0 and 1", (target, sure))
    n = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    ranked, mistakes = confidence[order], np.cumsum(wrong[order].astype(np.int64))
    effect = _design_effect(wrong, groups)
    if effect is None:
        return ThresholdChoice(
            None, n, 0, 0, "the rows are of one group, which says nothing about other groups"
        )
    prefix = np.arange(1, n + 1)
    # Rows of equal confidence get a prediction together or not at all.
    ends_tie = np.append(ranked[1:] < ranked[:-1], True) if n else np.zeros(0, dtype=bool)
    size, errors = np.floor(prefix / effect), np.ceil(mistakes / effect)
    alpha = 1 - sure
    late = tuple((math.ceil(share * n / effect), LATE_ERROR_SHARE * alpha) for share in LATE_STARTS)
    starts = _starts(int(n / effect), target, EARLY_ERROR_SHARE * alpha)
    best = 0
    # Of "precision below the target": P(that few errors or fewer | as many as allowed).
    from scipy.special import bdtr

    p_values = np.asarray(bdtr(errors, np.maximum(size, errors).astype(np.int64), 1 - target))
    for begin, level in (*starts, *late):
        rejected = p_values <= level
        prefixes = np.flatnonzero(ends_tie & (size >= begin))
        stops = np.flatnonzero(~rejected[prefixes])
        passed = prefixes[: stops[0]] if len(stops) else prefixes
        best = max(best, int(passed[-1]) + 1 if len(passed) else 0)
    if best:
        return ThresholdChoice(float(ranked[best - 1]), n, best, int(mistakes[best - 1]))
    rows = _rows_needed(errors, size, effect, n, target, alpha)
    return ThresholdChoice(None, n, 0, 0, _why(starts, ranked, mistakes, target, alpha), rows)


def for_coverage(
    confidence: Floats, wrong: Bools, target: float, *, sure: float = CONFIDENCE_LEVEL
) -> ThresholdChoice:
    """The highest threshold at which at least the share ``target`` of new rows gets a prediction,
    in ``sure`` of draws of validation rows.

    The share at or above the j-th largest of n confidences is Beta(j, n + 1 − j), whatever their
    distribution (Vovk 2012; tolerance limits, Wilks 1941). The smallest j is taken whose share lies
    above the target with that probability. If no j does, no threshold guarantees it: only a
    prediction for every row would, without a threshold. With a target of 1 every row gets one.
    """
    from scipy.special import betainc

    if not 0 < target <= 1 or not 0 < sure < 1:
        raise Defect("a guaranteed coverage", "must lie above 0, at most 1", (target, sure))
    n = len(confidence)
    places = np.arange(1, n + 1)
    enough = 1 - betainc(places, n + 1 - places, target) >= sure if n else np.zeros(0, dtype=bool)
    if target == 1:
        return ThresholdChoice(0.0, n, n, int(wrong.sum()))
    if not enough.any():
        # With n rows the lowest threshold is the smallest confidence, j = n: targetⁿ ≤ 1 − sure.
        rows = math.ceil(math.log(1 - sure) / math.log(target))
        why = f"{n} validation rows are too few: a coverage of {target:g} needs {rows} rows"
        return ThresholdChoice(None, n, 0, 0, why, rows if rows <= MAX_ROWS else None)
    threshold = float(-np.sort(-confidence)[np.argmax(enough)])
    above = confidence >= threshold
    return ThresholdChoice(threshold, n, int(above.sum()), int(wrong[above].sum()))


def highest_precision(
    confidence: Floats, wrong: Bools, below: float = 1.0, *, groups: Ints | None = None
) -> tuple[float, ThresholdChoice] | None:
    """The highest precision below ``below``, in thousandths, that ``for_precision`` guarantees with
    these rows, with its choice; ``None`` if it guarantees none.

    No walk guarantees more than the limit of a single prefix (Clopper and Pearson at
    ``CONFIDENCE_LEVEL``), so the search goes down from the highest of these. Parameters as for
    ``for_precision``.
    """
    from scipy.special import betaincinv

    effect = _design_effect(wrong, groups)
    if effect is None or not len(wrong):
        return None
    mistakes = np.cumsum(wrong[np.argsort(-confidence, kind="stable")].astype(np.int64))
    size = np.floor(np.arange(1, len(wrong) + 1) / effect)
    errors = np.minimum(np.ceil(mistakes / effect), size)
    not_all_wrong = errors < size
    limits = 1 - betaincinv(
        errors[not_all_wrong] + 1, size[not_all_wrong] - errors[not_all_wrong], CONFIDENCE_LEVEL
    )
    highest = math.floor(GRID * float(limits.max(initial=0.0)))
    for thousandth in range(min(highest, math.ceil(round(GRID * below, 6)) - 1), 0, -1):
        choice = for_precision(confidence, wrong, thousandth / GRID, groups=groups)
        if choice.threshold is not None:
            return thousandth / GRID, choice
    return None


def highest_coverage(confidence: Floats, wrong: Bools) -> tuple[float, ThresholdChoice] | None:
    """The highest coverage, in thousandths, that ``for_coverage`` guarantees with these rows and a
    threshold, (1 − ``CONFIDENCE_LEVEL``)^(1/n), with its choice; ``None`` if it guarantees none."""
    share = math.floor(GRID * (1 - CONFIDENCE_LEVEL) ** (1 / max(len(confidence), 1))) / GRID
    if not len(confidence) or not share:
        return None
    choice = for_coverage(confidence, wrong, share)
    return None if choice.threshold is None else (share, choice)


def _design_effect(wrong: Bools, groups: Ints | None) -> float | None:
    if groups is None or not len(wrong):
        return 1.0
    effect = design_effect(~wrong, groups)
    return None if math.isnan(effect) else effect


@lru_cache(maxsize=256)
def _starts(n: int, target: float, alpha: float) -> tuple[tuple[int, float], ...]:
    """For each walk that ``n`` rows allow, the number of rows at which it begins, and its level."""
    for n_starts in range(len(STARTS), 0, -1):
        share = alpha / n_starts
        begins = [_min_rows(mistakes, target, share) for mistakes in STARTS[:n_starts]]
        if begins[-1] <= n:
            return tuple((begin, share) for begin in begins)
    return ()


def _min_rows(mistakes: int, target: float, alpha: float) -> int:
    """The fewest rows with this many errors that prove the target."""
    from scipy.special import bdtr

    high = max(mistakes, 1)
    while bdtr(mistakes, high, 1 - target) > alpha:
        high *= 2
    # Bisection: near 1 the target needs more rows than an array could hold.
    low = max(mistakes, high // 2)
    while low < high:
        middle = (low + high) // 2
        if bdtr(mistakes, middle, 1 - target) <= alpha:
            high = middle
        else:
            low = middle + 1
    return high


def _why(
    starts: tuple[tuple[int, float], ...],
    ranked: Floats,
    mistakes: Ints,
    target: float,
    alpha: float,
) -> str:
    least = _min_rows(0, target, EARLY_ERROR_SHARE * alpha)
    if not starts:
        return (
            f"{len(ranked)} validation rows are too few: a precision of {target:g} needs "
            f"{least} rows or more, even without an error"
        )
    at = min(starts[0][0], len(ranked)) - 1
    are = "is" if mistakes[at] == 1 else "are"
    return (
        f"{int(mistakes[at])} of the {at + 1} validation rows with the highest confidence {are} "
        f"wrong: too many for a precision of {target:g}"
    )


def _rows_needed(
    errors: Floats, size: Floats, effect: float, n: int, target: float, alpha: float
) -> int | None:
    """About how many validation rows would prove the target at some coverage: a test's normal
    sample size for each prefix of ten rows or more, at its own error rate."""
    from scipy.special import ndtri

    long_enough = size >= 10
    if not long_enough.any():
        return _min_rows(0, target, alpha)
    share, rate = (
        size[long_enough] / (n / effect),
        (errors[long_enough] + 0.5) / (size[long_enough] + 1),
    )
    allowed = 1 - target
    better = rate < allowed
    if not better.any():
        # Without an error the error rate is unknown: this many rows show it if no error appears.
        return None if errors[-1] else max(_min_rows(0, target, EARLY_ERROR_SHARE * alpha), n + 1)
    share, rate = share[better], rate[better]
    level = float(-ndtri(alpha / len(STARTS)))
    wide = level * math.sqrt(allowed * target) + ndtri(POWER) * np.sqrt(rate * (1 - rate))
    rows = np.maximum((wide / (allowed - rate)) ** 2, _min_rows(0, target, alpha)) / share * effect
    least = math.ceil(float(rows.min()))
    return None if least > MAX_ROWS else max(least, n + 1)


COLUMNS = ("true", "predicted", "cost")
ANY_CLASS, NO_ANSWER = "*", ("", "null")
ONE_LINE = "Keep one line for each pair."
MOST_CLASSES = 20


def read_costs(path: str, classes: Sequence[str]) -> CostMatrix:
    """The cost of each pair of true and predicted class. An empty ``predicted`` (or ``null``) means
    no prediction; ``*`` stands for every class without a line of its own. Correct predictions cost
    0 unless a line says otherwise; every other pair needs a cost.

    Raises ``DataError`` with the number of the line.
    """
    raw = read_source(path, None, None)
    if not set(COLUMNS) <= set(raw.names):
        rule = f"needs the columns {', '.join(COLUMNS)}"
        raise DataError(path, rule, ", ".join(raw.names), "E.g. true,predicted,cost.")
    lines = [raw.table[name].to_pylist() for name in COLUMNS]
    spelling = match_spellings({str(x) for one in lines[:2] for x in one if x}, classes)
    index = {name: number for number, name in enumerate(classes)}
    costs: dict[tuple[int | str, int | str], float] = {}
    for line_number, (true, predicted, cost) in enumerate(zip(*lines, strict=True), start=2):
        where = f"{path}, line {line_number}"
        key = (
            _class_index(where, "true", true, spelling, index),
            len(classes)
            if str(predicted or "").strip().lower() in NO_ANSWER
            else _class_index(where, "predicted", predicted, spelling, index),
        )
        if key in costs:
            raise DataError(
                where, "repeats a pair that has a cost", f"{true}, {predicted}", ONE_LINE
            )
        costs[key] = _number(where, cost)
    if not costs:
        raise DataError(path, "has no lines", None, "Add a line for each kind of error.")
    return CostMatrix(tuple(classes), _cost_table(path, classes, costs))


def _class_index(
    where: str, column: str, name: object, spelled: dict[str, str], index: dict[str, int]
) -> int | str:
    text = str(name or "").strip()
    if text == ANY_CLASS:
        return ANY_CLASS
    class_name = spelled.get(text, text)
    if class_name not in index:
        remedy = f"The classes: {list_phrase(list(index), MOST_CLASSES)}."
        raise DataError(where, f"has an unknown class in the column {column!r}", text, remedy)
    return index[class_name]


def _number(where: str, cost: object) -> float:
    try:
        number = float(str(cost))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(where, "has a cost that is not a number", cost, "Write e.g. 2.5.")
    return number


def _cost_table(
    path: str, classes: Sequence[str], costs: dict[tuple[int | str, int | str], float]
) -> Floats:
    count = len(classes)
    table = np.full((count, count + 1), math.inf)
    for true in range(count):
        for predicted in range(count + 1):
            # A line for the pair comes first, then one for all true classes, then for all errors.
            keys: list[tuple[int | str, int | str]] = [(true, predicted), (ANY_CLASS, predicted)]
            keys += (
                [(true, ANY_CLASS), (ANY_CLASS, ANY_CLASS)]
                if predicted < count and predicted != true
                else []
            )
            cost = next((costs[key] for key in keys if key in costs), None)
            if cost is None and predicted == true:
                cost = 0.0
            if cost is None and predicted < count:
                rule = "has no cost for predicting one class instead of another"
                pair = f"{classes[predicted]!r} instead of {classes[true]!r}"
                raise DataError(path, rule, pair, "Add that line, or *,*,1 for all others.")
            table[true, predicted] = math.inf if cost is None else cost
    no_answer = np.isfinite(table[:, count])
    if no_answer.any() and not no_answer.all():
        name = classes[int(np.argmin(no_answer))]
        rule = "has a cost of no prediction for some classes, but not for all"
        raise DataError(path, rule, name, "Add a line *,,1 for all others.")
    return table
