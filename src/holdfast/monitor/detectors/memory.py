"""What a model remembers that it should not, or no longer does: rows known to the last one, answers
written word for word, rows that were seen first, and what it knew before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Floats, Snapshot
from holdfast.core.wording import p_value_phrase
from holdfast.monitor import limits
from holdfast.monitor.detectors.rises import OVER_EVALUATIONS
from holdfast.monitor.evidence import (
    VERBATIM_EVIDENCE,
    accuracy_gap_of,
    general_loss_rows,
    is_at_floor,
)
from holdfast.monitor.history import History
from holdfast.monitor.remedies import overfit_remedies, remedies_for
from holdfast.monitor.symptom import FEW_ROWS, TOO_LONG, Symptom, difference_evidence, evidence_item
from holdfast.stats.auc import average_ranks
from holdfast.stats.intervals import rate_gap, wilson
from holdfast.stats.paired_tests import paired_t

# In words, how sure, and with what evidence.
MemoryFinding = tuple[str, float, tuple[Evidence, ...]]


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
    if not history.has_validation or not history.probe.size or history.has_risen:
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
        while began > 0 and is_at_floor(history.snapshots[began - 1]):
            earlier = accuracy_gap_of(history.snapshots[began - 1])
            if earlier is None or not earlier.beyond >= 0.5:
                break
            began -= 1
    if not history.steps[began]:
        because += _before_training(history.snapshots[began])
    # Where validation still gained at the last looks, or the last state is kept, no length of
    # training is to blame.
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


def _answers(history: History) -> MemoryFinding | None:
    gap, rise = history.accuracy_gap, history.raw_above_best
    if gap is None or not history.far_behind:
        return None
    train_words = f"the {gap.name} on training rows is {gap.train:.0%}"
    gap_words = f"{train_words} and that on validation rows far below it"
    if rise.value <= history.raw_margin:
        return f"{gap_words}, though the validation loss hardly rose", limits.INTERVAL_LEVEL, ()
    means, step = history.raw.mean(axis=0), history.steps[history.raw_best]
    rose = f"from {means[history.raw_best]:.3f} to {means[-1]:.3f} since step {step}"
    p, evidence = "", [difference_evidence("valid_loss_above_best", rise, history.last_step)]
    if history.raw_rise.alarm_at is None:
        # The interval beside it is of the last look alone.
        p = f" ({p_value_phrase(history.raw_rise.p_value, OVER_EVALUATIONS)})"
        evidence.append(
            evidence_item("p_value_above_best", history.raw_rise.p_value, step=history.last_step)
        )
    if gap.large:
        because = (
            f"{gap_words}; the validation loss rose {rose}, which is not significant with {rise.n} "
            "validation rows"
        )
    else:
        because = (
            f"{train_words}, and the gap to validation rows exceeds {100 * limits.GAP:.0f} "
            "points with a "
            f"probability of {gap.beyond:.0%}; {rise.n} validation rows prove neither this nor the "
            f"rise of the validation loss {rose}"
        )
    return f"{because}{p}", min(limits.INTERVAL_LEVEL, gap.beyond), tuple(evidence)


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
        f"{fitted.mean():.0%} of the training sample is fitted against {known.mean():.0%} of the "
        f"validation rows, and since step {history.steps[since]} the training loss fell to "
        f"{ratio:.0%} of its value while the validation loss did not fall",
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
    """The first look whose validation loss is not above now's: neither beyond chance nor by more
    than the margin."""
    for evaluation in range(len(history.snapshots)):
        gap = history.gap(history.valid, evaluation, -1)
        if gap.low <= 0 and gap.value <= history.margin:
            return evaluation
    return len(history.snapshots) - 1


def _before_training(snapshot: Snapshot) -> str:
    """Of rows that were known before any update: a last layer that was fitted to them, or a model
    that had met them. Then no step of the run is what memorized them."""
    gap = accuracy_gap_of(snapshot)
    assert gap is not None
    why = " (the last layer is fitted to them)" if gap.of == "rows" else ""
    return (
        f"; at step 0, before the first update, {gap.name} was already {gap.train:.0%} on training "
        f"rows{why} and {gap.valid:.0%} on validation rows"
    )


BY_HEART = "answers of training rows are written word for word"
COPYING = "it copies its source instead of answering"
LOOPING = "its texts repeat themselves"
COLLAPSE = "its texts collapse to one answer"
BY_TEXTS: tuple[Label, ...] = ("underfit", "overfit", "memorizing", "diverging", "inconclusive")
# What is counted, in the order in which it is named when several are frequent.
FAULTS = (
    ("wrong_training_answer", BY_HEART),
    ("collapsed", COLLAPSE),
    ("repetition", LOOPING),
    ("source_copied", COPYING),
)


def outputs(history: History) -> Symptom | None:
    """Reads the shares of the last snapshot that has any, of validation rows and perhaps of train
    rows; of a run by an older version, those of its test rows where it has none of validation.

    The first fault that a fifth of the texts on validation rows have (of copies of the source:
    half, since a summary may quote) decides. Training answers on rows that are not theirs are
    ``memorizing``; a text that loops, collapses or copies the source speaks as a cause. Where the
    train rows show it as often, it is how the model writes and not what it has learned by heart.
    With the number of texts (``n``) the share has an interval, whose lower limit must then lie
    above half of the line.
    """
    shares = next((s.outputs for s in reversed(history.snapshots) if s.outputs), None) or {}
    split = "valid" if shares.get("valid") else "test"
    if not shares.get(split):
        return None
    unseen, train = shares[split], shares.get("train", {})
    frequent = ((name, cause) for name, cause in FAULTS if _is_frequent(unseen, name))
    name, cause = next(frequent, ("", ""))
    if not name:
        return None
    low, high = _limits(unseen, name)
    evidence = [evidence_item(f"{split}_share_{name}", unseen[name], low, high, history.last_step)]
    if name in train:
        evidence.append(evidence_item(f"train_share_{name}", train[name], step=history.last_step))
    by_heart = cause == BY_HEART
    return Symptom(
        because=f"{unseen[name]:.0%} of the texts written for {split} rows: {cause}",
        strength=0.9 if by_heart else 0.0,
        label="memorizing" if by_heart else None,
        cause=cause,
        blame=0.85,
        explains=BY_TEXTS,
        evidence=tuple(evidence),
        remedies=remedies_for("repeating" if cause == LOOPING else "copying"),
    )


def _is_frequent(shares: Mapping[str, float], name: str) -> bool:
    """Whether a share reaches the line, by its interval too where the number is known."""
    line = limits.COPIED if name == "source_copied" else limits.REPEATS
    low, _ = _limits(shares, name)
    return shares.get(name, 0.0) >= line and (low is None or low >= line / 2)


def _limits(shares: Mapping[str, float], name: str) -> tuple[float | None, float | None]:
    """Wilson's 95 % limits of a share, where the number of texts is known."""
    value, n = shares.get(name, 0.0), int(shares.get("n", 0))
    return wilson(value * n, n) if n else (None, None)


