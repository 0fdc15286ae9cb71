"""The plain rule: one documented rule, until the guard comes.

Read top to bottom, the first line that holds gives the label:

1. fewer than two snapshots, or no validation rows → ``inconclusive``; a loss that is not a number
   → ``diverging`` (before anything else).
2. the train probe is significantly above where it started and by more than a tenth, or has given
   back more than half of what it had learned (significantly, and by more than the margin), and the
   same size of rise already stood at the snapshot before → ``diverging``.
3. validation now is significantly above its best (p < 0.005, adjusted for the choice of the best
   and for every look so far) → ``overfit`` if the train probe did not get worse meanwhile, else
   ``diverging``.
4. validation has fallen significantly since three snapshots ago → ``learning``.
5. the best state is not significantly better than the first → ``inconclusive``: nothing learned
   that these rows can show.
6. validation now is not worse than its best by more than the margin, and cannot have fallen by
   more than the margin since three snapshots ago → ``healthy``.
7. else → ``inconclusive``, with the number of validation rows that would tell.

"Significantly" without more means that the 95 % interval of the paired difference per row (BCa
bootstrap) lies on one side of 0. Validation losses are refined (after the best temperature of each
snapshot) where the logits are at hand, so that confidence alone never counts as overfitting. The
margin is 5 % of the best loss, at least 0.02 nats. The slope of the train probe stands in the
evidence. At that p, 20 looks at flat simulated histories were called ``overfit`` at any look in
3 to 4 % of runs (at p < 0.05: 22 %). ``confidence`` is the share of resamples that agree with the
label (1 − p for ``overfit``); 0 for ``inconclusive``, which claims nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Evidence, Floats, Label, Remedy, Snapshot, Verdict
from holdfast.monitor.evidence import Facts, gather
from holdfast.monitor.remedies import (
    for_diverging,
    for_few_rows,
    for_learning,
    for_no_progress,
    for_no_rows,
    for_overfit,
)
from holdfast.stats.paired import Difference

NAME = "plain rule"
LEVEL = 0.005
MARGIN_SHARE = 0.05
MARGIN_NATS = 0.02


def plain_rule(history: Sequence[Snapshot]) -> Verdict:
    """The verdict of the plain rule on a history, oldest snapshot first; a pure function of it."""
    early = _too_little(history)
    if early is not None:
        return early
    facts = gather(history)
    for rule in (_diverging, _overfit, _learning, _nothing_learned, _healthy):
        verdict = rule(facts, history)
        if verdict is not None:
            return verdict
    return _undecided(facts, history)


def margin(facts: Facts) -> float:
    """The difference in nats that is too small to matter."""
    return max(MARGIN_NATS, MARGIN_SHARE * float(facts.losses.mean(axis=0)[facts.best]))


def _too_little(history: Sequence[Snapshot]) -> Verdict | None:
    broken = _first_broken(history)
    if broken is not None:
        return _verdict(
            "diverging", f"a loss at step {broken.step} is not a number", 1.0,
            since=broken.step, cause="the learning rate is too high, or the precision too low",
            remedies=for_diverging(history),
        )  # fmt: skip
    if len(history) < 2:
        return _verdict(
            "inconclusive", f"{len(history)} snapshots are too few to compare", 0.0,
            remedies=for_learning(history),
        )  # fmt: skip
    if not history[-1].valid_losses.size:
        because = "there are no validation rows, so nothing can be said about unseen data"
        return _verdict("inconclusive", because, 0.0, remedies=for_no_rows())
    return None


def _first_broken(history: Sequence[Snapshot]) -> Snapshot | None:
    for snapshot in history:
        for losses in (snapshot.train_losses, snapshot.valid_losses):
            if not np.isfinite(losses).all():
                return snapshot
    return None


def _diverging(facts: Facts, history: Sequence[Snapshot]) -> Verdict | None:
    means, small = facts.probe_means, margin(facts)
    first, lowest = float(means[0]), float(means.min())
    above_start = _stays_above(means, first + max(small, 0.1 * first))
    gave_back = _stays_above(means, lowest + max(small, (first - lowest) / 2))
    if above_start and facts.probe_from_first.low > 0:
        gap, than = facts.probe_from_first, "where it started"
    elif gave_back and facts.probe_from_lowest.low > 0:
        gap, than = facts.probe_from_lowest, "its lowest"
    else:
        return None
    because = f"the loss of the train probe is {gap.value:.3f} above {than}"
    return _verdict(
        "diverging", because, gap.above, since=history[-2].step,
        cause="the learning rate is too high", facts=facts, remedies=for_diverging(history),
    )  # fmt: skip


def _stays_above(means: Floats, level: float) -> bool:
    """Whether the last two means are above a level: one bad look early in a run is common."""
    return len(means) > 2 and bool(np.all(means[-2:] > level))


def _overfit(facts: Facts, history: Sequence[Snapshot]) -> Verdict | None:
    if not facts.rise.p_value < LEVEL:
        return None
    since = facts.steps[facts.best + 1]
    grown = (
        f"{_kind(facts)} is {facts.rise.value:.3f} above its best at step {facts.best_step}"
        f" (p = {facts.rise.p_value:.3f})"
    )
    if facts.probe.low > 0:
        return _verdict(
            "diverging", f"{grown}, and the train probe got worse too", 1 - facts.rise.p_value,
            since=since, cause="the learning rate is too high", facts=facts,
            remedies=for_diverging(history),
        )  # fmt: skip
    return _verdict(
        "overfit", f"{grown} while the train probe {_direction(facts)}", 1 - facts.rise.p_value,
        since=since, cause="trained too long for this much data", facts=facts,
        remedies=for_overfit(history, facts.best),
    )  # fmt: skip


def _learning(facts: Facts, history: Sequence[Snapshot]) -> Verdict | None:
    if not facts.recent.high < 0:
        return None
    before = facts.steps[max(0, len(facts.steps) - 4)]
    because = f"{_kind(facts)} fell by {-facts.recent.value:.3f} since step {before}"
    return _verdict(
        "learning", because, 1 - facts.recent.above, since=facts.steps[0], facts=facts,
        remedies=for_learning(history),
    )  # fmt: skip


def _nothing_learned(facts: Facts, history: Sequence[Snapshot]) -> Verdict | None:
    if facts.learned.high < 0:
        return None
    because = f"{_kind(facts)} at its best is not clearly below that of the first snapshot"
    seen = max(margin(facts), abs(facts.learned.value))
    return _verdict(
        "inconclusive", because + _rows_needed(facts.learned, seen), 0.0, facts=facts,
        cause="too few steps, too low a learning rate, or too few rows",
        remedies=for_no_progress(history),
    )  # fmt: skip


def _healthy(facts: Facts, history: Sequence[Snapshot]) -> Verdict | None:
    small = margin(facts)
    if not (facts.against_best.high <= small and facts.recent.low >= -small):
        return None
    because = (
        f"{_kind(facts)} has stopped falling and is within {small:.3f} of its best"
        f" at step {facts.best_step}"
    )
    return _verdict("healthy", because, 0.95, since=facts.best_step, facts=facts)


def _undecided(facts: Facts, history: Sequence[Snapshot]) -> Verdict:
    small = margin(facts)
    falling = facts.against_best.high <= small
    question = (
        "whether it is still falling"
        if falling
        else f"whether the last state is worse than the best at step {facts.best_step}"
    )
    because = f"{facts.recent.n} validation rows cannot tell {question}"
    gap = facts.recent if falling else facts.against_best
    return _verdict(
        "inconclusive", because + _rows_needed(gap, small), 0.0,
        facts=facts, remedies=for_few_rows(),
    )  # fmt: skip


def _rows_needed(gap: Difference, small: float) -> str:
    """How many rows would shrink the half-width of this interval to a size that matters."""
    half = (gap.high - gap.low) / 2
    if not math.isfinite(half) or half <= small:
        return ""
    needed = math.ceil(gap.n * (half / small) ** 2)
    return f"; about {float(f'{needed:.2g}'):,.0f} validation rows would settle it"


def _verdict(
    label: Label, because: str, confidence: float, *, since: int | None = None,
    cause: str | None = None, facts: Facts | None = None, remedies: tuple[Remedy, ...] = (),
) -> Verdict:  # fmt: skip
    sentence = f"By the {NAME}: {because}."
    evidence = _evidence(facts) if facts is not None else ()
    sure = min(1.0, max(0.0, confidence))
    return Verdict(label, sentence, sure, since, cause, evidence, remedies)


def _evidence(facts: Facts) -> tuple[Evidence, ...]:
    """Every number that the rule reads, whichever line of it decided."""
    last, kind = facts.steps[-1], "refined_loss" if facts.refined else "loss"
    gaps = {
        f"valid_{kind}_above_best": facts.against_best,
        f"valid_{kind}_recent_change": facts.recent,
        f"valid_{kind}_best_against_first": facts.learned,
        "train_probe_change_since_best": facts.probe,
    }
    listed = [_item(name, gap.value, gap.low, gap.high, last) for name, gap in gaps.items()]
    slope = facts.probe_trend
    listed.append(_item("p_value_above_best", facts.rise.p_value, None, None, last))
    listed.append(_item("train_probe_slope_per_step", slope.slope, slope.low, slope.high, last))
    listed.append(_item("train_probe_slope_p_value", slope.p_value, None, None, last))
    return tuple(listed)


def _item(name: str, value: float, low: float | None, high: float | None, step: int) -> Evidence:
    return Evidence(name, _finite(value), _finite(low), _finite(high), step)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _kind(facts: Facts) -> str:
    kind = "the validation loss"
    return f"{kind} after its best temperature" if facts.refined else kind


def _direction(facts: Facts) -> str:
    return "still improved" if facts.probe.high < 0 else "did not get worse"
