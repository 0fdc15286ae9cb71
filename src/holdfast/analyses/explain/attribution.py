"""One answer explained: the maps of both methods, what each is worth, and what may be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from holdfast.analyses.explain.faithfulness import LEVEL, Faithful, agreement, faithfulness
from holdfast.analyses.explain.masking import Case, leave_one_out, rounded
from holdfast.core.records import Floats
from holdfast.core.seeds import generator

Worth = Literal["better than random", "not better than random", "too few words", "hardly moves"]
LEAVE_ONE_OUT, GRADIENTS = "leave_one_out", "integrated_gradients"
# The most that an answer's probability must fall, on the map's way, for the map to be shown.
MOVED = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """What each unit adds by one ``method`` (``values`` [units], in the case's measure), how
    faithful that is, and its ``worth``: only ``better than random`` may be shown in colours."""

    method: str
    values: Floats
    faithful: Faithful
    worth: Worth

    @property
    def shown(self) -> bool:
        return self.worth == "better than random"

    def to_json(self) -> dict[str, Any]:
        found = self.faithful
        return {
            "values": [rounded(value) for value in self.values],
            "worth": self.worth,
            "aopc": rounded(found.aopc),
            "naopc": rounded(found.naopc),
            "naopc_random": rounded(found.naopc_random),
            "sufficiency": rounded(found.sufficiency),
            "p": rounded(found.p),
            "orders": found.orders,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Reason:
    """Why a model gives ``target`` to a row: ``score`` is that of the row, ``empty`` that without
    any unit, in ``measure``; ``chance`` and ``empty_chance`` the same as probabilities, and
    ``without`` [units] the probability without each unit, ``None`` where there are none.

    ``maps`` are of integrated gradients, where the model can be asked for them (with the ``gap`` of
    their sum), and of leave-one-out; ``agreement`` is their rank correlation. ``passes`` rows were
    passed forward, and ``gradient_passes`` also backward.
    """

    target: str
    measure: str
    score: float
    empty: float
    chance: float | None
    empty_chance: float | None
    without: Floats | None
    maps: tuple[Map, ...]
    agreement: float | None
    gap: float | None
    passes: int
    gradient_passes: int

    @property
    def map(self) -> Map:
        """The map that is shown: the first, whatever the other is worth; two tries would be one too
        many."""
        return self.maps[0]

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "measure": self.measure,
            "score": rounded(self.score),
            "empty": rounded(self.empty),
            "probability": rounded(self.chance),
            "probability_empty": rounded(self.empty_chance),
            "probability_without": None
            if self.without is None
            else [rounded(value) for value in self.without],
            "shown": self.map.shown,
            "worth": self.map.worth,
            "maps": {one.method: one.to_json() for one in self.maps},
            "agreement": rounded(self.agreement),
            "gradients_gap": rounded(self.gap),
            "passes": {"forward": self.passes, "backward": self.gradient_passes},
        }


def reason_of(case: Case, *names: str | int, maps: Sequence[Floats] = ()) -> Reason:
    """Explain a case. ``names`` seed the random orders: the same row is explained alike whatever
    rows stand beside it. ``maps`` are further ones to be judged as ``given``.

    Integrated gradients stand first: on the rows they were compared on, they were the more faithful
    (``benchmarks/RESULTS.md``).
    """
    kept = case.kept
    slope = case.gradients() if case.gradients else None
    without_one = leave_one_out(kept)
    methods = {} if slope is None else {GRADIENTS: slope.values}
    methods |= {LEAVE_ONE_OUT: without_one}
    methods |= {f"given_{place}": values for place, values in enumerate(maps)}
    found = faithfulness(kept, tuple(methods.values()), generator(0, "orders", *names))
    judged = tuple(
        Map(method, values, one, worth_of(case, one))
        for (method, values), one in zip(methods.items(), found, strict=True)
    )
    chance = case.chance
    ends = None if chance is None else chance(np.array([kept.whole, kept.empty]))
    without = None
    if chance is not None:
        without = chance(kept.whole - without_one)
    return Reason(
        case.target,
        case.measure,
        kept.whole,
        kept.empty,
        None if ends is None else float(ends[0]),
        None if ends is None else float(ends[1]),
        without,
        judged,
        None if slope is None else agreement(without_one, slope.values),
        None if slope is None else slope.gap,
        kept.passes,
        0 if slope is None else slope.passes,
    )


def worth_of(case: Case, found: Faithful) -> Worth:
    """What a map may be called. A row of so few words that no order could be told from chance says
    so; so does an answer that hardly changes whatever the map takes away."""
    if found.least_p > LEVEL:
        return "too few words"
    if not found.better:
        return "not better than random"
    if case.chance is not None:
        falls = case.chance(np.array([case.kept.whole]))[0] - case.chance(found.scores)
        if float(falls.max()) < MOVED:
            return "hardly moves"
    return "better than random"