FIRST_ROWS_CAUSE = "the rows seen first are fitted more than those seen later"
BY_ORDER: tuple[Label, ...] = ("overfit", "memorizing", "underfit", "inconclusive")
LEAST = 30


def primacy(history: History) -> Symptom | None:
    """Speaks as a cause where the fall of each row's loss goes with how early the row was first
    used: Spearman's ρ of the first update against (loss now − loss at the start) at 0.2 or more,
    and its 99.9 % interval (Fisher's z, with the variance 1.06 ÷ (n − 3) of Fieller, Hartley and
    Pearson 1957) above 0. Only rows of the train probe that were used count, 30 at least, and only
    of a run that has taken a twentieth off their loss: before that there is nothing to be fitted.
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
    """ρ and its interval; NaN throughout where a side does not vary."""
    from scipy.special import ndtri

    ranks = average_ranks(x), average_ranks(y)
    if min(np.ptp(r) for r in ranks) == 0:
        return math.nan, math.nan, math.nan
    rho = float(np.corrcoef(*ranks)[0, 1])
    half = float(ndtri(0.5 + level / 2)) * math.sqrt(1.06 / (len(x) - 3))
    # Fisher's z of ±1 is infinite.
    middle = math.atanh(max(-0.999999, min(0.999999, rho)))
    return rho, math.tanh(middle - half), math.tanh(middle + half)


OVERWRITTEN = "the new rows overwrite what the model knew"


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
        because=f"the loss on the general probe is {rise:.3f} above the {first:.3f} it began with",
        strength=0.9,
        label="forgetting",
        cause=OVERWRITTEN,
        since_step=since,
        evidence=(general_rows_seen,),
        remedies=remedies_for("forgetting", history),
    )
