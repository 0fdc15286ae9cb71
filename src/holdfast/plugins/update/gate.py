"""The gate: is an updated model no worse on the old rows, and better on new rows?

Three tests, each on pairs of predictions of the same rows, the new model's minus the old one's:

- *old rows*: is the loss shown to be smaller than a margin? A one-sided test at 5 %
  (non-inferiority).
- *new rows*, drawn uniformly and held out of training: is the model shown to be better? By its
  predictions or by its losses, each one-sided at 2.5 %.
- *subgroups* of the old rows (classes, confirmed slices, groups): is the model shown to be worse on
  one? Each by its one-sided test, together at 5 % (Holm 1979).

A fourth criterion concerns the feedback itself, which old rows cannot show where new rows are of
another kind: is a class *renamed* in it? Of the new rows that the served model predicts as the
class, fewer than a tenth have this label (significantly), where on old rows more than half did.

Only what is shown decides. What is not shown is no evidence against the model; the gate then
reports how many rows would decide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.analyses.compare.verdict import (
    MIN_VALUES,
    PairedRows,
    PairedVerdict,
    check_margin,
    judge_pairs,
)
from holdfast.core.records import Floats, Ints, to_json
from holdfast.core.wording import GATE_OUTCOMES, about, count_phrase, signed
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.intervals import normal_quantile, wilson
from holdfast.stats.paired_tests import by_groups, paired_t
from holdfast.stats.two_samples import holm

Decision = Literal["taken", "kept_aside", "undecided"]
EvidenceOutcome = Literal["kept", "lost", "better", "no_gain", "worse", "open"]
ALPHA, POWER = 0.05, 0.8
# Standard normal quantiles at 1 − ALPHA and at POWER.
Z_ALPHA, Z_POWER = 1.644854, 0.841621
OLD, NEW = "old validation rows", "new rows"
# The smallest and the largest default margin, in points.
MARGIN, MOST_MARGIN = 2.0, 5.0
# A gain on new rows that is shown to be smaller counts as no gain.
GAIN = 0.02
# The share of rows that only one of two fits of one recipe on similar rows predicts correctly.
DISCORDANT = 0.07
MAX_LISTED = 3
# A class counts as renamed where its precision fell from above TRUSTED to below VANISHED.
TRUSTED, VANISHED = 0.5, 0.1


@dataclass(frozen=True, slots=True)
class GateRows:
    """The predictions on one set of rows: its ``description``, the ``pairs`` (new minus old), and
    the group of each row [n] where rows have groups. ``gain`` [n], where it exists, is how much
    smaller the new model's calibrated loss is, with temperatures fitted on other rows
    (``stats.temperature.cross_fitted_losses``), so that lower confidence by itself is no gain."""

    description: str
    pairs: PairedRows
    groups: Ints | None = None
    gain: Floats | None = None


@dataclass(frozen=True, slots=True)
class Renamed:
    """A class that seems to be renamed in new rows: of ``n`` rows that the served model predicts as
    ``name``, ``same`` have this label and ``most`` have the label ``other``."""

    name: str
    other: str
    n: int
    same: int
    most: int

    def __str__(self) -> str:
        return (
            f"of {count_phrase(self.n, 'new row')} that the served model predicts as "
            f"{self.name!r}, the label is {self.name!r} in {self.same} and {self.other!r} in "
            f"{self.most}: the class seems to be renamed in the feedback"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Subgroup:
    """A subgroup of the old rows: its name, its type, and which rows belong to it [n]."""

    name: str
    subgroup_type: Literal["class", "slice", "group"]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GateEvidence:
    """The evidence of one set of rows: the mean difference in the unit of ``gap``, with limits that
    each hold at 95 % one-sided. With ``rows_needed`` rows in all, the test would decide with 80 %
    power if the observed difference is the true one; ``None`` where no number would."""

    description: str
    metric: str
    outcome: EvidenceOutcome
    n: int
    value: float
    low: float
    high: float
    first: float
    second: float
    rows_needed: int | None = None
    test_obstacle: str | None = None

    def to_json(self) -> dict[str, Any]:
        limits = {"value": self.value, "low": self.low, "high": self.high, "level": 1 - 2 * ALPHA}
        block = {
            "what": self.description,
            "found": self.outcome,
            "n": self.n,
            "metric": self.metric,
            "new": self.first,
            "old": self.second,
            "difference": limits | ({"why": self.test_obstacle} if self.test_obstacle else {}),
            "rows_needed": self.rows_needed,
        }
        return dict(to_json(block))


@dataclass(frozen=True, slots=True)
class SubgroupResult:
    """The result on one subgroup: its mean difference, and the p-value of "not worse" after
    Holm."""

    subgroup: Subgroup
    n: int
    value: float
    p_value: float

    @property
    def worse(self) -> bool:
        """Whether the model is shown to be worse on the subgroup."""
        return self.p_value <= ALPHA and self.value < 0

    def to_json(self) -> dict[str, Any]:
        block = {
            "part": self.subgroup.name,
            "kind": self.subgroup.subgroup_type,
            "n": self.n,
            "difference": self.value,
            "p_value": self.p_value,
            "worse": self.worse,
        }
        return dict(to_json(block))


@dataclass(frozen=True, slots=True)
class Gate:
    """The decision with its reason and its evidence. ``old`` is the evidence on the old split's
    rows, against the served model first, then against the first model of the lineage where that is
    another; ``margin`` is in the unit of ``gap``."""

    decision: Decision
    because: str
    old: tuple[GateEvidence, ...]
    new: GateEvidence
    subgroups: tuple[SubgroupResult, ...]
    margin: float
    renamed: tuple[Renamed, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """``gate`` of the block ``update``; ``outcome`` is the decision in the readers' term."""
        block = {
            "decision": self.decision,
            "outcome": GATE_OUTCOMES[self.decision],
            "because": self.because,
            "margin": self.margin,
            "old": self.old[0],
            "first": self.old[1] if len(self.old) > 1 else None,
            "new": self.new,
            "slices": self.subgroups,
            "renamed": self.renamed,
        }
        return dict(to_json(block))


