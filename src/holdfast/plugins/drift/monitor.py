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
from holdfast.plugins.drift.rows import DriftRows, Reference, concatenate_rows
from holdfast.plugins.drift.vectors import (
    MIN_REFERENCE_ROWS,
    VectorWatch,
    decode_floats,
    encode_floats,
)
from holdfast.plugins.drift.watches import ClassWatch, NumberWatch

FORMAT = 1
ROWS_BETWEEN_ALARMS = 100_000
# Rows that a new regime is known by.
NEW_REFERENCE_ROWS = 400
# What tells of a change of the inputs.
ROW_VECTORS = "the rows themselves"
# Rows that are kept, to say of an alarm what it is about.
RECENT_ROWS = 400
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
    """The state of drift monitoring, an immutable value. ``reference`` are the rows that new rows
    are compared with, ``watches`` the sequential tests by name, ``rows`` the number of rows so far,
    and ``first_row`` the row from which this reference is used. While ``gathering`` holds fewer
    than ``NEW_REFERENCE_ROWS`` rows of a new distribution, no alarm is raised."""

    reference: Reference
    between: int
    seed: int
    watches: Mapping[str, Watch]
    rows: int = 0
    first_row: int = 0
    recent: DriftRows = field(default_factory=lambda: DriftRows(0))
    gathering: DriftRows | None = None
    alarms: tuple[Alarm, ...] = ()

    @classmethod
    def of_reference(
        cls, reference: Reference, between: int = ROWS_BETWEEN_ALARMS, seed: int = 0, rows: int = 0
    ) -> DriftMonitor:
        """A monitor that has seen nothing, with ``between`` clean rows between alarms. Sides of
        which the reference says too little are left out: ``unwatched`` says which, and why."""
        if between < 1:
            raise Defect("the rows between alarms", "must be at least 1", between)
        reference_rows = reference.rows
        watches: dict[str, Watch | None] = {}
        if reference_rows.vectors is not None and len(reference_rows) >= MIN_REFERENCE_ROWS:
            watches[INPUTS] = VectorWatch.of_reference(reference_rows.vectors, seed)
        if reference_rows.answers is not None:
            watches[CLASSES] = ClassWatch.of_reference(reference_rows.answers, reference.classes)
        watches[NUMBERS] = NumberWatch.of_reference(reference_rows.numbers)
        known = {name: watch for name, watch in watches.items() if watch is not None}
        return cls(reference, between, seed, known, rows, rows)

    @property
    def unwatched(self) -> dict[str, str]:
        """What is not watched, and why."""
        reference_rows, reasons = self.reference.rows, {}
        if INPUTS not in self.watches:
            few = f"{len(reference_rows)} reference rows are fewer than {MIN_REFERENCE_ROWS}"
            reasons[INPUTS] = "rows have no vectors" if reference_rows.vectors is None else few
        if CLASSES not in self.watches:
            no_class = reference_rows.answers is None or len(self.reference.classes) < 2
            reasons[CLASSES] = "answers are no classes" if no_class else "too few reference answers"
        if NUMBERS not in self.watches:
            reasons[NUMBERS] = "fewer than 20 reference rows have a confidence or a length"
        return reasons

    @property
    def levels(self) -> dict[str, float]:
        """The evidence of each side now, in clean rows between alarms as bold as it: an alarm comes
        at ``between``."""
        return {name: one.detector.level / len(self.watches) for name, one in self.watches.items()}

    def add(self, rows: DriftRows) -> DriftMonitor:
        """After more rows, in their order. Each alarm on the way is added to ``alarms``."""
        monitor, remaining = self, rows
        while len(remaining):
            monitor, n_used = (
                monitor._gather(remaining)
                if monitor.gathering is not None
                else monitor._test(remaining)
            )
            remaining = remaining.take(slice(n_used, None))
        return monitor

    def _test(self, rows: DriftRows) -> tuple[DriftMonitor, int]:
        """The monitor after the rows up to the first alarm, and how many those were."""
        limit, rows_until_alarm = self.between * max(1, len(self.watches)), rows
        watched = {name: watch.add(rows, limit) for name, watch in self.watches.items()}
        first = min((at for _, at in watched.values() if at is not None), default=None)
        if first is not None:
            # The side that alarms first decides how many rows the others see.
            rows_until_alarm = rows.take(slice(0, first))
            watched = {
                name: watch.add(rows_until_alarm, limit) for name, watch in self.watches.items()
            }
        watches: dict[str, Watch] = {name: watch for name, (watch, _) in watched.items()}
        recent = (
            concatenate_rows([self.recent, rows_until_alarm])
            if len(self.recent)
            else rows_until_alarm
        ).last(RECENT_ROWS)
        updated = replace(
            self, watches=watches, rows=self.rows + len(rows_until_alarm), recent=recent
        )
        return (updated if first is None else updated._raise_alarm()), len(rows_until_alarm)

    def _raise_alarm(self) -> DriftMonitor:
        levels = self.levels
        strongest = max(levels, key=lambda name: levels[name])
        watch = self.watches[strongest]
        since = min(self.first_row + watch.detector.since, self.rows - 1)
        by = ROW_VECTORS if isinstance(watch, VectorWatch) else watch.strongest_test
        if isinstance(watch, VectorWatch) and self.recent.vectors is not None:
            rows_since_reference = self.recent.vectors[-(self.rows - self.first_row) :]
            since = self.rows - watch.rows_since_change(rows_since_reference)
        alarm = Alarm(self.rows - 1, since, strongest, by, levels, self.reference.description)
        # What came since the change is of the new regime already.
        known = self.recent.last(self.rows - since)
        return replace(self, alarms=(*self.alarms, alarm), gathering=known)

    def _gather(self, rows: DriftRows) -> tuple[DriftMonitor, int]:
        assert self.gathering is not None
        part = rows.take(slice(0, max(0, NEW_REFERENCE_ROWS - len(self.gathering))))
        gathered = concatenate_rows([self.gathering, part]) if len(part) else self.gathering
        updated = replace(
            self, rows=self.rows + len(part), gathering=gathered, recent=gathered.last(RECENT_ROWS)
        )
        if len(gathered) < NEW_REFERENCE_ROWS:
            return updated, len(part)
        if gathered.vectors is not None:
            # As they are written down, so that a restart changes nothing.
            gathered = replace(
                gathered, vectors=gathered.vectors.astype(np.float16).astype(np.float64)
            )
        reference = self.reference.of_traffic(gathered, f"rows from row {updated.last_change} on")
        fresh = DriftMonitor.of_reference(reference, self.between, self.seed, updated.rows)
        return replace(fresh, alarms=self.alarms, recent=updated.recent), len(part)

    @property
    def new_reference_rows(self) -> DriftRows | None:
        """The rows that the present regime is known by; ``None`` where it is the first."""
        return self.reference.rows if self.alarms and self.gathering is None else None

    @property
    def last_change(self) -> int:
        """The row since which the present regime lasts, 0 where nothing ever changed."""
        return self.alarms[-1].since if self.alarms else 0

    def to_json(self) -> dict[str, Any]:
        """Everything but the first reference, which is the run's; of arrived rows only what a new
        regime is known by, and no text."""
        regime = self.new_reference_rows
        return {
            "format": FORMAT,
            "between": self.between,
            "seed": self.seed,
            "rows": self.rows,
            "begun": self.first_row,
            "alarms": [one.to_json() for one in self.alarms],
            "sides": {name: watch.to_json() for name, watch in self.watches.items()},
            "regime": None if regime is None else _rows_json(regime),
            "what": self.reference.description,
            "gathering": None if self.gathering is None else _rows_json(self.gathering),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], reference: Reference) -> DriftMonitor:
        """The monitor that ``to_json`` wrote down, of the run's ``reference``. Raises
        ``ValueError`` for what is of another form or reference."""
        try:
            if saved["format"] != FORMAT:
                raise ValueError(f"format {saved['format']}")
            if saved["regime"] is not None:
                rows = _rows_from_json(saved["regime"])
                reference = reference.of_traffic(rows, str(saved["what"]))
            monitor = cls.of_reference(reference, int(saved["between"]), int(saved["seed"]))
            gathering = saved["gathering"]
            return replace(
                monitor,
                watches={
                    name: watch.with_saved_state(saved["sides"][name])
                    for name, watch in monitor.watches.items()
                },
                rows=int(saved["rows"]),
                first_row=int(saved["begun"]),
                alarms=tuple(Alarm(**one) for one in saved["alarms"]),
                gathering=None if gathering is None else _rows_from_json(gathering),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _rows_json(rows: DriftRows) -> dict[str, Any]:
    return {
        "n": len(rows),
        "vectors": None if rows.vectors is None else encode_floats(rows.vectors, "<f2"),
        "answers": None if rows.answers is None else rows.answers.tolist(),
        "numbers": {name: encode_floats(values) for name, values in rows.numbers.items()},
    }


def _rows_from_json(saved: Mapping[str, Any]) -> DriftRows:
    n, vectors, answers = int(saved["n"]), saved["vectors"], saved["answers"]
    return DriftRows(
        n,
        None if vectors is None else decode_floats(vectors, "<f2").reshape(n, -1),
        None if answers is None else np.array(answers, np.int64),
        {name: decode_floats(values) for name, values in saved["numbers"].items()},
    )
