"""What is bad about an answer, one number a row, whatever the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.row_texts import given_labels
from holdfast.contract.predictions import Predictions
from holdfast.core.records import Floats
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.tasks.tags.entities import TagTable, entity_counts

if TYPE_CHECKING:
    from collections.abc import Sequence


WRONG, ABSOLUTE, ENTITIES, LOSS = "wrong", "absolute error", "1 − entity F1", "loss"


@dataclass(frozen=True, slots=True, eq=False)
class Badness:
    """``values`` [n], larger for worse and NaN where nothing is known; ``what`` says of what:
    ``wrong`` (1 or 0: a class, or a set of labels that is not exactly right), ``absolute error`` of
    numbers in their unit, ``1 − entity F1`` of each sentence, ``loss`` in nats of a generator's
    tokens."""

    what: str
    values: Floats

    @property
    def is_rate(self) -> bool:
        return self.what == WRONG


def badness(told: Predictions) -> Badness:
    """See ``Badness``. Of tags a sentence is scored by its entities, not as right or wrong as a
    whole: else every slice of long sentences would be one that fails."""
    if told.errors is not None:
        return Badness(ABSOLUTE, np.abs(told.errors))
    if "tags" in told.table.rows.column_names and told.predictions is not None:
        return Badness(ENTITIES, 1.0 - sentence_f1(given_labels(told.table), told.predictions))
    if told.wrong is not None:
        return Badness(WRONG, told.wrong.astype(np.float64))
    return Badness(LOSS, told.losses)


def sentence_f1(given: Sequence[Sequence[object]], said: Any) -> Floats:
    """Entity F1 of each sentence [n], 2 · found ÷ (given + said), of tags by name; 1 where there
    is no entity and none was said."""
    rows = [_even(list(own), list(tags)) for own, tags in zip(given, said, strict=True)]
    names = sorted({str(tag) for pair in rows for tags in pair for tag in tags}) or [OUTSIDE]
    place = {name: k for k, name in enumerate(names)}
    lengths = np.array([len(own) for own, _ in rows], dtype=np.int64)
    truth, answers = (
        np.array([place[str(tag)] for pair in rows for tag in pair[k]], dtype=np.int64)
        for k in (0, 1)
    )
    table = TagTable.of(names)
    made = entity_counts(truth, answers, lengths, table).reshape(len(rows), 3, -1).sum(axis=2)
    whole = made[:, 1] + made[:, 2]
    return np.where(whole > 0, 2 * made[:, 0] / np.maximum(whole, 1), 1.0)


def _even(given: list[object], said: list[object]) -> tuple[list[object], list[object]]:
    """A sentence that the model cut has no entity in its rest."""
    return given, [*said[: len(given)], *[OUTSIDE] * (len(given) - len(said))]
