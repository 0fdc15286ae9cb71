"""What a search for the size came to, in a sentence and in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.search.capacity.rules import WHOLE, Capacity, SizeStanding
from holdfast.search.capacity.sizes import Cost, Size
from holdfast.search.pareto import front
from holdfast.search.rules.expectation import expected_test

if TYPE_CHECKING:
    from holdfast.search.capacity.progress import Trying


def sentence(
    found: Capacity, sizes: Sequence[Size], costs: Mapping[str, Cost], by_rights: bool
) -> str:
    """The answer in one sentence, with its numbers."""
    named = {size.key: size for size in sizes}
    kept = found.of(found.chosen)
    if found.answer == "oversized":
        assert kept is not None
        do = "do" if (named[kept.key].blocks or 0) > 1 else "does"
        well = "better" if kept.found.verdict == "better" else "as well"
        gap, speed = _gap(kept, by_rights), _speed(costs, kept.key)
        return f"oversized: {named[kept.key].name} {do} {well} ({gap}), {speed}"
    if found.answer in ("all_needed", "too_small"):
        near = max(found.standings, key=lambda one: named[one.key].large)
        lost = f"with {named[near.key].name} it is worse ({_gap(near, by_rights)})"
        if found.answer == "too_small":
            return f"too small: {lost}, and the whole model underfits; a larger one may do better"
        return f"not oversized: {lost}; whether a larger model does better was not tried"
    unknown = f"cannot be told on {found.n} rows whether the model is oversized"
    if kept is None:
        nearest = max(found.standings, key=lambda one: one.likely, default=None)
        seen = f" ({named[nearest.key].name}: {_gap(nearest, by_rights)})" if nearest else ""
        return f"{unknown}{seen}; the whole is kept, for each smaller size is likely worse"
    gap, speed = _gap(kept, by_rights), _speed(costs, kept.key)
    return f"{unknown}; kept as the cheaper choice: {named[kept.key].name} ({gap}), {speed}"


def _gap(one: SizeStanding, by_rights: bool) -> str:
    found, times = one.found, 100.0 if by_rights else -1.0
    unit = " points" if by_rights else " of the loss"
    ends = sorted((found.low * times, found.high * times))
    return f"{_signed(found.value * times)}{unit}, {_signed(ends[0])} to {_signed(ends[1])}"


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−") if value == value else "unknown"


def _speed(costs: Mapping[str, Cost], key: str) -> str:
    times = costs[WHOLE].latency_ms / costs[key].latency_ms
    return f"{times:.1f} times as fast"


def block_of(
    found: Capacity, trying: Trying, costs: Mapping[str, Cost], how: str, said: str
) -> dict[str, Any]:
    """``capacity`` of ``result.json``."""
    lines = [_line(found, trying, costs, size) for size in trying.sizes]
    tried = [line for line in lines if line["tried"]]
    return {
        "answer": found.answer,
        "because": said,
        "chosen": found.chosen,
        "metric": "accuracy" if trying.by_rights else "loss",
        "higher_is_better": trying.by_rights,
        "margin": found.margin,
        "n": found.n,
        "judged": how,
        "pareto": pareto(tried, 1 if trying.by_rights else -1),
        "sizes": lines,
    }


def study_of(found: Capacity, trying: Trying, block: Mapping[str, Any]) -> dict[str, Any]:
    """``study`` of ``result.json``, in the form of every search: the sizes are its trials."""
    tried = [line for line in block["sizes"] if line["tried"]]
    scores = {line["key"]: trying.quality(line["key"]) for line in tried}
    sign = 1 if trying.by_rights else -1
    expected = expected_test(scores, found.chosen, WHOLE)
    ends = sorted((sign * expected.low, sign * expected.high))
    optimism = expected.optimism
    table = [
        {"trial": place, "settings": line["settings"], "seen": line["value"], "size": line["key"]}
        for place, line in enumerate(tried)
    ]
    return {
        "metric": block["metric"],
        "higher_is_better": block["higher_is_better"],
        "trials": len(tried),
        "best": [line["key"] for line in tried].index(found.chosen),
        "expected_test": {"value": sign * expected.value, "low": ends[0], "high": ends[1]},
        "optimism": {"value": optimism.value, "low": optimism.low, "high": optimism.high},
        "trials_table": table,
    }


def _line(found: Capacity, trying: Trying, costs: Mapping[str, Cost], size: Size) -> dict[str, Any]:
    line: dict[str, Any] = {
        "key": size.key,
        "name": size.name,
        "settings": dict(size.settings),
        "blocks": size.blocks,
        "rank": size.rank,
        "tried": size.key in costs,
        "why": trying.skipped.get(size.key),
        "value": None,
        "difference": None,
        "verdict": None,
        "likely": None,
        "parameters": None,
        "trainable": None,
        "latency_ms": None,
        "speed": None,
        "seconds": None,
    }
    if size.key not in costs:
        return line
    cost, sign = costs[size.key], 1 if trying.by_rights else -1
    line |= {
        "value": sign * float(trying.quality(size.key).mean()),
        "parameters": cost.parameters,
        "trainable": cost.trainable,
        "latency_ms": cost.latency_ms,
        "speed": costs[WHOLE].latency_ms / cost.latency_ms,
        "seconds": sum(one.seconds for one in trying.done[size.key].values()),
    }
    standing = found.of(size.key)
    if standing is not None:
        told = standing.found
        ends = sorted((sign * told.low, sign * told.high))
        line |= {
            "difference": {
                "value": sign * told.value,
                "low": ends[0],
                "high": ends[1],
                "level": 0.95,
                **({"why": told.why} if told.why else {}),
            },
            "verdict": told.verdict,
            "likely": sign * standing.likely,
        }
    return line


def pareto(lines: Sequence[Mapping[str, Any]], sign: int) -> list[str]:
    """The keys of the sizes that no other beats in one of quality (the likely difference) and time
    without losing in the other; ``sign`` is 1 where more of the metric is better, else −1."""
    points = [(-sign * (one["likely"] or 0.0), float(one["latency_ms"])) for one in lines]
    return [str(lines[place]["key"]) for place in front(points)]
