"""What the members of an ensemble said of rows that none of them learned from, in the form that
weights are fitted to: what each gave to the truth, or each one's number beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Floats, Ints
from holdfast.pipeline.shared_rows import SharedRows
from holdfast.stats.stacking import SHRINK, blend_weights, mixture_weights

TINY = float(np.finfo(np.float64).tiny)


class Evidence(Protocol):
    """``n`` rows; ``metric`` names what ``losses`` are."""

    @property
    def n(self) -> int: ...

    @property
    def members(self) -> int: ...

    @property
    def metric(self) -> str: ...

    @property
    def tokens(self) -> Ints | None:
        """Over how many tokens the loss of each row is a mean, where what counts is the mean over
        all of them."""

    def fit(self, rows: Ints) -> Floats:
        """The weights [members] by these rows."""

    def losses(self, weights: Floats, rows: Ints) -> Floats:
        """What each of these rows loses under the weights."""


@dataclass(frozen=True)
class Chances:
    """``chances`` [outcomes, members] of what was true: a row's class, each of its labels, words or
    tokens; ``owner`` [outcomes] is the row, from 0 to ``n`` − 1. A row's loss is the mean of its
    outcomes' −log of the mixture. ``by_token``: what counts is the mean over all outcomes."""

    chances: Floats
    owner: Ints
    n: int
    by_token: bool = False
    metric: str = "loss"

    @property
    def tokens(self) -> Ints | None:
        return self.sizes if self.by_token else None

    @cached_property
    def sizes(self) -> Ints:
        """The outcomes of each row, [n]."""
        return np.bincount(self.owner, minlength=self.n)

    @property
    def members(self) -> int:
        return int(self.chances.shape[1])

    def fit(self, rows: Ints) -> Floats:
        inside = np.isin(self.owner, rows)
        # Either way all of them weigh as many as there are rows, in which the shrinkage is counted.
        size = np.full(self.n, len(self.owner) / self.n) if self.by_token else self.sizes
        return mixture_weights(self.chances[inside], SHRINK, 1 / size[self.owner[inside]])

    def losses(self, weights: Floats, rows: Ints) -> Floats:
        each = -np.log(np.maximum(self.chances @ weights, TINY))
        total = np.bincount(self.owner, each, minlength=self.n)
        return np.asarray((total / np.maximum(self.sizes, 1))[rows])


@dataclass(frozen=True)
class Blend:
    """``answers`` [n, members] beside ``truth`` [n], in the user's unit; a row's loss is its
    squared error."""

    answers: Floats
    truth: Floats
    metric: str = "squared error"
    tokens: Ints | None = None

    @property
    def n(self) -> int:
        return len(self.truth)

    @property
    def members(self) -> int:
        return int(self.answers.shape[1])

    def fit(self, rows: Ints) -> Floats:
        return blend_weights(self.answers[rows], self.truth[rows], SHRINK)

    def losses(self, weights: Floats, rows: Ints) -> Floats:
        return np.asarray((self.answers[rows] @ weights - self.truth[rows]) ** 2)


def stored_evidence(shared: SharedRows, labels: str) -> Evidence:
    """What the runs stored of the rows they share; ``labels`` is the kind of label (``class``,
    ``several`` or ``number``). Raises ``RecipeError`` where the runs do not agree on a label."""
    _same_labels(shared)
    if labels == "number":
        truth = np.array([float(line["label"]) for line in shared.answers[0]])
        errors = [[float(line["error"]) for line in lines] for lines in shared.answers]
        return Blend(truth[:, None] + np.array(errors, dtype=np.float64).T, truth)
    return _several(shared) if labels == "several" else _classes(shared)


def _classes(shared: SharedRows) -> Chances:
    columns = []
    for run, lines in zip(shared.runs, shared.answers, strict=True):
        place = {name: i for i, name in enumerate(run.names)}
        columns.append([line["probabilities"][place[line["label"]]] for line in lines])
    return Chances(_table(columns), np.arange(len(shared)), len(shared))


def _several(shared: SharedRows) -> Chances:
    names, columns = shared.runs[0].names, []
    for run, lines in zip(shared.runs, shared.answers, strict=True):
        place = {name: i for i, name in enumerate(run.names)}
        given: list[float] = []
        for line in lines:
            held, said = set(line["label"]), line["probabilities"]
            given += [said[place[n]] if n in held else 1 - said[place[n]] for n in names]
        columns.append(given)
    return Chances(_table(columns), np.repeat(np.arange(len(shared)), len(names)), len(shared))


def _table(columns: Sequence[Sequence[float]]) -> Floats:
    return np.maximum(np.array(columns, dtype=np.float64).T, TINY)


def _same_labels(shared: SharedRows) -> None:
    def plain(label: Any) -> Any:
        return sorted(label) if isinstance(label, list) else label

    first = [plain(line["label"]) for line in shared.answers[0]]
    for run, lines in zip(shared.runs[1:], shared.answers[1:], strict=True):
        others = [plain(line["label"]) for line in lines]
        differ = sum(a != b for a, b in zip(first, others, strict=True))
        if differ:
            raise RecipeError(
                "several runs",
                f"can be weighed only by rows of which they learned the same labels: "
                f"{shared.runs[0].run} and {run.run} differ on {differ} of {len(first)}",
                None,
                "Give runs on the same labels.",
            )
