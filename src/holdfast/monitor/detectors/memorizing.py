"""Memorizing: the training rows are known to the last one, and unseen rows are not."""

from __future__ import annotations

from holdfast.core.records import Evidence, Remedy, Snapshot
from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.few_rows import CAUSE as FEW_ROWS
from holdfast.monitor.detectors.overfit import TOO_LONG
from holdfast.monitor.generalisation import at_floor, gap_of
from holdfast.monitor.remedies import for_memory, for_overfit
from holdfast.monitor.sign import Sign, item, shown
from holdfast.stats.rate_gap import rate_gap


def memorizing(case: Case) -> Sign | None:
    """``memorizing`` where validation did not rise, the train probe is at its floor, and unseen
    rows are far from it at the last look:

    - 95 % of the train probe is right, and the gap of right answers to validation is above 10
      points by its whole interval;
    - where answers are not right or wrong (generated text, numbers): 95 % of the train probe is
      fitted (given 90 % or more) and its mean loss below a quarter of validation's; that share lies
      beyond validation's by 5 points, by the whole interval; and for nothing: since the first look
      whose validation loss was as good as now's, three looks ago or more, the train probe fell to
      a fiftieth or less.

    How many points of the gap are harm, and how many come with learning so few rows at all, no
    history can tell: the sentence names the gap of the state that is kept.
    """
    if not case.enough or not case.probe.size or case.rose or not case.at_floor:
        return None
    by = _answers(case) if case.accuracy_gap is not None else _fitted(case)
    if by is None:
        return None
    because, evidence = by
    since = as_good_as_now(case)
    # Validation that still gained at the last looks blames no length of training.
    idle = since <= case.before
    remedies = for_overfit(case.history, since, case.kept_look)
    return Sign(
        because=because,
        strength=limits.USUAL,
        label="memorizing",
        cause=TOO_LONG if idle else FEW_ROWS,
        explains=("miscalibrated",) if idle else (),
        blame=min(0.9, 1 - case.steps[since] / max(1, case.now)) if idle else 0.3,
        since_step=case.steps[_since(case, since)],
        remedies=remedies if idle else (Remedy("label more rows"), *for_memory()),
        evidence=(
            *evidence,
            item("train_probe_loss", float(case.probe_means[-1]), step=case.now),
            shown("valid_above_best", case.above_best, case.now),
        ),
    )


def _answers(case: Case) -> tuple[str, tuple[Evidence, ...]] | None:
    gap = case.accuracy_gap
    if gap is None or not gap.large:
        return None
    because = "nearly all training rows are right and unseen rows are far from it"
    rise = case.raw_above_best
    if rise.value <= case.raw_margin:
        return f"{because}, though no loss rose", ()
    step = case.steps[case.raw_best]
    return (
        f"{because}; that the validation loss rose, by {rise.value:.3f} since step {step}, is not "
        f"beyond chance over all looks at {rise.n} rows",
        (shown("valid_loss_above_best", rise, case.now),),
    )


def _fitted(case: Case) -> tuple[str, tuple[Evidence, ...]] | None:
    fitted = case.probe[:, -1] < limits.FITTED
    known = case.raw[:, -1] < limits.FITTED
    beyond = rate_gap(int(fitted.sum()), len(fitted), int(known.sum()), len(known), limits.RARE)
    if case.probe_means[-1] > limits.FLOOR_OF_VALID * float(case.raw[:, -1].mean()):
        return None
    since = as_good_as_now(case)
    ratio = float(case.probe_means[-1] / max(case.probe_means[since], 1e-12))
    if beyond[0] < limits.BEYOND or since > case.before or ratio > limits.SPENT:
        return None
    return (
        f"{fitted.mean():.0%} of the train probe is fitted against {known.mean():.0%} of "
        f"validation, and since step {case.steps[since]} the train probe fell to {ratio:.0%} of "
        "its loss while validation gained nothing",
        (
            item(
                "share_fitted_beyond_valid",
                float(fitted.mean() - known.mean()),
                *beyond,
                step=case.now,
            ),
            item("train_probe_loss_ratio", ratio, step=case.steps[since]),
        ),
    )


def as_good_as_now(case: Case) -> int:
    """The first look whose validation loss is not above now's: neither beyond chance nor by more
    than the margin."""
    for look in range(len(case.history)):
        gap = case.gap(case.valid, look, -1)
        if gap.low <= 0 and gap.value <= case.margin:
            return look
    return len(case.history) - 1


def _since(case: Case, since: int) -> int:
    """The look since which the training rows are at their floor and far ahead; of rows that are not
    right or wrong the look after which nothing was gained, or the last one."""
    if case.accuracy_gap is None:
        return min(since + 1, len(case.steps) - 1)
    began = len(case.steps) - 1
    while began > 0 and _known_by_heart(case.history[began - 1]):
        began -= 1
    return began


def _known_by_heart(look: Snapshot) -> bool:
    gap = gap_of(look)
    return at_floor(look) and gap is not None and gap.large


DETECTORS.add("memorizing", memorizing)
