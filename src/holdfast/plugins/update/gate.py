"""The gate: is an updated model no worse where the old one was measured, and better on new rows?

Three questions, each of pairs of answers to the same rows, the new model's less the old one's:

- *old rows*: is it shown to lose less than a margin? A one-sided test at 5 % (non-inferiority).
- *new rows*, drawn evenly and kept out of training: is it shown to be better? By its answers or by
  its losses, each one-sided at 2.5 %.
- *parts* of the old rows (classes, confirmed slices, groups): is it shown to be worse in one? Each
  by its one-sided test, together at 5 % (Holm 1979).

And one of the feedback itself, which old rows cannot see where the new ones are of another kind: is
a class *called otherwise* in it? Of the rows that the served model calls so, fewer than a tenth are
surely labelled so, where on old rows more than half were.

What is shown decides; what is not shown is no evidence, and says how many rows it would take.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.analyses.compare.verdict import MIN_VALUES, PairedRows, PairedVerdict, judge_pairs
from holdfast.core.errors import RecipeError
from holdfast.core.records import Floats, Ints, to_json
from holdfast.core.wording import GATE_OUTCOMES, counted
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.intervals import wilson
from holdfast.stats.paired_tests import paired_t
from holdfast.stats.two_samples import holm

Decision = Literal["taken", "kept_aside", "undecided"]
Found = Literal["kept", "lost", "better", "no_gain", "worse", "open"]
ALPHA, POWER = 0.05, 0.8
# Standard normal quantiles at 1 − ALPHA and at POWER.
Z_ALPHA, Z_POWER = 1.644854, 0.841621
# Points: the least margin that is asked for unasked, and the most.
OLD, NEW = "old validation rows", "new rows"
MARGIN, MOST_MARGIN = 2.0, 5.0
# A gain on new rows of which it is shown that it is smaller is none.
GAIN = 0.02
# Of two fits of one recipe on much the same rows, how many answers one alone has right.
DISCORDANT = 0.07
SHOWN = 3
# A class is called otherwise where its precision fell from above the one to below the other.
TRUSTED, VANISHED = 0.5, 0.1


@dataclass(frozen=True, slots=True)
class GateRows:
    """The answers to one lot of rows: ``what`` they are in words, the ``pairs`` (new less old), and
    the group of each row [n] where rows come in groups. ``gain`` [n], where there is one, is how
    much smaller the new model's loss is, each at the temperature that suits it best on other rows
    (``stats.temperature.cross_fitted_losses``): so no model gains by being less sure."""

    what: str
    pairs: PairedRows
    groups: Ints | None = None
    gain: Floats | None = None


@dataclass(frozen=True, slots=True)
class Renamed:
    """A class that is called otherwise in new rows: of ``n`` rows that the served model calls
    ``name``, ``same`` are labelled so and ``most`` of them ``other``."""

    name: str
    other: str
    n: int
    same: int
    most: int

    def __str__(self) -> str:
        return (
            f"of {counted(self.n, 'new row')} that the served model calls {self.name!r}, "
            f"{self.same} are labelled so and {self.most} {self.other!r}: the class seems to be "
            "called otherwise in the feedback"
        )


@dataclass(frozen=True, slots=True, eq=False)
class RowPart:
    """A part of the old rows: its name in words, its kind, and which rows [n]."""

    name: str
    kind: Literal["class", "slice", "group"]
    inside: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GateEvidence:
    """What one lot of rows says: the mean difference in the unit of ``gap`` with limits that each
    hold at 95 % one-sided. ``more`` rows in all would settle it with a chance of 80 %, if what was
    seen is how it is; ``None`` where no number would."""

    what: str
    metric: str
    found: Found
    n: int
    value: float
    low: float
    high: float
    first: float
    second: float
    rows_needed: int | None = None
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        limits = {"value": self.value, "low": self.low, "high": self.high, "level": 1 - 2 * ALPHA}
        block = {
            "what": self.what,
            "found": self.found,
            "n": self.n,
            "metric": self.metric,
            "new": self.first,
            "old": self.second,
            "difference": limits | ({"why": self.why} if self.why else {}),
            "rows_needed": self.rows_needed,
        }
        return dict(to_json(block))


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """One part: its mean difference, and the p-value of "not worse" after Holm."""

    part: RowPart
    n: int
    value: float
    p_value: float

    @property
    def worse(self) -> bool:
        """Whether it is shown to be worse."""
        return self.p_value <= ALPHA and self.value < 0

    def to_json(self) -> dict[str, Any]:
        block = {
            "part": self.part.name,
            "kind": self.part.kind,
            "n": self.n,
            "difference": self.value,
            "p_value": self.p_value,
            "worse": self.worse,
        }
        return dict(to_json(block))


@dataclass(frozen=True, slots=True)
class Gate:
    """The decision with its reason, and what it was made of. ``old`` are the answers on rows of the
    old division, the served model first, then the first model of the line where that is another;
    ``margin`` is in the unit of ``gap``."""

    decision: Decision
    because: str
    old: tuple[GateEvidence, ...]
    new: GateEvidence
    parts: tuple[PartAnswer, ...]
    margin: float
    renamed: tuple[Renamed, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """``gate`` of the block ``update``; ``outcome`` is the decision in the word that readers
        know it by."""
        block = {
            "decision": self.decision,
            "outcome": GATE_OUTCOMES[self.decision],
            "because": self.because,
            "margin": self.margin,
            "old": self.old[0],
            "first": self.old[1] if len(self.old) > 1 else None,
            "new": self.new,
            "slices": self.parts,
            "renamed": self.renamed,
        }
        return dict(to_json(block))


def decide(
    old: Sequence[GateRows],
    new: GateRows,
    parts: Sequence[RowPart] = (),
    renamed: Sequence[Renamed] = (),
    *,
    margin: float,
) -> Gate:
    """The gate's decision.

    Parameters
    ----------
    old : pairs on the old rows: the new model beside the served one, then beside others that it may
        not fall behind either (a line of updates, each a little worse, adds up).
    new : pairs on new rows that no model learned from, beside the served model.
    parts : parts of the rows of ``old[0]``.
    renamed : classes that are called otherwise in the new rows (``renamed_classes``).
    margin : what may be lost on old rows, as a share (of the labels' standard deviation where they
        are numbers), above 0 and below 1.

    *kept_aside* where the old rows are shown to be lost, a part is shown to be worse, a class is
    called otherwise, or the new rows are shown to be no better; *taken* where everything is shown
    that is asked for; else *undecided*.
    """
    check_margin(100 * margin)
    kept = tuple(_kept(one, margin) for one in old)
    gained, found = _gained(new, margin), part_answers(old[0], parts)
    bad = [_lost(one, margin) for one in kept if one.found == "lost"]
    bad += [_worse(one) for one in found if one.worse][:SHOWN]
    bad += [str(one) for one in renamed][:SHOWN]
    if gained.found in ("worse", "no_gain"):
        bad.append(_not_better(gained))
    lacking = [_open(one, margin) for one in (*kept, gained) if one.found == "open"]
    decision: Decision = "kept_aside" if bad else "undecided" if lacking else "taken"
    because = "; ".join(bad or lacking) or _taken(kept, gained, found, margin)
    return Gate(decision, because, kept, gained, found, margin, tuple(renamed))


def renamed_classes(
    old: tuple[Sequence[Any], Sequence[Any]], new: tuple[Sequence[Any], Sequence[Any]]
) -> tuple[Renamed, ...]:
    """Classes that are called otherwise in new rows. ``old`` and ``new`` are labels [n] and the
    served model's answers [n].

    The precision of an answer lay above a half on the old rows (Wilson's lower limit at 95 %) and
    lies below a tenth on the new ones (the upper limit). A model that is often wrong on other rows
    than it learned from is not that wrong about one class: below a tenth, its answers would be
    worth more turned round. At least some 35 such answers are needed.
    """
    found = []
    for name in sorted({str(one) for one in new[1] if one is not None}):
        known = [a == b for a, b in zip(*old, strict=True) if str(b) == name]
        if not known or wilson(float(sum(known)), len(known))[0] <= TRUSTED:
            continue
        given = Counter(str(a) for a, b in zip(*new, strict=True) if str(b) == name)
        n, same = given.total(), given.pop(name, 0)
        if wilson(float(same), n)[1] < VANISHED:
            ((other, most),) = given.most_common(1)
            found.append(Renamed(name, other, n, same, most))
    return tuple(found)


def part_answers(old: GateRows, parts: Sequence[RowPart]) -> tuple[PartAnswer, ...]:
    """Each part that has rows, tested one-sided for "worse", adjusted together by Holm."""
    asked = [one for one in parts if one.inside.any()]
    values, p_values = [], []
    for one in asked:
        groups = None if old.groups is None else old.groups[one.inside]
        found = judge_pairs(old.pairs.gap[one.inside], 1.0, groups)
        values.append(found.value)
        # Of "not worse than before"; 1 where nothing can be said.
        if found.why or math.isnan(found.p_value):
            one_sided = 1.0
        else:
            one_sided = found.p_value / 2 if found.value < 0 else 1 - found.p_value / 2
        p_values.append(one_sided)
    adjusted = holm(np.array(p_values, dtype=np.float64))
    return tuple(
        PartAnswer(one, int(one.inside.sum()), value, float(p))
        for one, value, p in zip(asked, values, adjusted, strict=True)
    )


def usual_margin(rows: int) -> float:
    """The margin in points that so many old rows can keep: what two equal models with 7 %
    discordant rows are shown to keep with a chance of 80 %, (1.645 + 0.842) √(0.07 ÷ n), at least 2
    points and at most 5. It goes by the number of rows alone, so nothing that is seen moves it."""
    shown = 100 * (Z_ALPHA + Z_POWER) * math.sqrt(DISCORDANT / max(rows, 1))
    return round(min(max(shown, MARGIN), MOST_MARGIN), 1)


def check_margin(points: float) -> None:
    """Raise ``RecipeError`` for a margin in points that is none."""
    if not 0 < points < 100 or not math.isfinite(points):
        rule = "must lie between 0 and 100 points"
        raise RecipeError("--margin", rule, points, "E.g. --margin 2 for two points.")


def rows_needed(gap: Floats, beyond: float) -> int | None:
    """How many rows in all show a mean above ``beyond`` at 5 % one-sided with a chance of 80 %, if
    mean d and variance v are as ``gap`` has them: (1.645 + 0.842)² v ÷ (d − beyond)². For right and
    wrong answers v has one more row for each model that it alone has right: none seen is not none
    there. ``None`` where d is not above ``beyond``."""
    n = len(gap)
    if not n:
        return None
    value = float(gap.mean())
    if np.isin(gap, (-1.0, 0.0, 1.0)).all():
        variance = (float((gap != 0).sum()) + 2) / (n + 2) - value**2
    else:
        variance = float(gap.var())
    if value <= beyond or variance <= 0:
        return None
    return math.ceil((Z_ALPHA + Z_POWER) ** 2 * variance / (value - beyond) ** 2)


def _kept(held: GateRows, margin: float) -> GateEvidence:
    judged = judge_pairs(held.pairs.gap, margin, held.groups)
    low, high = judged.equivalence_limits
    found: Found = "kept" if low > -margin else "lost" if high < 0 else "open"
    return _answer(held, judged, found, -margin)


def _gained(held: GateRows, margin: float) -> GateEvidence:
    judged = judge_pairs(held.pairs.gap, margin, held.groups)
    low, high = judged.equivalence_limits
    found: Found = "open"
    # Two ways to be better, so each has half of the level.
    if judged.verdict == "better" or (judged.value >= 0 and _loses_less(held)):
        found = "better"
    elif high < 0:
        found = "worse"
    elif high < GAIN and low <= 0:
        found = "no_gain"
    return _answer(held, judged, found, 0.0)


def _loses_less(held: GateRows) -> bool:
    if held.gain is None or len(held.gain) < MIN_VALUES:
        return False
    gain = held.gain
    if held.groups is not None:
        # A group counts by what its rows add up to.
        gain = np.bincount(group_codes(held.groups, len(gain)), gain).astype(np.float64)
    return bool(paired_t(gain, np.zeros(len(gain)), 1 - ALPHA).low > 0)


def _answer(held: GateRows, judged: PairedVerdict, found: Found, beyond: float) -> GateEvidence:
    pairs = held.pairs
    more = rows_needed(pairs.gap, beyond) if found == "open" else None
    if more is not None and more <= judged.n:
        # Just missed: chance decided, and as many rows again are a fair second look.
        more = 2 * judged.n
    return GateEvidence(
        held.what,
        pairs.metric,
        found,
        judged.n,
        judged.value,
        judged.equivalence_limits[0],
        judged.equivalence_limits[1],
        pairs.first,
        pairs.second,
        more,
        judged.why,
    )


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _margin(margin: float) -> str:
    size = f"{100 * margin:g}"
    return f"{size} point" + ("" if size == "1" else "s")


def _lost(one: GateEvidence, margin: float) -> str:
    return (
        f"worse on {counted(one.n, 'row')} of {one.what} by {abs(100 * one.value):.1f} points "
        f"(surely by more than {abs(100 * one.high):.1f}, and up to {abs(100 * one.low):.1f}; "
        f"allowed are {_margin(margin)})"
    )


def _worse(one: PartAnswer) -> str:
    return (
        f"worse on {one.part.kind} {one.part.name} ({_points(one.value)} points on "
        f"{counted(one.n, 'row')}, p = {one.p_value:.2g})"
    )


def _not_better(one: GateEvidence) -> str:
    if one.found == "worse":
        return f"worse on {counted(one.n, 'row')} of {one.what} ({_points(one.value)} points)"
    return (
        f"not better by as much as {_margin(GAIN)} on {counted(one.n, 'row')} of {one.what} "
        f"({_points(one.value)}, at most {_points(one.high)})"
    )


def _open(one: GateEvidence, margin: float) -> str:
    if one.why:
        return f"{one.what}: {one.why}"
    asked = (
        f"better on {one.what}"
        if one.what == "new rows"
        else f"within {_margin(margin)} on {one.what}"
    )
    seen = (
        f"not shown to be {asked}: {_points(one.value)} points "
        f"({_points(one.low)} to {_points(one.high)}) on {counted(one.n, 'row')}"
    )
    if one.rows_needed is None:
        return f"{seen}; at this difference no number of rows would show it"
    if one.what == NEW:
        return f"{seen}; about {one.rows_needed - one.n:,} more would show it"
    return f"{seen}; about {one.rows_needed:,} such rows would show it, or set a larger --margin"


def _taken(
    kept: Sequence[GateEvidence], gained: GateEvidence, parts: Sequence[PartAnswer], margin: float
) -> str:
    first = kept[0]
    none = f"; none of {counted(len(parts), 'part')} of them is shown to be worse" if parts else ""
    surely = f" (at least {_points(gained.low)})" if gained.low > 0 else " (by its losses)"
    return (
        f"{_points(gained.value)} points on {counted(gained.n, 'row')} of {gained.what}"
        f"{surely}, {_points(first.value)} on {counted(first.n, 'row')} of "
        f"{first.what} (at worst {_points(first.low)}, allowed are {_margin(margin)}){none}"
    )
