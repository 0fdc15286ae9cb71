"""Memorizing: the training rows are fitted to the last one, and nothing is gained by it."""

from __future__ import annotations

import numpy as np

from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.overfit import TOO_LONG, is_rising
from holdfast.monitor.remedies import for_overfit
from holdfast.monitor.sign import Sign, item, shown
from holdfast.stats.rate_gap import rate_gap
from holdfast.stats.student import paired_t


def memorizing(case: Case) -> Sign | None:
    """``memorizing`` where all of this holds at the last look:

    - the train probe is at its floor: 95 % of its rows are fitted (answered with 90 % or more) and
      its mean loss is below a quarter of the validation loss;
    - that share lies beyond validation's, with the interval, by 5 points or more;
    - the gap grew for nothing: since the first look whose validation loss was as good as now's, the
      train probe fell to a fiftieth or less over three looks or more, and the metric did not rise.
      (Twelve passes of a small layer on frozen features took it to a twentieth and did no harm,
      sixty to a thousandth.)
    """
    if not case.enough or not case.probe.size or is_rising(case):
        return None
    fitted = case.probe[:, -1] < limits.FITTED
    known = case.raw[:, -1] < limits.FITTED
    beyond = rate_gap(int(fitted.sum()), len(fitted), int(known.sum()), len(known), limits.RARE)
    floor = limits.FLOOR_OF_VALID * float(case.raw[:, -1].mean())
    if fitted.mean() < limits.FLOOR_SHARE or case.probe_means[-1] > floor:
        return None
    since = as_good_as_now(case)
    if beyond[0] < limits.BEYOND or since > case.before or not _for_nothing(case, since):
        return None
    ratio = float(case.probe_means[-1] / case.probe_means[since])
    return Sign(
        because=f"{fitted.mean():.0%} of the train probe is fitted against {known.mean():.0%} of "
        f"validation, and since step {case.steps[since]} the train probe fell to {ratio:.0%} of "
        "its loss while validation gained nothing",
        strength=limits.RARE, label="memorizing", cause=TOO_LONG, explains=("miscalibrated",),
        blame=min(0.9, 1 - case.steps[since] / max(1, case.now)), since_step=case.steps[since + 1],
        evidence=(
            item("share_fitted_beyond_valid", float(fitted.mean() - known.mean()), *beyond,
                 step=case.now),
            item("train_probe_loss", float(case.probe_means[-1]), step=case.now),
            item("train_probe_loss_ratio", ratio, step=case.steps[since]),
            shown("valid_change_meanwhile", case.gap(case.valid, -1, since), case.now),
        ),
        remedies=for_overfit(case.history, since),
    )  # fmt: skip


def as_good_as_now(case: Case) -> int:
    """The first look whose validation loss is not above now's: neither beyond chance nor by more
    than the margin."""
    for look in range(len(case.history)):
        gap = case.gap(case.valid, look, -1)
        if gap.low <= 0 and gap.value <= case.margin:
            return look
    return len(case.history) - 1


def _for_nothing(case: Case, since: int) -> bool:
    if case.probe_means[-1] > limits.SPENT * case.probe_means[since]:
        return False
    if case.valid_hits is None:
        return True
    hits = case.valid_hits.astype(np.float64)
    return not paired_t(hits[:, -1], hits[:, since]).low > 0


DETECTORS.add("memorizing", memorizing)
