"""From many labels of a row to one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from holdfast.plugins.store.records import Feedback


@dataclass(frozen=True, slots=True)
class Settled:
    """One label a row, in the order in which rows were labelled first.

    ``replaced`` labels gave way: to a later one of the same person, to another person's later one,
    or a model's to a person's. In ``disagreed`` rows two people's last labels differ; ``several``
    rows had more than one person.
    """

    labels: tuple[Feedback, ...]
    replaced: int
    several: int
    disagreed: int


def settled(feedback: Iterable[Feedback]) -> Settled:
    """The label that counts for each row: the last one of a person; a model's only where no person
    gave one. A row that was once drawn evenly stays so, whoever labelled it before or after."""
    rows: dict[tuple[str, int], list[Feedback]] = {}
    total = 0
    for one in feedback:
        rows.setdefault((one.request, one.index), []).append(one)
        total += 1
    kept, several, disagreed = [], 0, 0
    for given in rows.values():
        people = [one for one in given if one.source != "model"]
        last = max(people or given, key=lambda one: (one.at, one.id or 0))
        own = {one.who: one for one in sorted(people, key=lambda one: (one.at, one.id or 0))}
        several += len(own) > 1
        disagreed += len({repr(one.label) for one in own.values()}) > 1
        if any(one.drawn == "uniform" for one in given):
            last = replace(last, drawn="uniform")
        kept.append(last)
    return Settled(tuple(kept), total - len(kept), several, disagreed)
