"""What a policy would have done in a run, from the run's ``events.jsonl`` alone: no model, no rows.

The notes named ``control`` hold what was seen at each look. The policy of the run gives the actions
of the run again; another one gives its own, which hold up to the first at which they differ: what
the run would have seen after that, nobody knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.control.policy import Policy, advise
from holdfast.control.sight import Sight
from holdfast.core.actions import Action, to_record
from holdfast.core.errors import RunError

NOTE = "control"


@dataclass(frozen=True, slots=True)
class ReplayedEvaluation:
    """One look: its ``step``, what the policy advises there, and whether the run did the same."""

    step: int
    actions: tuple[Action, ...]
    same: bool


def replay(events: Sequence[Mapping[str, Any]], policy: Policy) -> tuple[ReplayedEvaluation, ...]:
    """Every look of these lines of an ``events.jsonl``, as ``policy`` sees it."""
    replayed = []
    for line in events:
        if line.get("event") == "note" and line.get("what") == NOTE and "sight" in line:
            actions = advise(policy, Sight.from_record(line["sight"])).actions
            records = [to_record(action) for action in actions]
            replayed.append(
                ReplayedEvaluation(line["step"], actions, records == list(line["actions"]))
            )
    return tuple(replayed)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The lines of an ``events.jsonl``. Raises ``RunError`` where one of them is no JSON object."""
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            rule = f"holds no JSON object in line {number}"
            raise RunError(str(path), rule, text[:40], "Take the line out, or resume the run.")
        lines.append(line)
    return lines
