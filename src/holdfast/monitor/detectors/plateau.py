"""Plateau: validation has stopped moving, near its best."""

from __future__ import annotations

from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.memorizing import as_good_as_now
from holdfast.monitor.evidence import beats_chance
from holdfast.monitor.sign import Sign, shown
from holdfast.stats.paired import newcombe
from holdfast.stats.student import paired_t


def plateau(case: Case) -> Sign | None:
    """``healthy`` where all of this holds:

    - nothing rose;
    - the rows can exclude both that validation is above its best by more than the margin and that
      it fell by more than the margin since three looks ago;
    - they can exclude that its share of right answers fell by 10 points since the best look
      (Newcombe's paired interval), and there are 36 of them: of fewer, even if none changed, one in
      ten may (Clopper and Pearson's limit);
    - the training rows are not at their floor, or unseen rows at most 10 points behind: to stand
      against ``healthy`` such a gap need not be proven;
    - it is better, beyond chance, than knowing nothing but the class frequencies (by its loss or
      by its answers; see ``evidence.beats_chance``), or its loss is better than untrained;
    - something was learned: the best state is significantly better than the first, or no worse
      than a linear probe on the same rows.

    Since the first look that was as good as the last.
    """
    if not case.enough or case.rose or not _learned(case) or not enough_rows(case):
        return None
    if case.useless(len(case.history) - 1) or not better_than_chance(case):
        return None
    gap = case.accuracy_gap
    if case.at_floor and gap is not None and gap.value > limits.GAP:
        return None
    small = case.margin
    if not (case.above_best.high <= small and case.recent.low >= -small):
        return None
    return Sign(
        because=f"{case.loss_name} has stopped falling and is within {small:.3f} of its best at "
        f"step {case.best_step}",
        strength=limits.USUAL,
        label="healthy",
        since_step=case.steps[as_good_as_now(case)],
        evidence=(
            shown("valid_above_best", case.above_best, case.now),
            shown("valid_recent_change", case.recent, case.now),
        ),
    )


def enough_rows(case: Case) -> bool:
    """Whether a fall of the answers by 10 points would have shown in so many rows."""
    hits = case.valid_hits
    if len(case.raw) < limits.FEWEST_ROWS:
        return False
    return hits is None or newcombe(hits[:, -1], hits[:, case.best])[0] > -limits.GAP


def better_than_chance(case: Case) -> bool:
    """Whether the last look is shown to know more than the class frequencies; true where answers
    are not classes. A linear probe of the same rows knows no more where there is nothing to know,
    so being as good as one proves nothing by itself."""
    if case.valid_hits is None or case.labels is None:
        return True
    return beats_chance(case.valid_hits[:, -1], case.valid[:, -1], case.labels)


def _learned(case: Case) -> bool:
    if case.learned.high < 0:
        return True
    reference = case.circumstances.probe_valid_losses
    if reference is None or len(reference) != len(case.raw):
        return False
    return paired_t(case.valid[:, case.best], reference).high <= case.margin


DETECTORS.add("plateau", plateau)