def decide(
    old: Sequence[GateRows],
    new: GateRows,
    subgroups: Sequence[Subgroup] = (),
    renamed: Sequence[Renamed] = (),
    *,
    margin: float,
) -> Gate:
    """The gate's decision.

    Parameters
    ----------
    old : pairs on the old rows: the new model compared with the served one, then with others that
        it must not fall behind either (small losses would add up along a line of updates).
    new : pairs on new rows that no model was trained on, compared with the served model.
    subgroups : subgroups of the rows of ``old[0]``.
    renamed : classes that are renamed in the new rows (``renamed_classes``).
    margin : the allowed loss on old rows, as a share (of the labels' standard deviation for
        numbers), above 0 and below 1.

    *kept_aside* (rejected) where a loss on the old rows is shown, a subgroup is shown to be worse,
    a class is renamed, or the new rows are shown to be no better; *taken* (accepted) where all
    required criteria are shown; else *undecided* (inconclusive).
    """
    check_margin(100 * margin)
    retained = tuple(_judge_old_rows(one, margin) for one in old)
    gained, subgroup_results = _judge_new_rows(new, margin), compare_subgroups(old[0], subgroups)
    reasons_against = [_loss_reason(one, margin) for one in retained if one.outcome == "lost"]
    reasons_against += [_subgroup_reason(one) for one in subgroup_results if one.worse][:MAX_LISTED]
    reasons_against += [str(one) for one in renamed][:MAX_LISTED]
    if gained.outcome in ("worse", "no_gain"):
        reasons_against.append(_no_gain_reason(gained))
    open_questions = [
        _inconclusive_reason(one, margin) for one in (*retained, gained) if one.outcome == "open"
    ]
    decision: Decision = (
        "kept_aside" if reasons_against else "undecided" if open_questions else "taken"
    )
    because = "; ".join(reasons_against or open_questions) or _acceptance_reason(
        retained, gained, subgroup_results, margin
    )
    return Gate(decision, because, retained, gained, subgroup_results, margin, tuple(renamed))


def renamed_classes(
    old: tuple[Sequence[Any], Sequence[Any]], new: tuple[Sequence[Any], Sequence[Any]]
) -> tuple[Renamed, ...]:
    """Classes that are renamed in new rows. ``old`` and ``new`` are labels [n] and the served
    model's predictions [n].

    The precision of the class was above a half on the old rows (Wilson's lower limit at 95 %) and
    is below a tenth on the new ones (the upper limit). Distribution shift does not make a model
    that wrong about one class: below a tenth, inverted predictions would be better. At least some
    35 predictions of the class are needed.
    """
    renamed = []
    for name in sorted({str(one) for one in new[1] if one is not None}):
        known = [a == b for a, b in zip(*old, strict=True) if str(b) == name]
        if not known or wilson(float(sum(known)), len(known))[0] <= TRUSTED:
            continue
        label_counts = Counter(str(a) for a, b in zip(*new, strict=True) if str(b) == name)
        n, same = label_counts.total(), label_counts.pop(name, 0)
        if wilson(float(same), n)[1] < VANISHED:
            ((other, most),) = label_counts.most_common(1)
            renamed.append(Renamed(name, other, n, same, most))
    return tuple(renamed)


