"""Memorizing: the training rows are known to the last one, and validation rows are not."""

from __future__ import annotations

from holdfast.core.records import Evidence, Snapshot
from holdfast.core.wording import p_words
from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.few_rows import CAUSE as FEW_ROWS
from holdfast.monitor.detectors.overfit import OVER_LOOKS
from holdfast.monitor.generalisation import RECITED, at_floor, gap_of
from holdfast.monitor.history import History
from holdfast.monitor.remedies import for_overfit, remedies_for
from holdfast.monitor.symptom import TOO_LONG, Symptom, item, shown
from holdfast.stats.rates import rate_gap

# In words, how sure, and with what evidence.
Found = tuple[str, float, tuple[Evidence, ...]]


def memorizing(history: History) -> Symptom | None:
    """``memorizing`` where validation did not rise, the train probe is at its floor or answers of
    training rows are completed to the word (``History.completions``), and unseen rows are far from
    it at the last look:

    - 95 % of the train probe (of models that write, of its tokens) is right, and unseen rows are
      far behind (``History.far_behind``); the sentence says how likely that is;
    - where answers are not right or wrong (numbers): 95 % of the train probe is
      fitted (given 90 % or more) and its mean loss below a quarter of validation's; that share lies
      beyond validation's by 5 points, by the whole interval; and for nothing: since the first look
      whose validation loss was as good as now's, three looks ago or more, the train probe fell to
      a fiftieth or less.

    How many points of the gap are harm, and how many come with learning so few rows at all, no
    history can tell: the sentence names the gap of the state that is kept.
    """
    if not history.enough or not history.probe.size or history.rose:
        return None
    recited = history.completions
    if not history.at_floor and recited is None:
        return None
    by = _answers(history) if history.accuracy_gap is not None else _fitted(history)
    if by is None:
        return None
    because, strength, evidence = by
    since, began = as_good_as_now(history), len(history.steps) - 1
    if history.accuracy_gap is None:
        # Of rows that are not right or wrong the look after which nothing was gained, or the last.
        began = min(since + 1, began)
    else:
        while began > 0 and at_floor(history.snapshots[began - 1]):
            earlier = gap_of(history.snapshots[began - 1])
            if earlier is None or not earlier.beyond >= 0.5:
                break
            began -= 1
    if not history.steps[began]:
        because += _before_training(history.snapshots[began])
    # Where validation still gained at the last looks, or the last state is kept, no length of
    # training is to blame.
    last = history.kept_look == len(history.snapshots) - 1
    idle = since <= history.before and not last
    return Symptom(
        because=because,
        strength=strength,
        label="memorizing",
        cause=TOO_LONG if idle else FEW_ROWS,
        explains=("miscalibrated",) if idle else (),
        blame=min(0.9, 1 - history.steps[since] / max(1, history.now)) if idle else 0.3,
        since_step=history.steps[began],
        remedies=for_overfit(history, since) if idle else remedies_for("gap of few rows"),
        evidence=(
            *evidence,
            *(() if recited is None else (recited.evidence(RECITED),)),
            item("train_probe_loss", float(history.probe_means[-1]), step=history.now),
            shown("valid_above_best", history.above_best, history.now),
        ),
    )


def _answers(history: History) -> Found | None:
    gap, rise = history.accuracy_gap, history.raw_above_best
    if gap is None or not history.far_behind:
        return None
    near = f"the {gap.name} on training rows is {gap.train:.0%}"
    far = f"{near} and that on validation rows far below it"
    if rise.value <= history.raw_margin:
        return f"{far}, though the validation loss hardly rose", limits.USUAL, ()
    means, step = history.raw.mean(axis=0), history.steps[history.raw_best]
    rose = f"from {means[history.raw_best]:.3f} to {means[-1]:.3f} since step {step}"
    p, evidence = "", [shown("valid_loss_above_best", rise, history.now)]
    if history.raw_rise.alarm is None:
        # The interval beside it is of the last look alone.
        p = f" ({p_words(history.raw_rise.p_value, OVER_LOOKS)})"
        evidence.append(item("p_value_above_best", history.raw_rise.p_value, step=history.now))
    if gap.large:
        because = (
            f"{far}; the validation loss rose {rose}, which is not significant with {rise.n} "
            "validation rows"
        )
    else:
        because = (
            f"{near}, and the gap to validation rows exceeds {100 * limits.GAP:.0f} points with a "
            f"probability of {gap.beyond:.0%}; {rise.n} validation rows prove neither this nor the "
            f"rise of the validation loss {rose}"
        )
    return f"{because}{p}", min(limits.USUAL, gap.beyond), tuple(evidence)


def _fitted(history: History) -> Found | None:
    fitted = history.probe[:, -1] < limits.FITTED
    known = history.raw[:, -1] < limits.FITTED
    beyond = rate_gap(int(fitted.sum()), len(fitted), int(known.sum()), len(known), limits.RARE)
    if history.probe_means[-1] > limits.FLOOR_OF_VALID * float(history.raw[:, -1].mean()):
        return None
    since = as_good_as_now(history)
    # A training loss of exactly 0 in float32.
    ratio = float(history.probe_means[-1] / max(history.probe_means[since], 1e-12))
    if beyond[0] < limits.BEYOND or since > history.before or ratio > limits.SPENT:
        return None
    return (
        f"{fitted.mean():.0%} of the training sample is fitted against {known.mean():.0%} of the "
        f"validation rows, and since step {history.steps[since]} the training loss fell to "
        f"{ratio:.0%} of its value while the validation loss did not fall",
        limits.USUAL,
        (
            item(
                "share_fitted_beyond_valid",
                float(fitted.mean() - known.mean()),
                *beyond,
                step=history.now,
            ),
            item("train_probe_loss_ratio", ratio, step=history.steps[since]),
        ),
    )


def as_good_as_now(history: History) -> int:
    """The first look whose validation loss is not above now's: neither beyond chance nor by more
    than the margin."""
    for look in range(len(history.snapshots)):
        gap = history.gap(history.valid, look, -1)
        if gap.low <= 0 and gap.value <= history.margin:
            return look
    return len(history.snapshots) - 1


def _before_training(look: Snapshot) -> str:
    """Of rows that were known before any update: a last layer that was fitted to them, or a model
    that had met them. Then no step of the run is what memorized them."""
    gap = gap_of(look)
    assert gap is not None
    why = " (the last layer is fitted to them)" if gap.of == "rows" else ""
    return (
        f"; at step 0, before the first update, {gap.name} was already {gap.train:.0%} on training "
        f"rows{why} and {gap.valid:.0%} on validation rows"
    )


DETECTORS.add("memorizing", memorizing)
