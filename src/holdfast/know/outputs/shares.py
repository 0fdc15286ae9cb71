"""The shares of texts that bear a mark: the tuned model against the one that it began from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate, Ints, to_json
from holdfast.know.outputs.alarms import FALSE_ALARMS
from holdfast.know.outputs.marks import MEANING
from holdfast.stats.intervals import wilson
from holdfast.stats.many import holm
from holdfast.stats.paired import mcnemar, newcombe
from holdfast.stats.settle import rows_to_settle

Bools = npt.NDArray[np.bool_]
Verdict = Literal["more", "fewer", "not shown", "not asked"]
ALPHA, LEVEL = 0.05, 0.95
LISTED = 20


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """The texts of one ``side``, by their marks ([n] each, of the same names): ``rows`` [n] source
    positions, the ``tuned`` model's, the ``start`` model's (``None`` where it was not asked), and
    those of the ``references``."""

    side: str
    rows: Ints
    tuned: Mapping[str, Bools]
    start: Mapping[str, Bools] | None
    references: Mapping[str, Bools]


@dataclass(frozen=True, slots=True)
class Share:
    """One mark on one side. ``difference`` is tuned − start over the same prompts with Newcombe's
    interval; ``only_tuned`` and ``only_start`` are the prompts to which one model's answer bears
    it; ``p_value`` is McNemar's, exact, ``adjusted`` Holm's over what could be told at all;
    ``rows`` are source positions of the tuned model's marked answers, ``LISTED`` at most."""

    mark: str
    side: str
    n: int
    tuned: Estimate
    start: Estimate | None
    references: Estimate | None
    difference: Estimate | None
    only_tuned: int | None
    only_start: int | None
    p_value: float | None
    adjusted: float | None
    verdict: Verdict
    more_rows: int | None
    rows: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "mark": self.mark,
            "side": self.side,
            "n": self.n,
            **{
                name: None if one is None else one.to_json()
                for name, one in (
                    ("tuned", self.tuned),
                    ("start", self.start),
                    ("references", self.references),
                    ("difference", self.difference),
                )
            },
            "only_tuned": self.only_tuned,
            "only_start": self.only_start,
            "p_value": self.p_value,
            "p_adjusted": self.adjusted,
            "verdict": self.verdict,
            "more_rows": self.more_rows,
            "rows": list(self.rows),
        }


def compare_shares(sides: Sequence[Marked], alpha: float = ALPHA) -> tuple[Share, ...]:
    """Every mark on every side, tested as one family.

    McNemar's exact test asks whether the two models bear the mark equally often. With m discordant
    prompts the smallest p-value is 2^(1 − m): a mark that could reach no level whatever the models
    did is not counted against the others (Tarone 1990; m is fixed by the test's condition, so Holm
    over the rest keeps the chance of a single false finding at ``alpha``). Prompts are read as
    independent.
    """
    asked = [
        (side, mark, (side.tuned[mark], None if side.start is None else side.start.get(mark)))
        for side in sides
        for mark in side.tuned
    ]
    tested = [pair for _, _, pair in asked if pair[1] is not None]
    p_values = np.array([mcnemar(a, b, mid=False) for a, b in tested if b is not None])
    least = np.array([2.0 ** (1 - max(1, int(np.sum(a ^ b)))) for a, b in tested if b is not None])
    family = family_of(least, alpha)
    adjusted = np.ones(len(p_values))
    adjusted[family] = holm(p_values[family])
    found, place = [], 0
    for side, mark, (tuned, start) in asked:
        if start is None:
            found.append(_alone(side, mark))
            continue
        p, raised = float(p_values[place]), float(adjusted[place])
        place += 1
        found.append(_compared(side, mark, tuned, start, p, raised, alpha, max(1, family.sum())))
    return tuple(found)


def family_of(least: npt.NDArray[np.float64], alpha: float = ALPHA) -> Bools:
    """Which of k questions, by the smallest p-values that each can have [k], are a family that can
    find something (Tarone 1990): those that reach alpha ÷ K, for the smallest K that at most K
    questions reach."""
    for size in range(1, len(least) + 1):
        reach: Bools = least <= alpha / size
        if int(reach.sum()) <= size:
            return reach
    return np.zeros(len(least), dtype=bool)


