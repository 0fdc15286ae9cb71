"""The summary of a live comparison as one JSON document, for ``/comparison``, the dashboard and
``promote``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from holdfast.analyses.compare.verdict import required_rows
from holdfast.core.records import to_json
from holdfast.core.wording import about, count_phrase, signed
from holdfast.plugins.live.arms import MISMATCH_LIMIT, SCALE_USERS, Arms
from holdfast.plugins.live.shadow import Shadow

# The cost of evaluating after every row, as a factor of a fixed sample size: measured, see
# benchmarks/live.py.
SHADOW_COST, ARMS_COST = 1.6, 2.0
NEXT = {"better": "promote", "equivalent": "either", "worse": "keep", "undecided": "go on"}
# Maximum users whose spread is expanded for the sample-size estimate.
MAX_SPELLED_USERS = 20_000


def comparison_summary(evidence: Shadow | Arms) -> dict[str, Any]:
    """The evidence as JSON; "better" refers to the challenger."""
    verdict = evidence.verdict
    value, low, high = evidence.difference
    summary: dict[str, Any] = {
        "way": "shadow" if isinstance(evidence, Shadow) else "ab",
        "verdict": verdict,
        "because": _shadow_sentence(evidence)
        if isinstance(evidence, Shadow)
        else _arms_sentence(evidence),
        "next": "stop" if evidence.budget_spent else NEXT[verdict],
        "decided_at": evidence.decided_at,
        "difference": {"value": value, "low": low, "high": high, "level": 0.95},
        "margin": evidence.margin,
        "evidence": evidence.evidence,
        "budget": evidence.budget,
        "budget_spent": evidence.budget_spent,
        "needed": rows_needed(evidence),
    }
    summary |= _shadow_fields(evidence) if isinstance(evidence, Shadow) else _arms_fields(evidence)
    result: dict[str, Any] = to_json(summary)
    return result


def _shadow_fields(evidence: Shadow) -> dict[str, Any]:
    share, least, most = evidence.share
    return {
        "rows": evidence.rows,
        "unlike": evidence.unlike,
        "labels": evidence.labels,
        "agreement": {"value": 1 - share, "low": 1 - most, "high": 1 - least, "level": 0.995},
        "counted": {
            "challenger_right": evidence.wins,
            "shown_right": evidence.losses,
            "neither": evidence.neither,
            "alike": evidence.alike,
        },
        "apart": [
            {"because": name, "challenger_right": a, "shown_right": b, "neither": c}
            for name, (a, b, c) in evidence.apart.items()
        ],
    }


def _arms_fields(evidence: Arms) -> dict[str, Any]:
    shown, challenger = evidence.means
    return {
        "users": evidence.sums.rows,
        "arms": {
            "shown": {"users": evidence.sums.users[0], "mean": shown},
            "challenger": {"users": evidence.sums.users[1], "mean": challenger},
        },
        "margin": evidence.margin * evidence.range if evidence.range is not None else None,
        "scale": {
            "least": evidence.least,
            "most": evidence.most,
            "beyond": evidence.held,
            "tried": evidence.tried,
        },
        "ratio": {
            "asked": evidence.share,
            "shown": evidence.entered[0],
            "challenger": evidence.entered[1],
            "evidence": math.exp(min(evidence.mismatch, 700.0)),
            "alarm_at": MISMATCH_LIMIT,
            "skewed": evidence.skewed,
        },
    }


def _shadow_sentence(evidence: Shadow) -> str:
    points = 100 * evidence.margin
    margin = "1 point" if math.isclose(points, 1) else f"{points:g} points"
    counts_text = (
        f"on {count_phrase(evidence.labels, 'labelled row')} with different predictions, only the "
        f"challenger is correct on {evidence.wins:,}, only the shown model on {evidence.losses:,}"
    )
    if evidence.decided == "equivalent":
        share, _, most = evidence.share
        if not evidence.labels or most <= evidence.margin:
            return (
                f"neither model is {margin} better: their predictions differ on only "
                f"{100 * share:.3g} % of {count_phrase(evidence.rows, 'row')}"
            )
        return f"neither model is {margin} better than the other; {counts_text}"
    if evidence.decided != "undecided":
        return f"the challenger is {evidence.decided}: {counts_text}"
    if not evidence.rows:
        return (
            "no row with predictions of both models is counted yet; a row is counted "
            "serve.lag_s seconds after its request"
        )
    if evidence.budget_spent:
        return f"the budget of {evidence.budget:,} labels is used up; no verdict: {counts_text}"
    return f"inconclusive so far; {counts_text}{_needed_text(rows_needed(evidence))}"


def _arms_sentence(evidence: Arms) -> str:
    if evidence.skewed:
        requested = f"{100 * evidence.share:g} %"
        observed = evidence.entered[1] / max(sum(evidence.entered), 1)
        return (
            f"no verdict because of a sample-ratio mismatch: the challenger has "
            f"{100 * observed:.3g} % of {sum(evidence.entered):,} users instead of the requested "
            f"{requested}; until the cause is found, no difference between the arms is valid"
        )
    if evidence.range is None:
        return (
            "not compared yet: the largest value is estimated from the first "
            f"{SCALE_USERS} users ({evidence.tried:,} so far); set serve.ab.most to skip this"
        )
    if not min(evidence.sums.users):
        return "not compared yet: in one arm, no user's observation time is over"
    value, low, high = evidence.difference
    means = (
        f"mean per user {evidence.means[1]:.4g} with the challenger, {evidence.means[0]:.4g} with "
        f"the shown model; difference {signed(value, '+.3g')} (95 % CI {signed(low, '+.3g')} "
        f"to {signed(high, '+.3g')}) "
        f"over {count_phrase(evidence.sums.rows, 'user')}"
    )
    if evidence.decided == "equivalent":
        margin = f"{evidence.margin * evidence.range:.3g}"
        return f"the models differ by less than {margin} per user: {means}"
    if evidence.decided != "undecided":
        return f"the challenger is {evidence.decided}: {means}"
    if evidence.budget_spent:
        return f"the budget of {evidence.budget:,} users is used up; no verdict: {means}"
    return f"inconclusive so far: {means}{_needed_text(rows_needed(evidence))}"


def rows_needed(evidence: Shadow | Arms) -> dict[str, int] | None:
    """About how many more would decide with a probability of 80 %, if future rows are like past
    ones: ``labels`` of differing rows and the ``rows`` that yield them, or ``users``. ``None``
    where there is a verdict, where there is no data yet, or where no number would suffice."""
    if evidence.decided != "undecided":
        return None
    if isinstance(evidence, Arms):
        sums = evidence.sums
        if min(sums.users) < 2:
            return None
        # The same mean and spread in as many values, which is all that the estimate uses.
        count = min(sums.rows, MAX_SPELLED_USERS)
        wide = math.sqrt(sums.spread / sums.rows)
        mean = sums.effect / sums.rows
        gap = mean + wide * np.where(np.arange(count) % 2, 1.0, -1.0) if wide else np.zeros(count)
        total = required_rows(gap, evidence.margin)
        if total is None:
            return None
        return {"users": max(math.ceil(total * ARMS_COST) - sums.rows, 1)}
    if not evidence.labels or not evidence.unlike:
        return None
    gap = np.repeat([1.0, -1.0, 0.0], [evidence.wins, evidence.losses, evidence.neither])
    share = evidence.unlike / evidence.rows
    total = required_rows(gap, min(evidence.margin / share, 0.999))
    if total is None:
        return None
    labels = max(math.ceil(total * SHADOW_COST) - evidence.labels, 1)
    return {"labels": labels, "rows": math.ceil(labels / share)}


def _needed_text(needed: Mapping[str, int] | None) -> str:
    if needed is None:
        return ""
    if "users" in needed:
        return f"; {about(needed['users'])} more users would decide"
    return (
        f"; {about(needed['labels'])} more labels of such rows would decide (from "
        f"{about(needed['rows'])} rows)"
    )
