"""Few-shot tasks, their split, and the episodes that are drawn from them.

A **task** has classes, a class has rows (positions among the encoded rows). An **episode**
simulates a new task with a few labelled rows for some classes: the *support* rows, from which a
model may learn, and the *query* rows, which it then predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator


@dataclass(frozen=True, slots=True)
class EpisodeShape:
    """``ways`` classes an episode, ``shots`` support rows and ``queries`` query rows of each."""

    ways: int
    shots: int
    queries: int

    @property
    def rows(self) -> int:
        """Rows of each class that an episode needs."""
        return self.shots + self.queries


@dataclass(frozen=True, slots=True)
class FewShotTask:
    """One task: the ``rows`` of each of its ``classes``, ascending positions."""

    name: str
    classes: tuple[str, ...]
    rows: tuple[Ints, ...]


@dataclass(frozen=True, slots=True)
class Episode:
    """``classes`` [ways] of the task at ``task`` of its pool; ``support`` [ways, shots] and
    ``query`` [ways, queries] positions, one line of the table per class.
    """

    task: int
    classes: Ints
    support: Ints
    query: Ints

    @property
    def ways(self) -> int:
        return len(self.classes)

    @property
    def support_labels(self) -> Ints:
        """0 … ways − 1, in the order of ``support.ravel()``."""
        return np.repeat(np.arange(self.ways), self.support.shape[1])

    @property
    def query_labels(self) -> Ints:
        """0 … ways − 1, in the order of ``query.ravel()``."""
        return np.repeat(np.arange(self.ways), self.query.shape[1])


@dataclass(frozen=True, slots=True)
class TaskPool:
    """The tasks of one split."""

    tasks: tuple[FewShotTask, ...]

    def draw(self, shape: EpisodeShape, seed: int, *names: str | int) -> Episode:
        """Draw the episode of this ``seed`` and name: a task, all with equal probability; classes
        of it; rows of these.

        The same arguments give the same episode, whatever was drawn before.
        """
        rng = generator(seed, "episode", *names)
        at = int(rng.integers(len(self.tasks)))
        task = self.tasks[at]
        classes = rng.permutation(len(task.classes))[: shape.ways]
        rows = np.stack([rng.permutation(task.rows[c])[: shape.rows] for c in classes])
        return Episode(at, classes, rows[:, : shape.shots], rows[:, shape.shots :])

    def episodes(self, shape: EpisodeShape, count: int, seed: int, name: str) -> list[Episode]:
        """``count`` fixed episodes."""
        return [self.draw(shape, seed, name, index) for index in range(count)]

    def unit_membership(self, episodes: Sequence[Episode]) -> tuple[Floats, str]:
        """Which units each episode is made of [episodes, units], and what a unit is.

        The ``task``, where there are enough of them to show how tasks differ, or where an episode
        takes all classes of its task; else the ``class``.
        """
        ways = max((one.ways for one in episodes), default=0)
        all_classes = len(self.tasks) > 1 and any(len(t.classes) <= ways for t in self.tasks)
        by_task = len(self.tasks) >= TASKS_ENOUGH or all_classes
        starts = np.cumsum([0, *(len(task.classes) for task in self.tasks)])
        membership = np.zeros((len(episodes), len(self.tasks) if by_task else int(starts[-1])))
        for index, one in enumerate(episodes):
            membership[index, one.task if by_task else starts[one.task] + one.classes] = 1
        return membership, "task" if by_task else "class"


# With fewer tasks an interval over tasks would be uselessly wide: t with 3 degrees of freedom is
# 3.2.
TASKS_ENOUGH = 5


def usable_tasks(tasks: Sequence[FewShotTask], shape: EpisodeShape) -> tuple[FewShotTask, ...]:
    """The tasks that are large enough for episodes of this shape, with those of their classes that
    have enough rows.
    """
    result = []
    for task in tasks:
        large_classes = [i for i, rows in enumerate(task.rows) if len(rows) >= shape.rows]
        if len(large_classes) >= shape.ways:
            names = tuple(task.classes[i] for i in large_classes)
            result.append(FewShotTask(task.name, names, tuple(task.rows[i] for i in large_classes)))
    return tuple(result)


def split_sizes(total: int, shares: Sequence[float], min_units: int) -> list[int] | None:
    """How many of ``total`` units each split gets: by largest remainder, the last split first where
    remainders tie, and never fewer than ``min_units``; ``None`` where there are too few."""
    if total < min_units * len(shares):
        return None
    exact = np.asarray(shares, dtype=float) / sum(shares) * total
    counts = np.floor(exact + 1e-9).astype(int)
    order = sorted(range(len(shares)), key=lambda i: (round(float(counts[i] - exact[i]), 9), -i))
    for split in order[: total - int(counts.sum())]:
        counts[split] += 1
    while counts.min() < min_units:
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1
    return [int(count) for count in counts]


def split_units(
    units: Sequence[str], shares: Sequence[float], min_units: int, seed: int
) -> list[tuple[str, ...]] | None:
    """Split names of tasks, or of classes, into disjoint sets; each set in the given order."""
    counts = split_sizes(len(units), shares, min_units)
    if counts is None:
        return None
    order = generator(seed, "tasks").permutation(len(units))
    ends = np.cumsum([0, *counts])
    parts = [sorted(order[ends[i] : ends[i + 1]]) for i in range(len(counts))]
    return [tuple(units[i] for i in part) for part in parts]
