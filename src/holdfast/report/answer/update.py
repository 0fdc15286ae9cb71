"""What the gate of an update adds to the advice on its model: the gate compares it with the model
that is served, the rest of the advice with a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from holdfast.report.answer.episodes import Use

REJECTED, ACCEPTED = "kept_aside", "taken"


def of_update(result: Mapping[str, object], advice: str, use: Use) -> tuple[str, Use]:
    """The advice on an update, its gate first; that of any other run as it is.

    An update that is rejected or inconclusive is never called worth using, however much better than
    a baseline it is: the model that it would replace stays in service.
    """
    block = result.get("update")
    gate = block.get("gate") if isinstance(block, Mapping) else None
    if not isinstance(block, Mapping) or not isinstance(gate, Mapping) or not gate.get("decision"):
        return advice, use
    served = PurePath(str(block.get("from") or "the served run")).name
    decision = gate["decision"]
    if decision == ACCEPTED:
        return f"Accepted as an update of {served}. {advice}", use
    if decision == REJECTED:
        first, found = f"Keep serving {served}: the gate rejected this update.", "no"
    else:
        first = f"Keep serving {served}: this update is inconclusive, because {_open(gate)}."
        found = "no" if use == "no" else "unsettled"
    # "Worth using" is said of the comparison with a baseline, which is not the question here.
    rest = "" if use == "yes" else f" {advice}"
    return f"{first}{rest}", found  # type: ignore[return-value]


def _open(gate: Mapping[str, Any]) -> str:
    """Why a gate could not decide. More rows would not always: a model that is as good as the
    served one gains nothing on any number of them."""
    asked = [gate.get(name) or {} for name in ("old", "first", "new")]
    if any(one.get("rows_needed") for one in asked):
        return "the gate has too few rows to decide"
    return "the gate can show neither a gain nor a loss"
