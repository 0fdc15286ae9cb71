"""What a model remembers and should not, and what it has forgotten: memorized rows, outputs copied
verbatim, rows that were used first, and knowledge of the base model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Floats
from holdfast.core.wording import p_value_phrase, percent_phrase
from holdfast.monitor import limits
from holdfast.monitor.detectors.rises import OVER_EVALUATIONS
from holdfast.monitor.evidence import VERBATIM_EVIDENCE, AccuracyGap, general_loss_rows, is_at_floor
from holdfast.monitor.history import History
from holdfast.monitor.remedies import overfit_remedies, remedies_for
from holdfast.monitor.symptom import FEW_ROWS, TOO_LONG, Symptom, difference_evidence, evidence_item
from holdfast.stats.auc import average_ranks
from holdfast.stats.intervals import rate_gap, wilson
from holdfast.stats.paired_tests import paired_t

# The reason, the confidence and the evidence.
MemoryFinding = tuple[str, float, tuple[Evidence, ...]]


def memorizing(history: History) -> Symptom | None:
    """``memorizing`` where the validation loss did not rise significantly, unseen rows are far
    behind at the last evaluation, and the training loss is near zero, training outputs are
    completed verbatim (``History.completions``), or the loss probably rose
    (``_probable_rise_with_large_gap``). One of these must hold:

    - 95 % of the training sample (for generative models, of its tokens) is correct, and unseen rows
      are far behind (``History.far_behind``); the sentence gives the probability;
    - where predictions are not correct or wrong (numbers): 95 % of the training sample is fitted
      (probability 90 % or more) and its mean loss is below a quarter of the validation loss; that
      share exceeds the validation share by 5 points, by the whole interval; and since the first
      evaluation with a validation loss as good as the current one, three evaluations ago or more,
      the training loss fell to a fiftieth or less without any gain.

    A history cannot show which part of the gap is harm, and which part any model has after learning
    so few rows: the sentence names the gap at the best checkpoint.
    """
    if not history.has_validation or not history.probe.size or history.has_risen:
        return None
    recited = history.completions
    if not history.at_floor and recited is None and not _probable_rise_with_large_gap(history):
        return None
    by = _answers(history) if history.accuracy_gap is not None else _fitted(history)
    if by is None:
        return None
    because, strength, evidence = by
    since, began = as_good_as_now(history), len(history.steps) - 1
    if history.accuracy_gap is None:
        # Without correct and wrong rows: the evaluation after the last gain, or the last one.
        began = min(since + 1, began)
    elif not history.at_floor and recited is None:
        began = history.raw_best + 1
    else:
        while began > 0 and is_at_floor(history.snapshots[began - 1]):
            earlier = history.accuracy_gap_at(began - 1)
            if earlier is None or not earlier.beyond >= 0.5:
                break
            began -= 1
    if not history.steps[began]:
        because += _before_training(history.accuracy_gap_at(began))
    # Where validation still improved at the last evaluations, or the last checkpoint is kept, the
    # length of training is not to blame.
    last = history.kept_place == len(history.snapshots) - 1
    idle = since <= history.window_start and not last
    return Symptom(
        because=because,
        strength=strength,
        label="memorizing",
        cause=TOO_LONG if idle else FEW_ROWS,
        explains=("miscalibrated",) if idle else (),
        blame=min(0.9, 1 - history.steps[since] / max(1, history.last_step)) if idle else 0.3,
        since_step=history.steps[began],
        remedies=overfit_remedies(history, since) if idle else remedies_for("gap of few rows"),
        evidence=(
            *evidence,
            *(() if recited is None else (recited.evidence(VERBATIM_EVIDENCE),)),
            evidence_item(
                "train_probe_loss", float(history.probe_means[-1]), step=history.last_step
            ),
            difference_evidence("valid_above_best", history.above_best, history.last_step),
        ),
    )


def _probable_rise_with_large_gap(history: History) -> bool:
    """Whether the gap is above 10 points with a probability of 95 %, and the validation loss is
    above its best by more than the margin, at an error of 20 % over all evaluations: a few rows
    that still improve can hide a rise that all others show."""
    gap = history.accuracy_gap
    return (
        gap is not None
        and gap.large
        and history.raw_above_best.value > history.raw_margin
        and history.raw_rise.p_value <= 1 - limits.LIKELY
    )


def _answers(history: History) -> MemoryFinding | None:
    gap, rise = history.accuracy_gap, history.raw_above_best
    if gap is None or not history.far_behind:
        return None
    train_words = f"{gap.subject} on training rows is {percent_phrase(gap.train)}"
    gap_words = f"{train_words}, and that on validation rows is far below it"
    if rise.value <= history.raw_margin:
        return f"{gap_words}, though the validation loss hardly rose", limits.INTERVAL_LEVEL, ()
    means, step = history.raw.mean(axis=0), history.steps[history.raw_best]
    rose = f"from {means[history.raw_best]:.3f} to {means[-1]:.3f} since step {step}"
    p, evidence = "", [difference_evidence("valid_loss_above_best", rise, history.last_step)]
    if history.raw_rise.alarm_at is None:
        # The interval in the same evidence is of the last evaluation only.
        p = f" ({p_value_phrase(history.raw_rise.p_value, OVER_EVALUATIONS)})"
        evidence.append(
            evidence_item("p_value_above_best", history.raw_rise.p_value, step=history.last_step)
        )
    if gap.large:
        because = (
            f"{gap_words}; the validation loss rose {rose}"
            f"{f', which is not significant with {rise.n} validation rows' * bool(p)}{p}"
        )
    else:
        because = (
            f"{train_words}, the gap to validation rows exceeds {100 * limits.GAP:.0f} points with "
            f"a probability of {percent_phrase(gap.beyond)}, and the validation loss rose {rose}"
            f"{p}; with {rise.n} validation rows {'neither is' if p else 'only the rise is'} "
            "significant by itself"
        )
    return because, min(limits.INTERVAL_LEVEL, gap.beyond), tuple(evidence)


def _fitted(history: History) -> MemoryFinding | None:
    fitted = history.probe[:, -1] < limits.FITTED
    known = history.raw[:, -1] < limits.FITTED
    beyond = rate_gap(
        int(fitted.sum()), len(fitted), int(known.sum()), len(known), limits.ALARM_LEVEL
    )
    if history.probe_means[-1] > limits.FLOOR_OF_VALID * float(history.raw[:, -1].mean()):
        return None
    since = as_good_as_now(history)
    # A training loss of exactly 0 in float32.
    ratio = float(history.probe_means[-1] / max(history.probe_means[since], 1e-12))
    if beyond[0] < limits.BEYOND or since > history.window_start or ratio > limits.TRAIN_LOSS_LEFT:
        return None
    return (
        f"{percent_phrase(fitted.mean())} of the training sample is fitted, compared with "
        f"{percent_phrase(known.mean())} of the validation rows, and since step "
        f"{history.steps[since]} the training loss fell to {percent_phrase(ratio)} of its value "
        "while the validation loss did not fall",
        limits.INTERVAL_LEVEL,
        (
            evidence_item(
                "share_fitted_beyond_valid",
                float(fitted.mean() - known.mean()),
                *beyond,
                step=history.last_step,
            ),
            evidence_item("train_probe_loss_ratio", ratio, step=history.steps[since]),
        ),
    )


def as_good_as_now(history: History) -> int:
    """The first evaluation whose validation loss is not above the current one: neither
    significantly nor by more than the margin."""
    for evaluation in range(len(history.snapshots)):
        gap = history.gap(history.valid, evaluation, -1)
        if gap.low <= 0 and gap.value <= history.margin:
            return evaluation
    return len(history.snapshots) - 1


def _before_training(gap: AccuracyGap | None) -> str:
    """Say that rows were memorized before any update, by a fitted last layer or by a model that had
    seen them before. Then no step of the run memorized them."""
    assert gap is not None
    why = " (the last layer is fitted to them)" if gap.of not in ("tokens", "completions") else ""
    return (
        f"; at step 0, before the first update, {gap.name} was already "
        f"{percent_phrase(gap.train)} on training rows{why} and {percent_phrase(gap.valid)} on "
        "validation rows"
    )


BY_HEART = "training outputs are generated verbatim"
COPYING = "the model copies its source"
LOOPING = "the generated text repeats itself"
COLLAPSE = "the generated texts collapse to one"
BY_TEXTS: tuple[Label, ...] = ("underfit", "overfit", "memorizing", "diverging", "inconclusive")
# The counted faults with what the outputs do, in the order in which they are named when several are
# frequent.
FAULTS = (
    ("wrong_training_answer", BY_HEART, "are copies of training outputs"),
    ("collapsed", COLLAPSE, "are the same text"),
    ("repetition", LOOPING, "repeat themselves"),
    ("source_copied", COPYING, "copy their source"),
)


def outputs(history: History) -> Symptom | None:
    """Faults of generated text, by their shares in the last snapshot that has them: of validation
    rows, and of training rows where known. A run of an older version may have test rows only.

    The first fault that a fifth of the outputs on validation rows have decides (of source copies:
    half, since a summary may quote). Training outputs on other rows are ``memorizing``. An output
    that loops, collapses or copies the source is a cause without a label: where training rows show
    it as often, it is how the model generates and not what it has memorized. Where the number of
    outputs (``n``) is known, the share has an interval, whose lower limit must be above half of the
    threshold.
    """
    shares = next((s.outputs for s in reversed(history.snapshots) if s.outputs), None) or {}
    split = "valid" if shares.get("valid") else "test"
    if not shares.get(split):
        return None
    unseen, train = shares[split], shares.get("train", {})
    fault = next((one for one in FAULTS if _is_frequent(unseen, one[0])), None)
    if fault is None:
        return None
    name, cause, words = fault
    low, high = _limits(unseen, name)
    evidence = [evidence_item(f"{split}_share_{name}", unseen[name], low, high, history.last_step)]
    if name in train:
        evidence.append(evidence_item(f"train_share_{name}", train[name], step=history.last_step))
    by_heart = cause == BY_HEART
    return Symptom(
        because=f"{percent_phrase(unseen[name])} of the outputs for "
        f"{'validation' if split == 'valid' else split} rows {words}",
        strength=0.9 if by_heart else 0.0,
        label="memorizing" if by_heart else None,
        cause=cause,
        blame=0.85,
        explains=BY_TEXTS,
        evidence=tuple(evidence),
        remedies=remedies_for("repeating" if cause == LOOPING else "copying"),
    )


def _is_frequent(shares: Mapping[str, float], name: str) -> bool:
    """Whether a share reaches its threshold, also by its interval where the number is known."""
    line = limits.COPIED if name == "source_copied" else limits.REPEATS
    low, _ = _limits(shares, name)
    return shares.get(name, 0.0) >= line and (low is None or low >= line / 2)


def _limits(shares: Mapping[str, float], name: str) -> tuple[float | None, float | None]:
    """Wilson's 95 % limits of a share, where the number of outputs is known."""
    value, n = shares.get(name, 0.0), int(shares.get("n", 0))
    return wilson(value * n, n) if n else (None, None)


