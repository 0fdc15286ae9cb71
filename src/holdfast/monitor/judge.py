"""The one door of the room: a history of snapshots to a verdict."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core.circumstances import Circumstances
from holdfast.core.records import Snapshot, Verdict
from holdfast.monitor.plain import plain_rule


def judge(history: Sequence[Snapshot], circumstances: Circumstances | None = None) -> Verdict:
    """The verdict on a history, oldest snapshot first: a pure function of what it is given.

    ``circumstances`` sharpen it; without them the same history gets the same label or
    ``inconclusive``, never a surer one.
    """
    del circumstances
    return plain_rule(history)
