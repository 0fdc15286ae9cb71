"""Plateau: validation has stopped moving, near its best."""

from __future__ import annotations

from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.memorization import as_good_as_now
from holdfast.monitor.evidence import beats_chance
from holdfast.monitor.history import History
from holdfast.monitor.symptom import Symptom, shown
from holdfast.stats.paired_tests import newcombe, paired_t


def plateau(history: History) -> Symptom | None:
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
    if not history.enough or history.rose or not _learned(history):
        return None
    hits = history.valid_hits
    # A fall of the answers by 10 points would have shown in so many rows.
    if len(history.raw) < limits.FEWEST_ROWS:
        return None
    if hits is not None and newcombe(hits[:, -1], hits[:, history.best])[0] <= -limits.GAP:
        return None
    if history.useless(len(history.snapshots) - 1) or not better_than_chance(history):
        return None
    gap = history.accuracy_gap
    if history.at_floor and gap is not None and gap.value > limits.GAP:
        return None
    small = history.margin
    if not (history.above_best.high <= small and history.recent.low >= -small):
        return None
    return Symptom(
        because=f"{history.loss_name} no longer falls, and is within {small:.3f} of its best at "
        f"step {history.best_step}",
        strength=limits.USUAL,
        label="healthy",
        since_step=history.steps[as_good_as_now(history)],
        evidence=(
            shown("valid_above_best", history.above_best, history.now),
            shown("valid_recent_change", history.recent, history.now),
        ),
    )


def better_than_chance(history: History) -> bool:
    """Whether the last look is shown to know more than the class frequencies; true where answers
    are not classes. A linear probe of the same rows knows no more where there is nothing to know,
    so being as good as one proves nothing by itself."""
    if history.answers is None or history.labels is None:
        return True
    return beats_chance(history.answers, history.valid[:, -1], history.labels)


def _learned(history: History) -> bool:
    if history.learned.high < 0:
        return True
    reference = history.run_facts.probe_valid_losses
    if reference is None or len(reference) != len(history.raw):
        return False
    return paired_t(history.valid[:, history.best], reference).high <= history.margin


DETECTORS.add("plateau", plateau)
