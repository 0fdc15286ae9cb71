"""Replay of a policy from the ``events.jsonl`` of a run: no model, no rows.

The notes named ``control`` contain what the policy saw at each evaluation. The policy of the run
gives the actions of the run again. Another policy gives its own, which are valid up to the first
difference: what the run would have seen after that is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.control.policy import Policy, advise
from holdfast.control.sight import Sight
from holdfast.core.actions import Action, to_record

NOTE = "control"


@dataclass(frozen=True, slots=True)
class ReplayedEvaluation:
    """One evaluation: its ``step``, the policy's actions there, and whether the run took the same
    ones (their reasons may be worded differently)."""

    step: int
    actions: tuple[Action, ...]
    same: bool


def replay(events: Sequence[Mapping[str, Any]], policy: Policy) -> tuple[ReplayedEvaluation, ...]:
    """The policy's decision at every evaluation in these lines of an ``events.jsonl``."""
    replayed = []
    for line in events:
        if line.get("event") == "note" and line.get("what") == NOTE and "sight" in line:
            actions = advise(policy, Sight.from_record(line["sight"])).actions
            records = [to_record(action) for action in actions]
            same = list(map(_without_reason, records)) == list(
                map(_without_reason, line["actions"])
            )
            replayed.append(ReplayedEvaluation(line["step"], actions, same))
    return tuple(replayed)


def _without_reason(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an action without its reason, which versions may word differently."""
    return {name: value for name, value in record.items() if name != "because"}
