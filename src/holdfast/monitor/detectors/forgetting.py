"""Forgetting: what the model knew before is getting lost, by a general probe."""

from __future__ import annotations

import math

from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.evidence import general_rows
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, item, shown
from holdfast.stats.paired_tests import paired_t

CAUSE = "the new rows overwrite what the model knew"


def forgetting(history: History) -> Symptom | None:
    """``forgetting`` where the mean loss on the general probe is above its first by 5 % of it and
    by the margin of 0.02, at the last two looks alike.

    The rule stands on the size of the rise and on its standing twice. Where the snapshots keep the
    probe's rows, the lower end of the rise's 95 % interval over them must be above 0 too; where
    they keep the mean alone there is no interval. The confidence is never above 0.9.
    """
    if not history.comparable:
        return None
    losses = [(s.step, s.general_loss) for s in history.snapshots if s.general_loss is not None]
    known = [(step, loss) for step, loss in losses if math.isfinite(loss)]
    if len(known) < 3:
        return None
    first = known[0][1]
    line = first + max(limits.MARGIN, limits.FORGOTTEN * abs(first))
    if not all(loss > line for _, loss in known[-2:]):
        return None
    since = next(step for i, (step, _) in enumerate(known) if all(x > line for _, x in known[i:]))
    # The rise of the probe's rows since the first look, where they are known.
    start, end = (general_rows(history.snapshots[look]) for look in (0, -1))
    gap = None if start is None or end is None else paired_t(end, start)
    if gap is not None and not gap.low > 0:
        return None
    rise = known[-1][1] - first
    name, now = "general_loss_above_first", history.now
    seen = item(name, rise, step=now) if gap is None else shown(name, gap, now)
    return Symptom(
        because=f"the loss on the general probe is {rise:.3f} above the {first:.3f} it began with",
        strength=0.9,
        label="forgetting",
        cause=CAUSE,
        since_step=since,
        evidence=(seen,),
        remedies=remedies_for("forgetting", history),
    )


DETECTORS.add("forgetting", forgetting)
