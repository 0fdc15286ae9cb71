"""Rows that somebody names: those that a finding lists as off topic, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core.errors import RecipeError
from holdfast.quality.clean.treatment import Edit, RowSet, TableTreatment, add


@dataclass(frozen=True, slots=True)
class DropRows:
    """``drop``: rows of the source, counted from 0, as findings name them."""

    drop: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for row in self.drop:
            if type(row) is not int or row < 0:
                rule = "is not the number of a row, counted from 0"
                raise RecipeError("treat.rows.drop", rule, row, "Take the numbers of a finding.")


def without_rows(side: RowSet, settings: DropRows) -> Sequence[Edit]:
    """An edit for each row that is named and is there."""
    wanted = set(settings.drop)
    return [
        Edit(n, None, None, "was named to be left out")
        for n, row in enumerate(side.rows)
        if row in wanted
    ]


add(TableTreatment("rows", DropRows, without_rows, order=65, trains=True))
