"""What a model says of the rows of one side, whatever its task: what every question is asked of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.data.table import Table
from holdfast.evaluate.forward import groups_of
from holdfast.stats.bootstrap import group_codes

Side = Literal["train", "valid", "test"]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """The rows of a ``side`` [n] (``table``, in its order) and what the kept model says of them.

    ``losses`` [n] in nats (of generators the mean over the ``tokens`` [n] that count), NaN where
    there is none. ``wrong`` [n] is whether the answer is not the label; ``None`` where answers are
    not right or wrong (numbers, texts). ``predictions`` [n] are as in the source, ``None`` where
    none were made; ``probabilities`` [n, names] after the temperature, ``None`` without any.
    ``errors`` [n] are answer − label of numbers, in the user's unit. ``sure`` [n] is how sure the
    model is that the whole answer is right (the class; the least sure label or word), ``None``
    where it cannot tell, NaN for a row of which nothing is read.
    """

    side: Side
    table: Table
    losses: Floats
    wrong: Bools | None = None
    predictions: tuple[object, ...] | None = None
    probabilities: Floats | None = None
    names: tuple[str, ...] = ()
    errors: Floats | None = None
    sure: Floats | None = None
    tokens: Ints | None = None

    def __post_init__(self) -> None:
        n = len(self.table)
        given = (
            self.losses,
            self.wrong,
            self.predictions,
            self.probabilities,
            self.errors,
            self.sure,
            self.tokens,
        )
        if any(one is not None and len(one) != n for one in given):
            raise ValueError(f"{n} rows need {n} answers")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def rows(self) -> Ints:
        """Positions in the source [n]."""
        return np.asarray(self.table.column("row"), dtype=np.int64)

    @property
    def groups(self) -> Ints | None:
        """The group (author, source) that each row belongs to, as whole numbers [n], where rows
        come in groups."""
        given = groups_of(self.table)
        return None if given is None else group_codes(given, len(self))

    def take(self, positions: Ints | Sequence[int]) -> Told:
        """Some of the rows, by their positions here."""
        at = np.asarray(positions, dtype=np.int64)
        said = self.predictions
        return Told(
            self.side,
            self.table.take(at),
            self.losses[at],
            None if self.wrong is None else self.wrong[at],
            None if said is None else tuple(said[i] for i in at),
            None if self.probabilities is None else self.probabilities[at],
            self.names,
            None if self.errors is None else self.errors[at],
            None if self.sure is None else self.sure[at],
            None if self.tokens is None else self.tokens[at],
        )
