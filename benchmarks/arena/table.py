"""The recorded arena as a table, and searches in it on validation rows drawn from its pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arena.space import settings
from holdfast.control.choice import WORSE_LEVEL
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

SHIPPED = Path(__file__).with_name("arena.npz")


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """One setting on one set: ``losses`` and ``correct`` [looks, rows] of the pool, and after how
    many ``steps`` and ``passes`` of rows each look was taken, both [looks]."""

    losses: Floats
    correct: Floats
    steps: Ints
    passes: Ints
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One draw of validation rows: ``losses`` and ``correct`` [settings, rows] of each setting's
    kept state, the ``truth`` [settings], its share of right answers over the whole pool, and the
    ``passes`` [settings] of its whole run. ``by_look`` has of each setting, step 0 left out, the
    ``losses`` and ``correct`` [looks, rows] at each look and the passes up to there."""

    losses: Floats
    correct: Floats
    truth: Floats
    passes: Floats
    by_look: tuple[tuple[Floats, Floats, Ints], ...] = ()


def pack(cells: Mapping[tuple[int, str], Mapping[str, Any]]) -> dict[str, Any]:
    """Recorded cells as the arrays of one file; of each set as many settings as are there from the
    first one on without a gap."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(data for _, data in cells):
        count = 0
        while (count, name) in cells:
            count += 1
        rows = [cells[number, name] for number in range(count)]
        found[f"{name}_looks"] = np.array([len(one["steps"]) for one in rows])
        found[f"{name}_losses"] = np.concatenate([one["losses"] for one in rows])
        right = np.concatenate([one["correct"] for one in rows])
        found[f"{name}_correct"] = np.packbits(right, axis=1)
        found[f"{name}_steps"] = np.concatenate([one["steps"] for one in rows])
        found[f"{name}_passes"] = np.concatenate([one["rows_passed"] for one in rows])
        found[f"{name}_seconds"] = np.array([one["seconds"] for one in rows], dtype=np.float32)
    return found


def courses(path: Path = SHIPPED) -> dict[str, list[Course]]:
    """The courses of each set, by the number of the setting; as many settings of each set."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    names = [name.removesuffix("_looks") for name in arrays if name.endswith("_looks")]
    shared = min(len(arrays[f"{name}_looks"]) for name in names)
    found: dict[str, list[Course]] = {}
    for name in names:
        looks = arrays[f"{name}_looks"]
        ends = np.cumsum(looks)[:-1]
        losses = arrays[f"{name}_losses"].astype(np.float64)
        right = np.unpackbits(arrays[f"{name}_correct"], axis=1)[:, : losses.shape[1]]
        losses, correct, steps, passes = (
            np.split(one, ends)
            for one in (
                losses,
                right.astype(np.float64),
                arrays[f"{name}_steps"],
                arrays[f"{name}_passes"],
            )
        )
        seconds = arrays[f"{name}_seconds"]
        found[name] = [
            Course(losses[i], correct[i], steps[i], passes[i], float(seconds[i]))
            for i in range(shared)
        ]
    return found


def kept(losses: Floats) -> Ints:
    """The look [draws] that a run keeps, of losses [looks, draws, rows]: the newest that is not
    worse than the lowest so far, as ``control.choice.newest_unless_worse``."""
    from scipy.special import stdtrit

    means, rows = losses.mean(axis=2), losses.shape[2]
    bar = float(stdtrit(rows - 1, 1 - WORSE_LEVEL))
    draws = np.arange(losses.shape[1])
    found = best = np.zeros(len(draws), dtype=np.int64)
    for look in range(1, len(losses)):
        best = np.where(means[look] < means[best, draws], look, best)
        gap = losses[look] - losses[best, draws]
        error = gap.std(axis=1, ddof=1) / np.sqrt(rows)
        mean = gap.mean(axis=1)
        found = np.where(np.where(error > 0, mean > bar * error, mean > 0), found, look)
    return found


def draws(
    table: list[Course], rows: int, count: int, *seed: str | int, looks: bool = False
) -> Iterator[Drawn]:
    """Searches in one set, each with validation rows of its own, drawn with repeats from the pool:
    the pool is then the population, and what a setting scores on it the truth."""
    rng = generator(0, "arena", "draws", *seed)
    pool = table[0].losses.shape[1]
    chosen = rng.integers(0, pool, size=(count, rows))
    states = [kept(one.losses[:, chosen]) for one in table]
    right = [one.correct.mean(axis=1) for one in table]
    passes = np.array([one.passes[-1] for one in table], dtype=np.float64)
    for draw in range(count):
        own, at = chosen[draw], [int(state[draw]) for state in states]
        yield Drawn(
            np.stack([one.losses[k, own] for one, k in zip(table, at, strict=True)]),
            np.stack([one.correct[k, own] for one, k in zip(table, at, strict=True)]),
            np.array([score[k] for score, k in zip(right, at, strict=True)]),
            passes,
            tuple((one.losses[1:, own], one.correct[1:, own], one.passes[1:]) for one in table)
            if looks
            else (),
        )


def gains(tables: Sequence[list[Course]]) -> Floats:
    """What each setting is better than the default on each set [settings, sets], by the whole pool
    in both its parts: which look a run keeps, and what it scores."""
    scores = np.array([[_score(course) for course in table] for table in tables]).T
    return np.asarray(scores - scores[0])


def _score(course: Course) -> float:
    return float(course.correct[int(kept(course.losses[:, None])[0])].mean())


def known_settings(count: int) -> list[dict[str, Any]]:
    """The settings that a table of so many holds."""
    return settings()[:count]
