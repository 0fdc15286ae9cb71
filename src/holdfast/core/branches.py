"""The current branch of a run that was rolled back, with its ancestors up to each fork. Statistics
read only these evaluations; the others are shown but not judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from holdfast.core.records import FIRST_BRANCH, Branch, Snapshot

T = TypeVar("T")


class BranchRecord(TypedDict):
    """A ``Branch`` as a file holds it."""

    number: int
    parent: int | None
    from_step: int


def snapshots_on_branch(history: Sequence[Snapshot], now: Branch) -> tuple[Snapshot, ...]:
    """The snapshots of ``history`` (a run's snapshots in order of time) that belong to the branch
    ``now`` or its ancestors. Their steps increase."""
    return tuple(items_on_branch(history, now, lambda snapshot: (snapshot.branch, snapshot.step)))


def items_on_branch(
    items: Sequence[T], current: Branch, branch_and_step: Callable[[T], tuple[Branch, int]]
) -> list[T]:
    """Of ``items``, whose branch and step ``branch_and_step`` tells, those in ``current`` or before
    a fork that leads to it.

    >>> first, second = Branch(), Branch(1, 0, 2)
    >>> looks = [(first, 0), (first, 2), (first, 4), (second, 4)]
    >>> [step for _, step in alive(looks, second, lambda look: look)]
    [0, 2, 4]
    """
    branch_of_number = {branch.number: branch for branch, _ in map(branch_and_step, items)}
    last_step: dict[int, float] = {current.number: math.inf}
    branch, last = current, math.inf
    # A parent's number is the smaller one; in a file that says otherwise the walk ends too.
    while (
        branch.parent is not None
        and branch.parent in branch_of_number
        and branch.parent < branch.number
    ):
        last = min(last, branch.from_step)
        branch = branch_of_number[branch.parent]
        last_step[branch.number] = last
    places = [branch_and_step(item) for item in items]
    return [
        item
        for item, (branch, step) in zip(items, places, strict=True)
        if step <= last_step.get(branch.number, -math.inf)
    ]


def snapshot_events_on_branch(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The ``snapshot`` lines of ``events`` (the lines of an ``events.jsonl`` in order) on the
    branch that is current at its end. The line of a rollback names the branch that it opens."""
    snapshots = [event for event in events if event["event"] == "snapshot"]
    branch_events = [
        event for event in events if event["event"] == "snapshot" or event.get("branch")
    ]
    now = branch_of(branch_events[-1]) if branch_events else FIRST_BRANCH
    return items_on_branch(snapshots, now, lambda event: (branch_of(event), event["step"]))


def branch_of(event: Mapping[str, Any]) -> Branch:
    """The branch of a line. Lines of the first branch, and of runs by older versions, name none."""
    return branch_from(event["branch"]) if event.get("branch") else FIRST_BRANCH


def branch_from(record: BranchRecord) -> Branch:
    """A branch read from a file; fields of later versions are ignored."""
    return Branch(record["number"], record["parent"], record["from_step"])