def _alone(side: Marked, mark: str) -> Share:
    tuned = side.tuned[mark]
    return Share(
        mark,
        side.side,
        len(tuned),
        rate(tuned),
        None,
        _given(side, mark),
        None,
        None,
        None,
        None,
        None,
        "not asked",
        None,
        _rows(side, tuned),
    )


def _compared(
    side: Marked,
    mark: str,
    tuned: Bools,
    start: Bools,
    p_value: float,
    adjusted: float,
    alpha: float,
    family: int,
) -> Share:
    n, gap = len(tuned), tuned.astype(np.float64) - start.astype(np.float64)
    value = float(gap.mean()) if n else 0.0
    verdict: Verdict = "not shown"
    if adjusted <= alpha:
        verdict = "more" if value > 0 else "fewer"
    low, high = newcombe(tuned, start, LEVEL)
    wanted = None
    if verdict == "not shown" and value:
        wanted = rows_to_settle(gap, abs(value), sides=2, alpha=alpha / family)
    return Share(
        mark,
        side.side,
        n,
        rate(tuned),
        rate(start),
        _given(side, mark),
        Estimate(value, low, high, LEVEL) if n else Estimate(None, why="there are no rows"),
        int(np.sum(tuned & ~start)),
        int(np.sum(start & ~tuned)),
        p_value,
        adjusted,
        verdict,
        max(0, wanted - n) if wanted is not None else None,
        _rows(side, tuned),
    )


def rate(hits: Bools) -> Estimate:
    """A share with Wilson's interval."""
    if not len(hits):
        return Estimate(None, why="there are no rows")
    low, high = wilson(float(np.sum(hits)), len(hits), LEVEL)
    return Estimate(float(np.mean(hits)), low, high, LEVEL)


def _given(side: Marked, mark: str) -> Estimate | None:
    return rate(side.references[mark]) if mark in side.references else None


def _rows(side: Marked, hits: Bools) -> tuple[int, ...]:
    return tuple(int(row) for row in side.rows[hits][:LISTED])


def sentence(found: Sequence[Share]) -> str:
    """What the test rows say, in one sentence."""
    told = [one for one in found if one.side == "test"]
    if not told or not told[0].n:
        return "No answers were written to test prompts."
    n = told[0].n
    if all(one.start is None for one in told):
        borne = [one for one in told if one.tuned.value]
        if not borne:
            return f"None of {n} answers to test prompts shows a fault that was looked for."
        listed = ", ".join(f"{counted(one)} {MEANING[one.mark].partition(':')[0]}" for one in borne)
        return f"Of {n} answers to test prompts, {listed}; the start model was not asked."
    more = [one for one in told if one.verdict == "more"]
    fewer = [one for one in told if one.verdict == "fewer"]
    parts = [
        f"{counted(one)} {MEANING[one.mark].partition(':')[0]} "
        f"({_share(one.start, n)} of the start model's)"
        for one in (*more, *fewer)
    ]
    if not parts:
        return (
            f"On {n} test prompts its answers show no fault more or less often than the start "
            "model's."
        )
    lead = "It got worse" if more and not fewer else "It got better" if not more else "It changed"
    return f"{lead}: of its {n} answers to test prompts {'; '.join(parts)}."


def counted(one: Share) -> str:
    return _share(one.tuned, one.n)


def _share(rate_: Estimate | None, n: int) -> str:
    return "–" if rate_ is None or rate_.value is None else str(round(rate_.value * n))


def outputs_block(sides: Sequence[Marked], why: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``outputs`` of ``result.json``; ``why`` says of marks that were not looked for why not."""
    found = compare_shares(sides)
    block: dict[str, Any] = to_json(
        {
            "because": sentence(found),
            "n": {side.side: len(side.rows) for side in sides},
            "shares": [one.to_json() for one in found],
            "meaning": {mark: MEANING[mark] for mark in dict.fromkeys(s.mark for s in found)},
            "left_out": dict(why or {}),
            "false_alarms": FALSE_ALARMS,
        }
    )
    return block
