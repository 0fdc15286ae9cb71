"""What the gate of an update adds to the advice on its model: the gate compares it with the model
that is served, the rest of the advice with a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from holdfast.report.answer.episodes import Use
from holdfast.report.block import Block

REJECTED, ACCEPTED = "kept_aside", "taken"


def of_update(result: Mapping[str, object], advice: str, use: Use) -> tuple[str, Use]:
    """The advice on an update, its gate first; that of any other run as it is.

    An update that is rejected or inconclusive is never called worth using, however much better than
    a baseline it is: the model that it would replace stays in service.
    """
    block = Block(result).block("update")
    gate, served = block.block("gate"), PurePath(block.text("from", "the served run")).name
    decision = gate.get("decision")
    if not decision:
        return advice, use
    if decision == ACCEPTED:
        return f"Accepted as an update of {served}. {advice}", use
    if decision == REJECTED:
        first, found = f"Keep serving {served}: the gate rejected this update.", "no"
    else:
        # More rows would not always do: a model that is as good as the served one gains nothing on
        # any number of them.
        few = any(gate.block(name).get("rows_needed") for name in ("old", "first", "new"))
        why = (
            "the gate has too few rows to decide"
            if few
            else "the gate can show neither a gain nor a loss"
        )
        first = f"Keep serving {served}: this update is inconclusive, because {why}."
        found = "no" if use == "no" else "unsettled"
    # "Worth using" is said of the comparison with a baseline, which is not the question here.
    rest = "" if use == "yes" else f" {advice}"
    return f"{first}{rest}", found  # type: ignore[return-value]