def compare_subgroups(old: GateRows, subgroups: Sequence[Subgroup]) -> tuple[SubgroupResult, ...]:
    """Test each non-empty subgroup one-sided for "worse", with Holm's correction over all of
    them."""
    tested = [one for one in subgroups if one.mask.any()]
    values, p_values = [], []
    for one in tested:
        groups = None if old.groups is None else old.groups[one.mask]
        comparison = judge_pairs(old.pairs.gap[one.mask], 1.0, groups)
        values.append(comparison.value)
        # The p-value of "not worse than before"; 1 where the test is not possible.
        if comparison.why or math.isnan(comparison.p_value):
            one_sided = 1.0
        else:
            one_sided = (
                comparison.p_value / 2 if comparison.value < 0 else 1 - comparison.p_value / 2
            )
        p_values.append(one_sided)
    adjusted = holm(np.array(p_values, dtype=np.float64))
    return tuple(
        SubgroupResult(one, int(one.mask.sum()), value, float(p))
        for one, value, p in zip(tested, values, adjusted, strict=True)
    )


def default_margin(rows: int) -> float:
    """The default margin in points for this number of old rows: what two equal models with 7 %
    discordant rows are shown to keep with 80 % power, (1.645 + 0.842) √(0.07 ÷ n), at least 2
    points and at most 5. It depends on the number of rows only, so results cannot influence it."""
    shown = 100 * (Z_ALPHA + Z_POWER) * math.sqrt(DISCORDANT / max(rows, 1))
    return round(min(max(shown, MARGIN), MOST_MARGIN), 1)


def rows_needed(
    gap: Floats, beyond: float, *, alpha: float = ALPHA, groups: object = None
) -> int | None:
    """How many rows in total show a mean above ``beyond`` at ``alpha`` one-sided with 80 % power,
    if mean d and variance v are those of ``gap``: (z_{1−alpha} + 0.842)² v ÷ (d − beyond)².

    For correct and wrong predictions, v counts one extra row for each model that only this model
    predicts correctly, so that zero observed rows do not give zero variance. With ``groups`` [n], v
    is the variance of their sums per row, where that is larger. ``None`` where d is not above
    ``beyond``.
    """
    n = len(gap)
    if not n:
        return None
    value = float(gap.mean())
    if np.isin(gap, (-1.0, 0.0, 1.0)).all():
        # The extra rows are in the mean as well: no variance would be left if all rows differ.
        discordant, mean = (float((gap != 0).sum()) + 2) / (n + 2), float(gap.sum()) / (n + 2)
        variance = discordant - mean**2
    else:
        variance = float(gap.var())
    if groups is not None:
        of_groups = by_groups(gap, group_codes(groups, n))
        if len(of_groups) > 1:
            variance = max(variance, float(of_groups.var(ddof=1)) * n / len(of_groups))
    if value <= beyond or variance <= 0:
        return None
    z = normal_quantile(1 - 2 * alpha) + Z_POWER
    return math.ceil(z**2 * variance / (value - beyond) ** 2)


def _judge_old_rows(rows: GateRows, margin: float) -> GateEvidence:
    judged = judge_pairs(rows.pairs.gap, margin, rows.groups)
    low, high = judged.equivalence_limits
    outcome: EvidenceOutcome = "kept" if low > -margin else "lost" if high < 0 else "open"
    return _evidence(rows, judged, outcome, -margin, ALPHA)


def _judge_new_rows(rows: GateRows, margin: float) -> GateEvidence:
    judged = judge_pairs(rows.pairs.gap, margin, rows.groups)
    low, high = judged.equivalence_limits
    outcome: EvidenceOutcome = "open"
    # Two ways to be better, so each has half of the level.
    if judged.verdict == "better" or (judged.value >= 0 and _loss_is_lower(rows)):
        outcome = "better"
    elif high < 0:
        outcome = "worse"
    elif high < GAIN and low <= 0:
        outcome = "no_gain"
    return _evidence(rows, judged, outcome, 0.0, ALPHA / 2)


