"""What a live comparison says: one JSON for ``/comparison``, the dashboard and ``promote``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from holdfast.analyses.compare.verdict import required_rows
from holdfast.core.records import to_json
from holdfast.core.wording import count_phrase
from holdfast.plugins.live.arms import MISMATCH, SCALE_USERS, Arms
from holdfast.plugins.live.shadow import Shadow

# How many times the rows of a fixed number it takes where one may look after each: measured, see
# benchmarks/live.py.
SHADOW_COST, ARMS_COST = 1.6, 2.0
NEXT = {"better": "promote", "equivalent": "either", "worse": "keep", "undecided": "go on"}
# The most users whose spread is spelled out for the estimate of how many are needed.
SPELLED = 20_000


def told(found: Shadow | Arms) -> dict[str, Any]:
    """The evidence as JSON; the challenger is what "better" is said of."""
    verdict = found.verdict
    value, low, high = found.difference
    said: dict[str, Any] = {
        "way": "shadow" if isinstance(found, Shadow) else "ab",
        "verdict": verdict,
        "because": _shadow_words(found) if isinstance(found, Shadow) else _arms_words(found),
        "next": "stop" if found.spent else NEXT[verdict],
        "decided_at": found.decided_at,
        "difference": {"value": value, "low": low, "high": high, "level": 0.95},
        "margin": found.margin,
        "evidence": found.evidence,
        "budget": found.budget,
        "budget_spent": found.spent,
        "needed": needed(found),
    }
    said |= _of_shadow(found) if isinstance(found, Shadow) else _of_arms(found)
    plain: dict[str, Any] = to_json(said)
    return plain


def _of_shadow(found: Shadow) -> dict[str, Any]:
    share, least, most = found.share
    return {
        "rows": found.rows,
        "unlike": found.unlike,
        "labels": found.labels,
        "agreement": {"value": 1 - share, "low": 1 - most, "high": 1 - least, "level": 0.995},
        "counted": {
            "challenger_right": found.wins,
            "shown_right": found.losses,
            "neither": found.neither,
            "alike": found.alike,
        },
        "apart": [
            {"because": name, "challenger_right": a, "shown_right": b, "neither": c}
            for name, (a, b, c) in found.apart.items()
        ],
    }


def _of_arms(found: Arms) -> dict[str, Any]:
    shown, challenger = found.means
    return {
        "users": found.sums.rows,
        "arms": {
            "shown": {"users": found.sums.users[0], "mean": shown},
            "challenger": {"users": found.sums.users[1], "mean": challenger},
        },
        "margin": found.margin * found.range if found.range is not None else None,
        "scale": {
            "least": found.least,
            "most": found.most,
            "beyond": found.held,
            "tried": found.tried,
        },
        "ratio": {
            "asked": found.share,
            "shown": found.entered[0],
            "challenger": found.entered[1],
            "evidence": math.exp(min(found.mismatch, 700.0)),
            "alarm_at": MISMATCH,
            "skewed": found.skewed,
        },
    }


def _shadow_words(found: Shadow) -> str:
    points = 100 * found.margin
    margin = "1 point" if math.isclose(points, 1) else f"{points:g} points"
    seen = (
        f"of {count_phrase(found.labels, 'labelled row')} on which the two differ the challenger alone "
        f"has {found.wins:,} right, the shown model alone {found.losses:,}"
    )
    if found.decided == "equivalent":
        share, _, most = found.share
        if not found.labels or most <= found.margin:
            return (
                f"neither is {margin} better: they answer differently on {100 * share:.3g} % of "
                f"{count_phrase(found.rows, 'row')} only"
            )
        return f"neither is {margin} better than the other; {seen}"
    if found.decided != "undecided":
        return f"the challenger is {found.decided}: {seen}"
    if not found.rows:
        return "no row that both answered is counted yet; one is serve.lag_s seconds later"
    if found.spent:
        return f"the budget of {found.budget:,} labels is spent without a verdict; {seen}"
    return f"not decided yet; {seen}{_more(needed(found))}"


def _arms_words(found: Arms) -> str:
    if found.skewed:
        asked = f"{100 * found.share:g} %"
        got = found.entered[1] / max(sum(found.entered), 1)
        return (
            f"no verdict: {100 * got:.3g} % of {sum(found.entered):,} users came to the challenger "
            f"where {asked} were asked for, which is no chance; whatever keeps users of one arm "
            "from being counted makes any difference between the arms mean nothing"
        )
    if found.range is None:
        return (
            "not compared yet: how large a value can be is learned from the first "
            f"{SCALE_USERS} users ({found.tried:,} so far); serve.ab.most says it at once"
        )
    if not min(found.sums.users):
        return "nobody's time is over yet in both arms"
    value, low, high = found.difference
    means = (
        f"a user of the challenger brings {found.means[1]:.4g}, of the shown model "
        f"{found.means[0]:.4g}; the difference is {value:+.3g} ({low:+.3g} to {high:+.3g}) "
        f"by {count_phrase(found.sums.rows, 'user')}"
    )
    if found.decided == "equivalent":
        return f"they differ by less than {found.margin * found.range:.3g} a user: {means}"
    if found.decided != "undecided":
        return f"the challenger is {found.decided}: {means}"
    if found.spent:
        return f"the budget of {found.budget:,} users is spent without a verdict: {means}"
    return f"not decided yet: {means}{_more(needed(found))}"


def needed(found: Shadow | Arms) -> dict[str, int] | None:
    """About how many more would settle it with a chance of 80 %, if what comes is like what came:
    ``labels`` of rows on which the two differ and the ``rows`` that bring so many, or ``users``.
    ``None`` where it is settled, where nothing can be said yet, or no number would do."""
    if found.decided != "undecided":
        return None
    if isinstance(found, Arms):
        sums = found.sums
        if min(sums.users) < 2:
            return None
        # The same mean and spread in as many numbers, which is all that the estimate reads.
        count = min(sums.rows, SPELLED)
        wide = math.sqrt(sums.spread / sums.rows)
        mean = sums.effect / sums.rows
        gap = mean + wide * np.where(np.arange(count) % 2, 1.0, -1.0) if wide else np.zeros(count)
        total = required_rows(gap, found.margin)
        if total is None:
            return None
        return {"users": max(math.ceil(total * ARMS_COST) - sums.rows, 1)}
    if not found.labels or not found.unlike:
        return None
    gap = np.repeat([1.0, -1.0, 0.0], [found.wins, found.losses, found.neither])
    share = found.unlike / found.rows
    total = required_rows(gap, min(found.margin / share, 0.999))
    if total is None:
        return None
    labels = max(math.ceil(total * SHADOW_COST) - found.labels, 1)
    return {"labels": labels, "rows": math.ceil(labels / share)}


def _more(more: Mapping[str, int] | None) -> str:
    if more is None:
        return ""
    if "users" in more:
        return f"; about {more['users']:,} more users would settle it"
    return (
        f"; about {more['labels']:,} more labels of such rows would settle it (in some "
        f"{more['rows']:,} rows)"
    )
