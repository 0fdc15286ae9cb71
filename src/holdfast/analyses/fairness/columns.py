"""Fairness of one model, from what it said: which columns tell rows apart, which texts are swapped,
and the block of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.fairness.forms import Ask
from holdfast.analyses.fairness.groups import (
    GroupCandidates,
    Grouping,
    confirm_gaps,
    find_gaps,
    rows_to_add,
    usable,
)
from holdfast.analyses.fairness.swap import Swaps, confirm_swaps, find_swaps
from holdfast.augment.terms.built_in import built_in
from holdfast.augment.terms.forms import mentions
from holdfast.augment.terms.lexicon import Axis, read_lexicon
from holdfast.augment.text_forms import SOURCES
from holdfast.contract.predictions import Predictions
from holdfast.core.errors import DataError
from holdfast.core.records import Floats
from holdfast.data.table import Table
from holdfast.recipe.parts import FairnessPart

if TYPE_CHECKING:
    from holdfast.runs.predictor import Predictor

MOST_COLUMNS = 8
# By benchmarks/fairness.py: groupings, and lists of words, that have nothing to do with the label.
FALSE_ALARMS: Mapping[str, float | int] = {
    "groups": 0.014,
    "groups_of": 500,
    "swap": 0.037,
    "swap_of": 4000,
}
Columns = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class FairnessFound:
    """What was fixed on validation rows; ``swaps`` is ``None`` where texts cannot be swapped, for
    which ``why`` is the reason."""

    groups: GroupCandidates
    swaps: Swaps | None
    axes: tuple[Axis, ...]
    why: str | None = None


def asker(predictor: Predictor) -> Ask | None:
    """What the swap test asks: probabilities, or a number; ``None`` where answers are neither."""
    if predictor.answered == "number":
        return lambda table: np.asarray(predictor.answer(table).predictions, np.float64)[:, None]
    if not predictor.names:
        return None

    def ask(table: Table) -> Floats:
        found = predictor.answer(table).probabilities
        assert found is not None
        return np.asarray(found)

    return ask


def axes_of(part: FairnessPart) -> tuple[Axis, ...]:
    """The axes of the built-in lexicon, or of the user's."""
    return tuple((read_lexicon(part.terms) if part.terms else built_in()).values())


def groupings_of(told: Predictions, columns: Columns, names: Sequence[str]) -> list[Grouping]:
    """The ``columns`` beside the rows by these ``names``, as rows are told apart by them."""
    found = []
    for name in names:
        if name in columns:
            cells = [None if c is None or not str(c).strip() else str(c) for c in columns[name]]
            found.append(Grouping(name, cells))
    return found


def _to_add(
    groups: Mapping[str, Any], train: tuple[Table, Callable[[], Columns]] | None
) -> list[dict[str, Any]]:
    found = dict.fromkeys(one["column"] for one in groups["findings"])
    if train is None or not found or not train[0].columns.one_class:
        return []
    table, columns = train[0], train[1]()
    labels = table.column("label") if "label" in table.rows.column_names else None
    if labels is None:
        return []
    return [
        {"column": name, **one}
        for name in found
        if name in columns
        for one in rows_to_add(columns[name], labels, table.classes)
    ]


def of_terms(told: Predictions, axes: Sequence[Axis]) -> list[Grouping]:
    """Rows by the terms in their texts: of an axis the one group that is named, or none."""
    names = told.table.rows.column_names
    parts = [part for part in SOURCES if part in names]
    if not parts or "tokens" in names:
        return []
    texts = [" ".join(map(str, row)) for row in zip(*map(told.table.column, parts), strict=True)]
    return [Grouping(f"{axis.name} of terms", [_named(axis, t) for t in texts]) for axis in axes]


def _named(axis: Axis, text: str) -> str | None:
    held = {one.group for one in mentions(axis, text)}
    return held.pop() if len(held) == 1 else None


def find_fairness(
    valid: Predictions,
    columns: Columns,
    part: FairnessPart,
    ask: Ask | None,
    names: Sequence[str],
    seed: int,
) -> FairnessFound:
    """Candidates by validation rows. Raises ``DataError`` for a column of the recipe that the
    source has not."""
    for name in part.columns or ():
        if name not in columns:
            rule = f"has no column {name!r} beside text and label (probes.fairness.columns)"
            shown = ", ".join(columns) or "none"
            raise DataError(valid.table.source, rule, None, f"There are: {shown}.")
    axes = axes_of(part)
    known = groupings_of(valid, columns, part.columns or [*columns])
    if not part.columns:
        known = [one for one in known if usable(one)][:MOST_COLUMNS]
    known += [one for one in of_terms(valid, axes) if usable(one)]
    groups = find_gaps(valid, known)
    why = _no_swap(valid, part, ask)
    if why is not None or ask is None:
        return FairnessFound(groups, None, axes, why)
    swaps = find_swaps(
        valid.table,
        axes,
        ask,
        names,
        rows=part.rows,
        insert=part.insert,
        seed=seed,
        known=valid.probabilities,
    )
    return FairnessFound(groups, swaps, axes)


def _no_swap(valid: Predictions, part: FairnessPart, ask: Ask | None) -> str | None:
    if not part.rows:
        return "probes.fairness.rows is 0"
    held = valid.table.rows.column_names
    if "tokens" in held:
        return "tags belong to the words as they stand"
    if not any(one in held for one in ("text", "turns")):
        return "the rows have no words to swap"
    if ask is None:
        return (
            "the answers are neither classes nor numbers; a model that writes is asked by "
            "`holdfast fairness RUN --rows N`"
        )
    return None if len(valid) else "there are no validation rows"


def confirm_fairness(
    found: FairnessFound,
    test: Predictions,
    columns: Columns,
    ask: Ask | None,
    *,
    start: Ask | None = None,
    seed: int = 0,
    shares: bool = False,
    train: tuple[Table, Callable[[], Columns]] | None = None,
) -> dict[str, Any]:
    """The block ``fairness`` of ``result.json``, by the test rows. ``shares``: what is asked are
    shares of answers, which are bounded as probabilities are. ``train`` are the training rows, and
    what stands beside them in the source: of a column by which something was found, the rows that
    would make its groups representative are counted there."""
    known = groupings_of(test, columns, found.groups.columns) + of_terms(test, found.axes)
    missing = [name for name in found.groups.columns if name not in {one.name for one in known}]
    groups = confirm_gaps(found.groups, test, known)
    swap: dict[str, Any] | None = None
    if found.swaps is not None and ask is not None:
        swap = confirm_swaps(
            found.swaps,
            test.table,
            ask,
            start=start,
            seed=seed,
            known=test.probabilities,
            bounded=shares or test.probabilities is not None,
        )
    return {
        "groups": {**groups, "columns_missing": missing, "to_add": _to_add(groups, train)},
        "swap": swap,
        "swap_why": found.why,
        "false_alarms": dict(FALSE_ALARMS),
    }
