"""How far the run has come: validation still falls, has stopped near its best, or the run ends with
more to learn on the training rows themselves.
"""

from __future__ import annotations

from holdfast.core.records import Evidence
from holdfast.monitor import limits
from holdfast.monitor.detectors.memory import as_good_as_now
from holdfast.monitor.detectors.rates import left_over, nothing_learned, rate_low
from holdfast.monitor.evidence import beats_chance
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, clip_confidence, difference_evidence, evidence_item
from holdfast.stats.paired_tests import newcombe, paired_t


def learning(history: History) -> Symptom | None:
    """``learning`` where the validation loss fell, beyond chance and by more than a trifle, against
    three looks ago, and the raw loss has not risen meanwhile."""
    if not history.has_validation or history.has_risen or not history.recent_change.high < 0:
        return None
    if -history.recent_change.value < history.trifle:
        return None
    return Symptom(
        because=f"{history.loss_name} fell by {-history.recent_change.value:.3f} since step "
        f"{history.steps[history.window_start]}",
        strength=clip_confidence(1 - history.recent_change.above),
        label="learning",
        since_step=history.steps[0],
        evidence=(
            difference_evidence("valid_recent_change", history.recent_change, history.last_step),
            difference_evidence(
                "valid_best_against_first", history.gain_over_first, history.last_step
            ),
        ),
        remedies=remedies_for("learning", history),
    )


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
    if not history.has_validation or history.has_risen or not _learned(history):
        return None
    hits = history.valid_hits
    # A fall of the answers by 10 points would have shown in so many rows.
    if len(history.raw) < limits.FEWEST_ROWS:
        return None
    if hits is not None and newcombe(hits[:, -1], hits[:, history.best])[0] <= -limits.GAP:
        return None
    if history.is_useless(len(history.snapshots) - 1) or not better_than_chance(history):
        return None
    gap = history.accuracy_gap
    if history.at_floor and gap is not None and gap.value > limits.GAP:
        return None
    small = history.margin
    if not (history.above_best.high <= small and history.recent_change.low >= -small):
        return None
    return Symptom(
        because=f"{history.loss_name} no longer falls, and is within {small:.3f} of its best at "
        f"step {history.best_step}",
        strength=limits.INTERVAL_LEVEL,
        label="healthy",
        since_step=history.steps[as_good_as_now(history)],
        evidence=(
            difference_evidence("valid_above_best", history.above_best, history.last_step),
            difference_evidence("valid_recent_change", history.recent_change, history.last_step),
        ),
    )


def better_than_chance(history: History) -> bool:
    """Whether the last look is shown to know more than the class frequencies; true where answers
    are not classes. A linear probe of the same rows knows no more where there is nothing to know,
    so being as good as one proves nothing by itself."""
    if history.predictions is None or history.labels is None:
        return True
    return beats_chance(history.predictions, history.valid[:, -1], history.labels)


def _learned(history: History) -> bool:
    if history.gain_over_first.high < 0:
        return True
    reference = history.run_facts.probe_valid_losses
    if reference is None or len(reference) != len(history.raw):
        return False
    return paired_t(history.valid[:, history.best], reference).high <= history.margin


TOO_SHORT = "too few steps"
BETTER = "better than always giving the class frequencies"


def underfit(history: History) -> Symptom | None:
    """``underfit`` at the end of the plan, where one of these holds:

    - the train probe is no better, or hardly, than always giving the class frequencies;
    - validation is worse than a linear probe on the untouched model, on the same rows beyond chance
      and by more than the margin, while the train probe is no better than at the best step;
    - validation still falls steeply: it is at its lowest, and over the last quarter of the steps it
      lost a tenth or more of its loss, beyond chance;
    - the rate is too low (``rate_low`` says why), and half of the train probe's first loss is left
      or validation has gained less than twice the margin.

    Before the end a falling loss is ``learning``; where the plan is not known, always. Never where
    the training rows are at their floor: they have nothing left to teach.
    """
    if (
        not history.has_validation
        or not history.is_at_plan_end
        or not history.probe.size
        or history.at_floor
    ):
        return None
    rules = (_chance, _worse_than_probe, _steep, _slow)
    return next(filter(None, (rule(history) for rule in rules)), None)


def _chance(history: History) -> Symptom | None:
    if not nothing_learned(history):
        return None
    loss, chance = float(history.probe_means[-1]), history.chance
    assert chance is not None
    return _underfit(
        history,
        f"the training loss ends at {loss:.3f}, {'hardly' if loss < chance else 'no'} {BETTER} "
        f"({chance:.3f})",
        0.95,
        evidence_item("train_probe_loss", loss, step=history.last_step),
        evidence_item("loss_of_the_class_frequencies", chance, step=history.last_step),
    )


def _worse_than_probe(history: History) -> Symptom | None:
    reference = history.run_facts.probe_valid_losses
    if reference is None or len(reference) != len(history.valid):
        return None
    gap = paired_t(history.valid[:, -1], reference, limits.ALARM_LEVEL)
    if not (gap.low > 0 and gap.value > history.margin) or history.probe_since_best.high < 0:
        return None
    because = f"{history.loss_name} ends {gap.value:.3f} above that of a linear probe"
    return _underfit(
        history,
        because,
        gap.above,
        difference_evidence("valid_above_linear_probe", gap, history.last_step),
    )


def _steep(history: History) -> Symptom | None:
    # Against the newest look that lies a quarter of the steps back; the first always does.
    line = history.last_step - (history.last_step - history.steps[0]) / 4
    snapshot = max(i for i, step in enumerate(history.steps) if step <= line)
    gap = history.gap(history.valid, -1, snapshot, limits.ALARM_LEVEL)
    level = float(history.valid[:, -1].mean())
    lowest = history.best == len(history.snapshots) - 1
    if not lowest or not gap.high < 0 or -gap.value < limits.STEEP * level:
        return None
    because = (
        f"{history.loss_name} still fell by {-gap.value:.3f} to {level:.3f} over the last quarter "
        "of the steps"
    )
    return _underfit(
        history,
        because,
        1 - gap.above,
        difference_evidence("valid_last_quarter", gap, history.last_step),
    )


def _slow(history: History) -> Symptom | None:
    slow = rate_low(history)
    gained = history.gap(history.valid, -1, 0)
    short = left_over(history) > limits.SLOW or -gained.value < 2 * history.margin
    if slow is None or not short or history.above_best.low > 0:
        return None
    because = (
        f"{history.loss_name} changed by {gained.value:+.3f} over the whole run and the "
        f"training loss by {history.probe_means[-1] - history.probe_means[0]:+.3f}"
    )
    return _underfit(
        history,
        because,
        slow.blame,
        difference_evidence("valid_against_first", gained, history.last_step),
    )


def _underfit(history: History, because: str, strength: float, *evidence: Evidence) -> Symptom:
    return Symptom(
        because=because,
        strength=strength,
        label="underfit",
        cause=TOO_SHORT,
        blame=0.3,
        since_step=history.steps[0],
        evidence=evidence,
        remedies=remedies_for("learning", history),
    )
