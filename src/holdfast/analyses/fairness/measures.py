"""What is compared between groups of rows: a value a row, among the rows of which it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.records import Floats, Ints

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
