"""Progress of a run: the validation loss still falls, has stopped near its best, or the run ended
before the training rows were learned.
"""

from __future__ import annotations

from holdfast.core.records import Evidence
from holdfast.core.wording import signed
from holdfast.monitor import limits
from holdfast.monitor.detectors.memory import as_good_as_now
from holdfast.monitor.detectors.rates import left_over, nothing_learned, rate_low
from holdfast.monitor.evidence import beats_chance
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, clip_confidence, difference_evidence, evidence_item
from holdfast.stats.paired_tests import newcombe, paired_t


def learning(history: History) -> Symptom | None:
    """``learning`` where the validation loss fell significantly, and by more than a negligible
    amount, since three evaluations ago (in a short run, within its last half), is no more than such
    an amount above its lowest, and the raw loss has not risen meanwhile."""
    if not history.has_validation or history.has_risen or not history.recent_change.high < 0:
        return None
    if -history.recent_change.value < history.trifle or history.above_best.value > history.trifle:
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
    """``healthy`` where all of these hold:

    - no loss rose;
    - the rows exclude both that validation is above its best by more than the margin and that it
      fell by more than the margin since the evaluation that ``learning`` compares with;
    - they exclude that accuracy fell by 10 points since the best evaluation (Newcombe's paired
      interval), and there are at least 36 of them: of fewer, even if none changed, one in ten may
      have (Clopper and Pearson's limit);
    - the training loss is not near zero, or accuracy on unseen rows is at most 10 points lower: to
      exclude ``healthy`` such a gap need not be proven;
    - predictions are significantly better than the class frequencies (by loss or by accuracy; see
      ``evidence.beats_chance``), or the loss is better than before training;
    - something was learned: the best checkpoint is significantly better than the first, or no worse
      than a linear probe on the same rows.

    It begins at the first evaluation that was as good as the last.
    """
    if not history.has_validation or history.has_risen or not _learned(history):
        return None
    hits = history.valid_hits
    # With this many rows a fall of the accuracy by 10 points would have been visible.
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
    """Whether the last evaluation is significantly better than the class frequencies; true where
    predictions are not classes. To be as good as a linear probe on the same rows proves nothing:
    where there is nothing to learn, the probe is no better than the class frequencies either."""
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
BETTER = "better than always predicting the class frequencies"


def underfit(history: History) -> Symptom | None:
    """``underfit`` at the end of the plan, where one of these holds:

    - the training loss is not better, or hardly better, than that of the class frequencies;
    - the validation loss is above that of a linear probe on the base model, on the same rows,
      significantly and by more than the margin, while the training loss is no better than at the
      best step;
    - the validation loss still falls steeply: it is at its lowest, and since an evaluation in the
      second half, a quarter of the steps or more ago, it fell significantly by a tenth or more;
    - the learning rate is too low (``rate_low`` says why), and half of the first training loss is
      left or validation has gained less than twice the margin.

    Before the end of the plan, and always where the plan is not known, a falling loss is
    ``learning``. Never where the training loss is near zero: nothing is left to learn from the
    rows.
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
        f"the training loss ends at {loss:.3f}, "
        f"{'hardly' if loss < chance else 'not'} {BETTER} ({chance:.3f})",
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
    # Compare with the newest evaluation at least a quarter of the steps back. With none in the
    # second half, nothing tells an early fall from a late one.
    last, span = history.last_step, history.last_step - history.steps[0]
    snapshot = max(i for i, step in enumerate(history.steps) if step <= last - span / 4)
    since = history.steps[snapshot]
    if since < last - span / 2:
        return None
    gap = history.gap(history.valid, -1, snapshot, limits.ALARM_LEVEL)
    level = float(history.valid[:, -1].mean())
    lowest = history.best == len(history.snapshots) - 1
    if not lowest or not gap.high < 0 or -gap.value < limits.STEEP * level:
        return None
    because = (
        f"{history.loss_name} still fell by {-gap.value:.3f} to {level:.3f} since step {since}"
    )
    return _underfit(
        history,
        because,
        1 - gap.above,
        difference_evidence("valid_last_part", gap, history.last_step),
    )


def _slow(history: History) -> Symptom | None:
    slow = rate_low(history)
    gained = history.gap(history.valid, -1, 0)
    short = left_over(history) > limits.SLOW or -gained.value < 2 * history.margin
    if slow is None or not short or history.above_best.low > 0:
        return None
    because = (
        f"{history.loss_name} changed by {signed(gained.value, '+.3f')} over all steps and "
        "the training loss "
        f"by {signed(history.probe_means[-1] - history.probe_means[0], '+.3f')}"
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
