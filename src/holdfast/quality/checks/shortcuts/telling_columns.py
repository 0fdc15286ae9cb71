"""Another column of the source that alone tells the class: an id, a path, a date, an order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.wording import listing
from holdfast.quality.check import CheckResult, check, result, with_classes
from holdfast.quality.views import TableRows

LEAST_ROWS = 50
# Of what the commonest class leaves open, this share must be told.
TOLD = 0.8
SHOWN = 4
_LAST_PART = re.compile(r"[\\/][^\\/]*$")
_DIGITS = re.compile(r"\d+")


@check(
    TableRows,
    cannot_see="Columns that tell the class only together, and the order of the file itself.",
    error_rate="A second column of labels is named too; none of 40 columns of random values, "
    "numbers, ids and paths was.",
    holds_for=with_classes,
)
def telling_columns(rows: TableRows) -> CheckResult | None:
    """Reports columns beside the text from which the class is told without reading it: from the
    value, from the folder of a path, from what surrounds the digits of an id, or from the row that
    comes next in the order of its numbers or dates. A row never tells itself. At least four fifths
    of what the commonest class leaves open must be told, of 50 rows or more. Score: that share.
    """
    labels = rows.labels
    known = np.flatnonzero(labels >= 0)
    if len(known) < LEAST_ROWS:
        return None
    y, names = labels[known], rows.beside.names
    open_ = 1 - float(np.bincount(y).max()) / len(y)
    found: list[tuple[float, str, str, Ints]] = []
    for name in names:
        values = rows.beside[name]
        ways = _told([values[at] for at in known.tolist()], y)
        best = max(ways, key=lambda one: one[1].mean(), default=None)
        if best is None or open_ <= 0:
            continue
        share = 1 - (1 - float(best[1].mean())) / open_
        if share >= TOLD:
            found.append((share, name, best[0], known[best[1] == 1]))
    if not found:
        return None
    found.sort(key=lambda one: (-one[0], one[1]))
    at = np.unique(np.concatenate([one[3] for one in found]))
    shown = listing([f"{name!r} by {how}" for _, name, how, _ in found], SHOWN)
    return result(
        rows.ids[at],
        f"the class is told without the text by a column beside it: {shown}",
        "Keep it out of the text and of side columns, unless it will be known of new rows too.",
        score=min(1.0, found[0][0]),
        severity="info",
    )


def _told(values: Sequence[str | None], y: Ints) -> Iterator[tuple[str, np.ndarray]]:
    """Ways to tell the class, and which rows they tell rightly [n]."""
    filled = [value or "" for value in values]
    if len(set(filled)) < 2:
        return
    yield "its value", _by_group(filled, y)
    folders = [_LAST_PART.sub("", value) for value in filled]
    if folders != filled:
        yield "the folder it names", _by_group(folders, y)
    masks = [_DIGITS.sub("0", value) for value in filled]
    if masks != filled and len(set(masks)) > 1:
        yield "what surrounds its digits", _by_group(masks, y)
    numbers = [tuple(int(part) for part in _DIGITS.findall(value)) for value in filled]
    # As many numbers in each: an order that means something.
    alike = all(numbers) and len({len(each) for each in numbers}) == 1
    if alike and len(set(numbers)) > len(y) / 2:
        yield "its order", _by_order(numbers, y)


def _by_group(values: Sequence[str], y: Ints) -> np.ndarray:
    """Right where the other rows of the same value are mostly of the row's class."""
    places = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)[1]
    table = np.zeros((places.max() + 1, y.max() + 1), dtype=np.int64)
    np.add.at(table, (places, y), 1)
    own = table[places, y] - 1
    others = table[places].copy()
    others[np.arange(len(y)), y] = 0
    return np.asarray((own > others.max(axis=1)).astype(float))


def _by_order(numbers: Sequence[tuple[int, ...]], y: Ints) -> np.ndarray:
    """Right where both neighbours in the order are of the row's class, or the only one is."""
    order = sorted(range(len(y)), key=lambda at: (numbers[at], at))
    sorted_y = y[order]
    same = sorted_y[1:] == sorted_y[:-1]
    right = np.ones(len(y), dtype=bool)
    right[1:] &= same
    right[:-1] &= same
    back = np.empty(len(y))
    back[order] = right
    return back
