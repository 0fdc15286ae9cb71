"""Strata for labels that are not classes: ranges of numbers, and sets of labels, each with enough
independent texts for every split."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.data.table import Table

# Three splits, and a margin for near-duplicates that must stay together.
MIN_UNITS_PER_BIN = 6
UNITS_PER_BIN = 10
MAX_BINS = 10
OTHERS = "other sets"
NONE = "no label"


def choose_edges(values: Floats, units: Ints) -> Floats:
    """Upper edges, all but the last, of ranges with about equally many independent texts.

    Up to ten ranges between quantiles of ``values`` [n], ten ``units`` per range (rows that are
    duplicates or of one group count once); a range with fewer than six is joined to its smaller
    neighbour. Each edge is a value that occurs, and belongs to the range below it.
    """
    bins = min(MAX_BINS, len(np.unique(units)) // UNITS_PER_BIN)
    if bins < 2:
        return np.zeros(0)
    shares = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    # An edge at the largest value would leave the last range empty.
    edges = edges[edges < values.max()]
    while len(edges):
        # The number of distinct units in each range, [count].
        count = len(edges) + 1
        pairs = np.unique(np.column_stack([bin_of(values, edges), units]), axis=0)
        sizes = np.bincount(pairs[:, 0], minlength=count)
        small = int(sizes.argmin())
        if sizes[small] >= MIN_UNITS_PER_BIN:
            break
        upper = small == 0 or (small < len(edges) and sizes[small + 1] < sizes[small - 1])
        edges = np.delete(edges, small if upper else small - 1)
    return np.asarray(edges, dtype=np.float64)


def bin_of(values: Floats, edges: Floats) -> Ints:
    """The range of each value [n], 0 … edges."""
    return np.asarray(np.searchsorted(edges, values, side="left"), dtype=np.int64)


def range_names(edges: Floats) -> tuple[str, ...]:
    """``up to 2``, ``2 to 3``, ``above 3``; one range is ``all``."""
    if not len(edges):
        return ("all",)
    shown = [f"{edge:.6g}" for edge in edges]
    # Two edges that are equal to six digits would share a name.
    if len(set(shown)) < len(shown):
        shown = [repr(float(edge)) for edge in edges]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(shown)]
    return (f"up to {shown[0]}", *between, f"above {shown[-1]}")


def label_set_strata(sets: Sequence[tuple[str, ...]], units: Ints) -> tuple[tuple[str, ...], Ints]:
    """Names of the strata, and the stratum of each set of labels [n].

    A set with six independent texts is its own stratum. Other sets are joined by their rarest
    label, so that rare labels are spread over the splits. What is still too small joins
    ``other sets``, or the largest stratum.
    """
    rows = Counter(label for labels in sets for label in labels)
    names = [" + ".join(labels) or NONE for labels in sets]
    names = _join_small(names, units, [_rarest(labels, rows) for labels in sets])
    names = _join_small(names, units, [OTHERS] * len(sets))
    largest = Counter(names).most_common(1)[0][0] if names else OTHERS
    names = _join_small(names, units, [largest] * len(sets))
    known = tuple(sorted(set(names)))
    index = {name: number for number, name in enumerate(known)}
    return known, np.array([index[name] for name in names], dtype=np.int64)


def label_set_strata_like(
    sets: Sequence[tuple[str, ...]], units: Ints, like: Sequence[str] | None
) -> tuple[tuple[str, ...], Ints]:
    """``label_set_strata``, or with ``like`` the strata of another table. Given rows use the strata
    of the training rows; they are not split, so a new set may go into any stratum."""
    names, places = label_set_strata(sets, units)
    if like is None:
        return names, places
    at = {name: number for number, name in enumerate(like)}
    return tuple(like), np.array([at.get(names[place], 0) for place in places], dtype=np.int64)


def label_matrix(table: Table) -> npt.NDArray[np.float32]:
    """1 where a row has a label, else 0, [n, labels]."""
    matrix = np.zeros((len(table), len(table.names)), dtype=np.float32)
    for row, labels in enumerate(table.column("labels")):
        matrix[row, labels] = 1.0
    return matrix


def join_small_strata(strata: Ints, units: Ints, least: int) -> Ints:
    """The strata [n], of which those of fewer than ``least`` independent ``units`` [n] join each
    other; if these are still fewer, the largest."""
    pairs = np.unique(np.column_stack([strata, units]), axis=0)
    sizes = np.bincount(pairs[:, 0])
    is_small = sizes[strata] < least
    if not is_small.any():
        return strata
    is_enough = len(np.unique(units[is_small])) >= least
    return np.where(is_small, strata[is_small].min() if is_enough else sizes.argmax(), strata)


def _rarest(labels: tuple[str, ...], rows: Counter[str]) -> str:
    if not labels:
        return OTHERS
    return f"sets with {min(labels, key=lambda label: (rows[label], label))}"


def _join_small(names: list[str], units: Ints, replacements: Sequence[str]) -> list[str]:
    """The names, with those of too few independent texts replaced."""
    units_of: dict[str, set[int]] = {}
    for name, unit in zip(names, units.tolist(), strict=True):
        units_of.setdefault(name, set()).add(unit)
    small = {
        name for name, units_of_name in units_of.items() if len(units_of_name) < MIN_UNITS_PER_BIN
    }
    return [
        other if name in small else name for name, other in zip(names, replacements, strict=True)
    ]
