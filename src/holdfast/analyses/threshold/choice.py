"""A threshold on the predicted probability, chosen on validation rows with a guarantee; and the
costs of errors, by which it may be chosen instead.

``for_precision`` promises how often answers are right, ``for_coverage`` how many rows are answered;
``read_costs`` reads a CSV with the columns ``true``, ``predicted`` and ``cost``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from holdfast.core.errors import DataError, Defect
from holdfast.core.records import Floats, Ints
from holdfast.data.labels.spelling import match_spellings
from holdfast.data.source import read_source
from holdfast.runs.threshold import CostMatrix
from holdfast.stats.intervals import design_effect
from holdfast.stats.paired_tests import Bools

CONFIDENCE_LEVEL = 0.95
# Where the walks from certain to uncertain rows begin: with so many mistakes among the first. Of
# eleven sets of starts, on draws of 100 to 1,000 rows of CR, MR, TREC and BANKING77, this one had
# the most rows answered (others 84 to 99 % as many); it was then measured on other draws.
STARTS = (0, 4)
# Two more, at these shares of all rows, each with a tenth of the error: a walk from the surest row
# may stop by chance long before the many rows of which a modest promise holds.
LATE_STARTS = (0.5, 1.0)
LATE_ERROR_SHARE = 0.1
EARLY_ERROR_SHARE = 1 - LATE_ERROR_SHARE * len(LATE_STARTS)
POWER = 0.8
MAX_ROWS = 10_000_000
# What can be promised is looked for in thousandths.
GRID = 1000


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """A row is answered where its certainty is at least ``threshold``; ``None`` where nothing can
    be promised, with ``why``, and with the ``rows_needed`` of validation that would allow it with a
    chance of 80 % if they are like these (``None``: no number would). Of the ``n`` rows that it was
    chosen on ``answered`` are answered, ``wrong`` of them wrongly."""

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
    """The lowest threshold from which on the share of correct predictions is proven to be
    ``target`` or more.

    Learn then test (2110.01052) with fixed sequences: rows stand in the order of certainty; from
    a start on, each longer prefix is tested (exact binomial test of "right in less than the
    target", which is Clopper–Pearson's limit), and the walk ends at the first that is not refused.
    The first prefix that is not good enough is refused with probability 1 − ``sure`` at most, and
    nothing beyond it is reached otherwise. Where a walk starts depends on the number of rows
    alone; several starts share the error. Exact where rows are drawn alike and certain answers are
    right more often than uncertain ones; measured for others.

    Parameters
    ----------
    confidence, wrong : [n], of rows that the model was not trained on.
    target : strictly between 0 and 1.
    groups : [n], whole numbers: rows of a group count as n ÷ design effect.
    """
    if not 0 < target < 1 or not 0 < sure < 1:
        raise Defect("a promised precision", "must lie strictly between 0 and 1", (target, sure))
    n = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    ranked, mistakes = confidence[order], np.cumsum(wrong[order].astype(np.int64))
    effect = _design_effect(wrong, groups)
    if effect is None:
        return ThresholdChoice(
            None, n, 0, 0, "the rows are of one group, which shows nothing of others"
        )
    prefix = np.arange(1, n + 1)
    # Rows of equal certainty are answered together or not at all.
    ends_tie = np.append(ranked[1:] < ranked[:-1], True) if n else np.zeros(0, dtype=bool)
    size, errors = np.floor(prefix / effect), np.ceil(mistakes / effect)
    alpha = 1 - sure
    late = tuple((math.ceil(share * n / effect), LATE_ERROR_SHARE * alpha) for share in LATE_STARTS)
    starts = _starts(int(n / effect), target, EARLY_ERROR_SHARE * alpha)
    best = 0
    # Of "right in less than the target": P(that few mistakes or fewer | as many as allowed).
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
    """The highest threshold with which at least the share ``target`` of rows to come is answered,
    in ``sure`` of draws of validation rows.

    The share at or above the j-th largest of n certainties is Beta(j, n + 1 − j), whatever their
    law (Vovk 2012; tolerance limits, Wilks 1941); the smallest j is taken whose law lies above the
    target with that probability. Where no j does, no threshold promises it: only answering every
    row would, which takes none. With a target of 1 every row is answered.
    """
    from scipy.special import betainc

    if not 0 < target <= 1 or not 0 < sure < 1:
        raise Defect("a promised coverage", "must lie above 0, at most 1", (target, sure))
    n = len(confidence)
    places = np.arange(1, n + 1)
    enough = 1 - betainc(places, n + 1 - places, target) >= sure if n else np.zeros(0, dtype=bool)
    if target == 1:
        return ThresholdChoice(0.0, n, n, int(wrong.sum()))
    if not enough.any():
        # Of n rows the least threshold is the smallest certainty, j = n: targetⁿ ≤ 1 − sure.
        rows = math.ceil(math.log(1 - sure) / math.log(target))
        why = f"{n} validation rows: to promise {target:g} with a threshold takes {rows}"
        return ThresholdChoice(None, n, 0, 0, why, rows if rows <= MAX_ROWS else None)
    threshold = float(-np.sort(-confidence)[np.argmax(enough)])
    above = confidence >= threshold
    return ThresholdChoice(threshold, n, int(above.sum()), int(wrong[above].sum()))


def highest_precision(
    confidence: Floats, wrong: Bools, below: float = 1.0, *, groups: Ints | None = None
) -> tuple[float, ThresholdChoice] | None:
    """The highest precision below ``below``, in thousandths, that ``for_precision`` promises by
    these rows, with what it chooses then; ``None`` where it promises none.

    No walk promises more than the limit of one prefix by itself (Clopper and Pearson at
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
    """The highest coverage, in thousandths, that ``for_coverage`` promises by these rows with a
    threshold, (1 − ``CONFIDENCE_LEVEL``)^(1/n), with what it chooses then; ``None`` where it
    promises none."""
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
    """Of each walk that ``n`` rows allow, the number of rows at which it begins, and its level."""
    for n_starts in range(len(STARTS), 0, -1):
        share = alpha / n_starts
        begins = [_min_rows(mistakes, target, share) for mistakes in STARTS[:n_starts]]
        if begins[-1] <= n:
            return tuple((begin, share) for begin in begins)
    return ()


def _min_rows(mistakes: int, target: float, alpha: float) -> int:
    """The fewest rows with that many mistakes that prove the target."""
    from scipy.special import bdtr

    high = max(mistakes, 1)
    while bdtr(mistakes, high, 1 - target) > alpha:
        high *= 2
    # By halves: near 1 a promise takes more rows than memory holds numbers.
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
            f"{len(ranked)} validation rows are too few: {target:g} needs {least} rows or more, "
            "even without an error"
        )
    at = min(starts[0][0], len(ranked)) - 1
    return (
        f"{int(mistakes[at])} of the {at + 1} validation rows with the highest probability are "
        f"wrong: too many for {target:g}"
    )


def _rows_needed(
    errors: Floats, size: Floats, effect: float, n: int, target: float, alpha: float
) -> int | None:
    """About how many validation rows would prove the target for some share of them: a test's normal
    sample size for each prefix of ten rows or more, at its own share of mistakes."""
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
        # Of no error nobody knows how rare they are: at least so many show it where none comes.
        return None if errors[-1] else max(_min_rows(0, target, EARLY_ERROR_SHARE * alpha), n + 1)
    share, rate = share[better], rate[better]
    level = float(-ndtri(alpha / len(STARTS)))
    wide = level * math.sqrt(allowed * target) + ndtri(POWER) * np.sqrt(rate * (1 - rate))
    rows = np.maximum((wide / (allowed - rate)) ** 2, _min_rows(0, target, alpha)) / share * effect
    least = math.ceil(float(rows.min()))
    return None if least > MAX_ROWS else max(least, n + 1)


COLUMNS = ("true", "predicted", "cost")
ANY_CLASS, NO_ANSWER = "*", ("", "null")


def read_costs(path: str, classes: Sequence[str]) -> CostMatrix:
    """The costs of each true class and answer. An empty ``predicted`` (or ``null``) is no answer;
    ``*`` stands for every class that has no line of its own. Correct predictions cost 0 unless a
    line says otherwise; of the others none may be missing.

    Raises ``DataError``, which names the line.
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
            raise DataError(where, "gives the same cost a second time", f"{true}, {predicted}", "")
        costs[key] = _number(where, cost)
    if not costs:
        raise DataError(path, "holds no cost", None, "Give a line a kind of mistake.")
    return CostMatrix(tuple(classes), _cost_table(path, classes, costs))


def _class_index(
    where: str, column: str, name: object, spelled: dict[str, str], index: dict[str, int]
) -> int | str:
    text = str(name or "").strip()
    if text == ANY_CLASS:
        return ANY_CLASS
    class_name = spelled.get(text, text)
    if class_name not in index:
        raise DataError(
            where, f"names a class in {column!r} that the run has not", text, ", ".join(index)
        )
    return index[class_name]


def _number(where: str, cost: object) -> float:
    try:
        number = float(str(cost))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(where, "has a cost that is no number", cost, "Write e.g. 2.5.")
    return number


def _cost_table(
    path: str, classes: Sequence[str], costs: dict[tuple[int | str, int | str], float]
) -> Floats:
    count = len(classes)
    table = np.full((count, count + 1), math.inf)
    for true in range(count):
        for predicted in range(count + 1):
            # A line of its own comes first, then one for all true classes, then for all answers.
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
                rule = "does not say what it costs to take one class for another"
                pair = f"{classes[true]!r} for {classes[predicted]!r}"
                raise DataError(path, rule, pair, "Add that line, or *,*,1 for all others.")
            table[true, predicted] = math.inf if cost is None else cost
    no_answer = np.isfinite(table[:, count])
    if no_answer.any() and not no_answer.all():
        name = classes[int(np.argmin(no_answer))]
        rule = "says what no answer costs for some classes, not for all"
        raise DataError(path, rule, name, "Add a line *,,1 for all others.")
    return table