FIRST_ROWS_CAUSE = "rows used first are fitted more than rows used later"
BY_ORDER: tuple[Label, ...] = ("overfit", "memorizing", "underfit", "inconclusive")
LEAST = 30


def primacy(history: History) -> Symptom | None:
    """A cause, without a label, where the fall of each row's loss correlates with how early the row
    was first used: Spearman's ρ of the first update against (loss now − loss at the start) is 0.2
    or more, and its 99.9 % interval (Fisher's z, with the variance 1.06 ÷ (n − 3) of Fieller,
    Hartley and Pearson 1957) is above 0. Only rows of the training sample that were used count, 30
    at least, and only in a run that has taken a twentieth off their loss: before that nothing has
    been fitted.
    """
    first_use = history.run_facts.first_seen
    if not history.comparable or first_use is None or len(first_use) != len(history.probe):
        return None
    used = np.asarray(first_use) >= 0
    if history.probe_means[-1] > limits.NOTHING_LEARNED_SHARE * history.probe_means[0]:
        return None
    if used.sum() < LEAST or np.ptp(np.asarray(first_use)[used]) == 0:
        return None
    left = history.probe[used, -1] - history.probe[used, 0]
    rho, low, high = spearman(np.asarray(first_use, dtype=np.float64)[used], left)
    if rho < limits.PRIMACY or not low > 0:
        return None
    return Symptom(
        because=FIRST_ROWS_CAUSE,
        cause=FIRST_ROWS_CAUSE,
        blame=0.5,
        explains=BY_ORDER,
        since_step=history.steps[0],
        evidence=(
            evidence_item(
                "rank_correlation_first_seen_with_loss_left", rho, low, high, history.last_step
            ),
        ),
        remedies=remedies_for("primacy", history),
    )