def _loss_is_lower(rows: GateRows) -> bool:
    if rows.gain is None or len(rows.gain) < MIN_VALUES:
        return False
    gain = rows.gain
    if rows.groups is not None:
        # A group counts by the sum of its rows.
        gain = np.bincount(group_codes(rows.groups, len(gain)), gain).astype(np.float64)
    return bool(paired_t(gain, np.zeros(len(gain)), 1 - ALPHA).low > 0)


def _evidence(
    rows: GateRows, judged: PairedVerdict, outcome: EvidenceOutcome, beyond: float, alpha: float
) -> GateEvidence:
    pairs, needed = rows.pairs, None
    if outcome == "open":
        needed = rows_needed(pairs.gap, beyond, alpha=alpha, groups=rows.groups)
    if needed is not None and needed <= judged.n:
        # Narrowly missed by chance: twice as many rows are a fair second test.
        needed = 2 * judged.n
    return GateEvidence(
        rows.description,
        pairs.metric,
        outcome,
        judged.n,
        judged.value,
        judged.equivalence_limits[0],
        judged.equivalence_limits[1],
        pairs.first,
        pairs.second,
        needed,
        judged.why,
    )


def signed_points(value: float) -> str:
    """A difference in points with its sign: ``+1.5``, ``−0.4``."""
    return signed(100 * value)


def _rows_text(evidence: GateEvidence) -> str:
    """``300 old validation rows``."""
    return f"{evidence.n:,} {evidence.description}"


def _points_text(evidence: GateEvidence) -> str:
    """The difference with its limits, which each hold at 95 % one-sided."""
    low, high = signed_points(evidence.low), signed_points(evidence.high)
    return f"{signed_points(evidence.value)} points (90 % CI {low} to {high}"


def _margin_words(margin: float) -> str:
    size = f"{100 * margin:g}"
    return f"{size} point" + ("" if size == "1" else "s")


def _loss_reason(evidence: GateEvidence, margin: float) -> str:
    return (
        f"worse on {_rows_text(evidence)}: {_points_text(evidence)}; "
        f"margin {_margin_words(margin)})"
    )


def _subgroup_reason(result: SubgroupResult) -> str:
    return (
        f"worse on {result.subgroup.subgroup_type} {result.subgroup.name} "
        f"({signed_points(result.value)} points on {count_phrase(result.n, 'row')}, "
        f"p = {result.p_value:.2g}, one-sided paired test with Holm's correction)"
    )


def _no_gain_reason(evidence: GateEvidence) -> str:
    if evidence.outcome == "worse":
        return f"worse on {_rows_text(evidence)}: {_points_text(evidence)})"
    return (
        f"shown to gain less than {_margin_words(GAIN)} on {_rows_text(evidence)}: "
        f"{_points_text(evidence)})"
    )


def _inconclusive_reason(evidence: GateEvidence, margin: float) -> str:
    if evidence.test_obstacle:
        return f"{evidence.description}: {evidence.test_obstacle}"
    criterion = (
        "no improvement can be shown"
        if evidence.description == NEW
        else f"a drop of {_margin_words(margin)} or more cannot be excluded"
    )
    observed = f"{criterion} on {_rows_text(evidence)}: {_points_text(evidence)})"
    if evidence.rows_needed is None:
        return f"{observed}; with this difference, more rows would not decide"
    if evidence.description == NEW:
        return f"{observed}; {about(evidence.rows_needed - evidence.n)} more rows would decide"
    return f"{observed}; {about(evidence.rows_needed)} such rows would decide"


def _acceptance_reason(
    retained: Sequence[GateEvidence],
    gained: GateEvidence,
    subgroups: Sequence[SubgroupResult],
    margin: float,
) -> str:
    first = retained[0]
    subgroup_words = (
        f"; none of {count_phrase(len(subgroups), 'subgroup')} is shown to be worse"
        if subgroups
        else ""
    )
    gain_words = "" if gained.low > 0 else "; better by its calibrated loss"
    return (
        f"{_points_text(gained)}{gain_words}) on {_rows_text(gained)}; "
        f"{_points_text(first)}; margin {_margin_words(margin)}) on {_rows_text(first)}"
        f"{subgroup_words}"
    )
