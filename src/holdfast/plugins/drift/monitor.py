"""A stream of rows watched from three sides: what comes in, which classes go out, and how sure the
model is with other facts of rows and answers. One alarm, and then the new regime is what later rows
are held against, so that one change is told once.

The limit is given as clean rows between alarms. Each side has its share of it: with k sides each
alarms at k times as many, so that together they come to the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from holdfast.core.errors import Defect
from holdfast.plugins.drift.rows import DriftRows, Reference, joined
from holdfast.plugins.drift.vectors import LEAST_REFERENCE, VectorWatch, packed, unpacked
from holdfast.plugins.drift.watches import ClassWatch, NumberWatch

FORMAT = 1
BETWEEN = 100_000
# Rows that a new regime is known by.
REGIME = 400
# What tells of a change of the inputs.
THEMSELVES = "the rows themselves"
# Rows that are kept, to say of an alarm what it is about.
RECENT = 400
INPUTS, CLASSES, NUMBERS = "inputs", "classes", "numbers"
Watch = VectorWatch | ClassWatch | NumberWatch


@dataclass(frozen=True, slots=True)
class Alarm:
    """Rows are not like the reference any more: noticed after row ``at``, since about row ``since``
    (0-based, of all rows that were watched); ``side`` noticed, by ``by`` in words. ``levels`` are
    the evidence of each side then, as clean rows between alarms. ``against`` what: the validation
    rows, or the regime before."""

    at: int
    since: int
    side: str
    by: str
    levels: Mapping[str, float]
    against: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class DriftMonitor:
    """What was watched so far, a value. ``reference`` is what rows are held against now, ``sides``
    what is watched, by name; ``rows`` how many came, ``begun`` the row at which this reference was
    taken up. While ``gathering`` a new regime, which it is once there are ``REGIME`` rows, nothing
    alarms."""

    reference: Reference
    between: int
    seed: int
    sides: Mapping[str, Watch]
    rows: int = 0
    begun: int = 0
    recent: DriftRows = field(default_factory=lambda: DriftRows(0))
    gathering: DriftRows | None = None
    alarms: tuple[Alarm, ...] = ()

    @classmethod
    def of_reference(
        cls, reference: Reference, between: int = BETWEEN, seed: int = 0, rows: int = 0
    ) -> DriftMonitor:
        """A monitor that has seen nothing, with ``between`` clean rows between alarms. Sides of
        which the reference says too little are left out: ``unwatched`` says which, and why."""
        if between < 1:
            raise Defect("the rows between alarms", "must be at least 1", between)
        held = reference.rows
        sides: dict[str, Watch | None] = {}
        if held.vectors is not None and len(held) >= LEAST_REFERENCE:
            sides[INPUTS] = VectorWatch.of_reference(held.vectors, seed)
        if held.answers is not None:
            sides[CLASSES] = ClassWatch.of_reference(held.answers, reference.classes)
        sides[NUMBERS] = NumberWatch.of_reference(held.numbers)
        known = {name: watch for name, watch in sides.items() if watch is not None}
        return cls(reference, between, seed, known, rows, rows)

    @property
    def unwatched(self) -> dict[str, str]:
        """What is not watched, and why."""
        held, said = self.reference.rows, {}
        if INPUTS not in self.sides:
            few = f"{len(held)} reference rows are fewer than {LEAST_REFERENCE}"
            said[INPUTS] = "rows have no vectors" if held.vectors is None else few
        if CLASSES not in self.sides:
            no_class = held.answers is None or len(self.reference.classes) < 2
            said[CLASSES] = "answers are no classes" if no_class else "too few reference answers"
        if NUMBERS not in self.sides:
            said[NUMBERS] = "fewer than 20 reference rows have a confidence or a length"
        return said

    @property
    def levels(self) -> dict[str, float]:
        """The evidence of each side now, in clean rows between alarms as bold as it: an alarm comes
        at ``between``."""
        return {name: one.detector.level / len(self.sides) for name, one in self.sides.items()}

    def add(self, rows: DriftRows) -> DriftMonitor:
        """After more rows, in their order. Each alarm on the way is added to ``alarms``."""
        made, left = self, rows
        while len(left):
            made, taken = made._gathered(left) if made.gathering is not None else made._bet(left)
            left = left.take(slice(taken, None))
        return made

    def _bet(self, rows: DriftRows) -> tuple[DriftMonitor, int]:
        """The monitor after the rows up to the first alarm, and how many those were."""
        limit, part = self.between * max(1, len(self.sides)), rows
        each = {name: watch.add(rows, limit) for name, watch in self.sides.items()}
        first = min((at for _, at in each.values() if at is not None), default=None)
        if first is not None:
            # The side that alarms first decides how many rows the others see.
            part = rows.take(slice(0, first))
            each = {name: watch.add(part, limit) for name, watch in self.sides.items()}
        sides: dict[str, Watch] = {name: watch for name, (watch, _) in each.items()}
        recent = (joined([self.recent, part]) if len(self.recent) else part).last(RECENT)
        made = replace(self, sides=sides, rows=self.rows + len(part), recent=recent)
        return (made if first is None else made._alarmed()), len(part)

    def _alarmed(self) -> DriftMonitor:
        levels = self.levels
        side = max(levels, key=lambda name: levels[name])
        watch = self.sides[side]
        since = min(self.begun + watch.detector.since, self.rows - 1)
        by = THEMSELVES if isinstance(watch, VectorWatch) else watch.by
        if isinstance(watch, VectorWatch) and self.recent.vectors is not None:
            own = self.recent.vectors[-(self.rows - self.begun) :]
            since = self.rows - watch.dated(own)
        alarm = Alarm(self.rows - 1, since, side, by, levels, self.reference.what)
        # What came since the change is of the new regime already.
        known = self.recent.last(self.rows - since)
        return replace(self, alarms=(*self.alarms, alarm), gathering=known)

    def _gathered(self, rows: DriftRows) -> tuple[DriftMonitor, int]:
        assert self.gathering is not None
        part = rows.take(slice(0, max(0, REGIME - len(self.gathering))))
        whole = joined([self.gathering, part]) if len(part) else self.gathering
        made = replace(self, rows=self.rows + len(part), gathering=whole, recent=whole.last(RECENT))
        if len(whole) < REGIME:
            return made, len(part)
        if whole.vectors is not None:
            # As they are written down, so that a restart changes nothing.
            whole = replace(whole, vectors=whole.vectors.astype(np.float16).astype(np.float64))
        reference = self.reference.of_traffic(whole, f"rows from row {made.since} on")
        fresh = DriftMonitor.of_reference(reference, self.between, self.seed, made.rows)
        return replace(fresh, alarms=self.alarms, recent=made.recent), len(part)

    @property
    def regime(self) -> DriftRows | None:
        """The rows that the present regime is known by; ``None`` where it is the first."""
        return self.reference.rows if self.alarms and self.gathering is None else None

    @property
    def since(self) -> int:
        """The row since which the present regime lasts, 0 where nothing ever changed."""
        return self.alarms[-1].since if self.alarms else 0

    def to_json(self) -> dict[str, Any]:
        """Everything but the first reference, which is the run's; of arrived rows only what a new
        regime is known by, and no text."""
        regime = self.regime
        return {
            "format": FORMAT,
            "between": self.between,
            "seed": self.seed,
            "rows": self.rows,
            "begun": self.begun,
            "alarms": [one.to_json() for one in self.alarms],
            "sides": {name: watch.to_json() for name, watch in self.sides.items()},
            "regime": None if regime is None else _rows_json(regime),
            "what": self.reference.what,
            "gathering": None if self.gathering is None else _rows_json(self.gathering),
        }

    @classmethod
    def of(cls, said: Mapping[str, Any], reference: Reference) -> DriftMonitor:
        """The monitor that ``to_json`` wrote down, of the run's ``reference``. Raises
        ``ValueError`` for what is of another form or reference."""
        try:
            if said["format"] != FORMAT:
                raise ValueError(f"format {said['format']}")
            if said["regime"] is not None:
                rows = _rows_of(said["regime"])
                reference = reference.of_traffic(rows, str(said["what"]))
            made = cls.of_reference(reference, int(said["between"]), int(said["seed"]))
            gathering = said["gathering"]
            return replace(
                made,
                sides={
                    name: watch.restored(said["sides"][name]) for name, watch in made.sides.items()
                },
                rows=int(said["rows"]),
                begun=int(said["begun"]),
                alarms=tuple(Alarm(**one) for one in said["alarms"]),
                gathering=None if gathering is None else _rows_of(gathering),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _rows_json(rows: DriftRows) -> dict[str, Any]:
    return {
        "n": len(rows),
        "vectors": None if rows.vectors is None else packed(rows.vectors, "<f2"),
        "answers": None if rows.answers is None else rows.answers.tolist(),
        "numbers": {name: packed(values) for name, values in rows.numbers.items()},
    }


def _rows_of(said: Mapping[str, Any]) -> DriftRows:
    n, vectors, answers = int(said["n"]), said["vectors"], said["answers"]
    return DriftRows(
        n,
        None if vectors is None else unpacked(vectors, "<f2").reshape(n, -1),
        None if answers is None else np.array(answers, np.int64),
        {name: unpacked(values) for name, values in said["numbers"].items()},
    )
