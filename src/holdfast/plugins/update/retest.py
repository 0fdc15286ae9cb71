"""Repeated test of a served model on labelled rows: is it still as accurate as on its test set?

The rows were drawn uniformly and no model was trained on them; they are taken in the order in which
they arrived. The test may be repeated at any time: the limits hold at every row at once (a
confidence sequence, ``stats.streams.betting_limits``). A model that is as accurate as its test
score raises an alarm in at most 2.5 % of services, however long they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import to_json
from holdfast.stats.streams.means import betting_limits

LEVEL = 0.95
GRID = 400


@dataclass(frozen=True, slots=True)
class Retest:
    """The re-test on ``n`` rows, in the order in which they came: ``value`` is the accuracy, with
    limits that hold at every evaluation; ``promised`` is the lower limit of the run's test
    accuracy. ``since`` is the row of the first alarm, ``None`` without one."""

    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    promised: float | None = None
    since: int | None = None
    reason: str | None = None

    @property
    def alarm(self) -> bool:
        """Whether the model is shown to be worse than the lower limit of its test accuracy."""
        return self.since is not None

    @property
    def because(self) -> str:
        """The result in one sentence."""
        if self.reason is not None or self.value is None:
            return f"not re-tested: {self.reason}"
        observed = (
            f"accuracy {100 * self.value:.1f} % on {self.n:,} labelled rows (95 % confidence "
            f"sequence {100 * (self.low or 0):.1f}–{100 * (self.high or 1):.1f})"
        )
        promised = f"{100 * (self.promised or 0):.1f} %, the lower limit of the test accuracy"
        shown = "shown to be below" if self.alarm else "not shown to be below"
        return f"{observed}, {shown} {promised}"

    def to_json(self) -> dict[str, Any]:
        block = {
            "metric": "accuracy",
            "n": self.n,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "level": LEVEL,
            "promised": self.promised,
            "alarm": self.alarm,
            "since": self.since,
            "because": self.because,
        }
        return dict(to_json(block))


def retest(correct: Sequence[bool] | npt.NDArray[np.bool_], promised: float | None) -> Retest:
    """Test the accuracy of the rows ``correct`` [n], in the order in which they arrived. The alarm
    is raised at the first row at which the upper limit lies below ``promised``. Without rows or
    without a promised accuracy there is no alarm, and the result holds the reason."""
    hits = np.asarray(correct, dtype=np.float64)
    if not len(hits):
        why = "there are no labelled rows that it was not trained on"
        return Retest(0, promised=promised, reason=why)
    if promised is None:
        return Retest(len(hits), reason="the run's test score has no lower limit")
    limits = betting_limits(hits, alpha=1 - LEVEL, grid=GRID)
    below = np.flatnonzero(limits.high < promised)
    value, low, high = (float(x[-1]) for x in (limits.value, limits.low, limits.high))
    since = int(below[0]) if len(below) else None
    return Retest(len(hits), value, low, high, promised, since)
