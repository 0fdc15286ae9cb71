"""From finished cells to the lines of a result: matched pairs, means with spread, yes or no."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from cells import machine

from holdfast.core.seeds import generator
from holdfast.stats.paired_tests import Difference, paired_bootstrap

Record = Mapping[str, Any]
NOT_RUN = "not run"


def records(
    cells: Iterable[Mapping[str, Any]], results: Iterable[Mapping[str, Any] | None]
) -> list[dict[str, Any]]:
    """Finished cells, their keys and figures in one dict."""
    pairs = zip(cells, results, strict=True)
    return [{**cell, **result} for cell, result in pairs if result is not None]


def matched(
    done: Iterable[Record], by: Sequence[str], arms: Sequence[str]
) -> list[dict[str, Record]]:
    """The runs on the same rows, by arm, where every one of ``arms`` has finished."""
    groups: dict[tuple[Any, ...], dict[str, Record]] = {}
    for record in done:
        groups.setdefault(tuple(record[name] for name in by), {})[record["arm"]] = record
    return [group for group in groups.values() if all(arm in group for arm in arms)]


def gap(first: Sequence[float], second: Sequence[float], purpose: str) -> Difference:
    """The mean paired difference over runs, with a BCa bootstrap interval over runs."""
    seed = generator(0, "benchmark", purpose)
    return paired_bootstrap(np.array(first), np.array(second), seed=seed)


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Mean ± standard deviation over runs; the mean alone where there is one run."""
    if not values:
        return NOT_RUN
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"


def points(difference: Difference) -> str:
    """A difference of rates in points, with its interval."""
    if not difference.n:
        return NOT_RUN
    return f"{100 * difference.value:+.2f}" + _limits(difference, 100, "+")


def _limits(difference: Difference, scale: float, sign: str) -> str:
    if math.isnan(difference.low):
        return ""
    low, high = scale * difference.low, scale * difference.high
    return f" ({low:{sign}.2f} to {high:{sign}.2f})"


def target(what: str, holds: bool | None, found: str) -> str:
    """A line of the list of targets: yes, no, or not run."""
    answer = NOT_RUN if holds is None else "yes" if holds else "**no**"
    return f"- {what}: {answer} ({found})" if holds is not None else f"- {what}: {answer}"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def foot(command: str, cells: int, done: Sequence[Record], threads: int) -> str:
    """What the figures depend on: command, machine, commits, and how many cells were not run."""
    facts = {**machine(), "threads": str(threads)}
    measured_on = Counter(str(record["cpu"]) for record in done if record.get("cpu"))
    if measured_on:
        facts["cpu"] = ", ".join(f"{name} ({n} runs)" for name, n in measured_on.most_common())
    shown = ", ".join(f"{name} {value}" for name, value in facts.items())
    commits = ", ".join(dict.fromkeys(str(record["commit"]) for record in done)) or "none"
    left = cells - len(done)
    loads = [float(record["load_before"]) for record in done]
    busy = f" Load before a run: {spread(loads)}." if loads else ""
    missing = f" {left} of {cells} cells were {NOT_RUN}." if left else ""
    return f"`{command}`. Machine: {shown}. Commits: {commits}.{busy}{missing}"