def spearman(x: Floats, y: Floats, level: float = limits.ALARM_LEVEL) -> tuple[float, float, float]:
    """ρ and its interval; all NaN where one of the two does not vary."""
    from scipy.special import ndtri

    ranks = average_ranks(x), average_ranks(y)
    if min(np.ptp(r) for r in ranks) == 0:
        return math.nan, math.nan, math.nan
    rho = float(np.corrcoef(*ranks)[0, 1])
    half = float(ndtri(0.5 + level / 2)) * math.sqrt(1.06 / (len(x) - 3))
    # Fisher's z of ±1 is infinite.
    middle = math.atanh(max(-0.999999, min(0.999999, rho)))
    return rho, math.tanh(middle - half), math.tanh(middle + half)


OVERWRITTEN = "fine-tuning overwrites what the base model knew"


def forgetting(history: History) -> Symptom | None:
    """``forgetting`` where the mean loss on the general-text set is above its first value by 5 % of
    it and by the margin of 0.02, at each of the last two evaluations.

    The rule is based on the size of the rise and on seeing it twice. Where the snapshots keep the
    rows of that set, the lower end of the rise's 95 % interval over them must also be above 0;
    where they keep only the mean, there is no interval. The confidence is never above 0.9.
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
    # The rise over the rows since the first evaluation, where they are known.
    start, end = (general_loss_rows(history.snapshots[snapshot]) for snapshot in (0, -1))
    gap = None if start is None or end is None else paired_t(end, start)
    if gap is not None and not gap.low > 0:
        return None
    rise = known[-1][1] - first
    name, now = "general_loss_above_first", history.last_step
    general_rows_seen = (
        evidence_item(name, rise, step=now) if gap is None else difference_evidence(name, gap, now)
    )
    return Symptom(
        because=f"the loss on general text is {rise:.3f} above its first value of {first:.3f}",
        strength=0.9,
        label="forgetting",
        cause=OVERWRITTEN,
        since_step=since,
        evidence=(general_rows_seen,),
        remedies=remedies_for("forgetting", history),
    )
