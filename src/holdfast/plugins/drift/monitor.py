"""Drift monitoring of a stream of rows: inputs, predicted classes and monitored statistics.

Three sequential tests compare arriving rows with a reference: the input vectors, the shares of the
predicted classes, and numbers such as confidence and length. After an alarm, later rows are
compared with the new distribution, so that one change raises one alarm.

The limit is the mean number of clean rows between false alarms, over all tests together. With k
tests, each is allowed one false alarm in k times as many rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from holdfast.core.errors import Defect
from holdfast.plugins.drift.rows import UNPREDICTED, DriftRows, Reference, concatenate_rows
from holdfast.plugins.drift.vectors import (
    MIN_REFERENCE_ROWS,
    VectorWatch,
    decode_floats,
    encode_floats,
)
from holdfast.plugins.drift.watches import ClassWatch, NumberWatch

FORMAT = 1
ROWS_BETWEEN_ALARMS = 100_000
# Rows that describe a new distribution.
NEW_REFERENCE_ROWS = 400
# What an alarm of the inputs names in place of a statistic.
ROW_VECTORS = "input vectors"
# Recent rows that are kept to describe an alarm.
RECENT_ROWS = 400
INPUTS, CLASSES, NUMBERS = "inputs", "classes", "numbers"
Watch = VectorWatch | ClassWatch | NumberWatch


@dataclass(frozen=True, slots=True)
class Alarm:
    """A detected change: rows differ from the reference. It was detected after row ``at`` and began
    at about row ``since`` (0-based, counted over all monitored rows). ``side`` is the test that
    detected it, ``by`` the statistic in words. ``levels`` holds the evidence of each test at that
    time, in clean rows between alarms. ``against`` names the reference: the reference rows, or the
    distribution before."""

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
        """A monitor that has seen no row yet, with ``between`` clean rows between false alarms.
        Tests for which the reference has too little data are left out; ``unwatched`` lists them
        with the reason."""
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
        """The tests that are not run, with the reason."""
        reference_rows, reasons = self.reference.rows, {}
        if INPUTS not in self.watches:
            few = f"{len(reference_rows)} reference rows; at least {MIN_REFERENCE_ROWS} are needed"
            reasons[INPUTS] = "rows have no vectors" if reference_rows.vectors is None else few
        if CLASSES not in self.watches:
            is_class = len(self.reference.classes) > 1
            few = UNPREDICTED if reference_rows.answers is None else "too few reference predictions"
            reasons[CLASSES] = few if is_class else "predictions are not classes"
        if NUMBERS not in self.watches:
            reasons[NUMBERS] = "fewer than 20 reference rows have a confidence or a length"
        return reasons

    @property
    def levels(self) -> dict[str, float]:
        """The present evidence of each test, in clean rows between alarms with at least this
        evidence. An alarm is raised at ``between``."""
        return {name: one.detector.level / len(self.watches) for name, one in self.watches.items()}

    def add(self, rows: DriftRows) -> DriftMonitor:
        """The monitor after more rows, in their order. Alarms that they raise are appended to
        ``alarms``."""
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
        """The monitor after the rows up to the first alarm, and the number of these rows."""
        limit, rows_until_alarm = self.between * max(1, len(self.watches)), rows
        watched = {name: watch.add(rows, limit) for name, watch in self.watches.items()}
        first = min((at for _, at in watched.values() if at is not None), default=None)
        if first is not None:
            # The test that raises an alarm first decides how many rows the others see.
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
        # Rows since the change already belong to the new distribution.
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
            # In the precision that is stored, so that a restart changes nothing.
            gathered = replace(
                gathered, vectors=gathered.vectors.astype(np.float16).astype(np.float64)
            )
        reference = self.reference.of_traffic(gathered, f"rows from row {updated.last_change} on")
        fresh = DriftMonitor.of_reference(reference, self.between, self.seed, updated.rows)
        return replace(fresh, alarms=self.alarms, recent=updated.recent), len(part)

    @property
    def new_reference_rows(self) -> DriftRows | None:
        """The rows that describe the present distribution; ``None`` while it is still the first
        one."""
        return self.reference.rows if self.alarms and self.gathering is None else None

    @property
    def last_change(self) -> int:
        """The row at which the present distribution began; 0 where nothing has changed."""
        return self.alarms[-1].since if self.alarms else 0

    def to_json(self) -> dict[str, Any]:
        """The whole state except the first reference, which belongs to the run. Of arrived rows it
        holds only what describes a new distribution, and no text."""
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
        """Restore the monitor that ``to_json`` stored, with the run's ``reference``. Raises
        ``ValueError`` for another format or reference."""
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
