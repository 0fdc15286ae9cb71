"""The model sizes that are tried, their costs when the model is used, and the verdict of their
scores on the same rows: is the model larger than the rows need?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from holdfast.analyses.compare.verdict import PairedVerdict, judge_pairs
from holdfast.core.errors import RecipeError
from holdfast.core.records import Floats, Ints
from holdfast.core.wording import signed
from holdfast.models.depth import depth_of
from holdfast.search.context import SearchContext, timing_batches
from holdfast.stats.paired_tests import by_groups

if TYPE_CHECKING:
    from holdfast.contract.fit import PreparedData
    from holdfast.models.base import Network

LAYERS, KEPT, RANK = "model.layers", "model.layers_kept", "model.adapter.rank"
# Every depth is tried of a model of so many blocks; of a deeper one these shares.
FEW_BLOCKS = 6
SHARES = (5 / 6, 2 / 3, 1 / 2, 1 / 3, 1 / 6)
TIMED_ROWS, ROUNDS = 16, 8
# Of a network: the one that was loaded, and the plain one.
NETWORK_COPIES = 2


@dataclass(frozen=True, slots=True)
class Size:
    """One size: its ``name`` in words, ``settings`` as in a recipe (none for the full model), and
    its size (``blocks``, or the ``rank`` of its adapter)."""

    key: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    blocks: int | None = None
    rank: int | None = None

    @property
    def magnitude(self) -> int:
        """Its blocks, or its rank: the sizes of one search differ in the same one."""
        return self.blocks or self.rank or 0

    @property
    def is_spread(self) -> bool:
        """Whether its blocks are spread over the depth of the model."""
        return self.settings.get(KEPT) == "spread"


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a size in use: ``parameters`` of the plain model, ``trainable`` ones, and
    ``latency_ms`` per row, one at a time, on this machine."""

    parameters: int
    trainable: int
    latency_ms: float


def candidate_sizes(context: SearchContext) -> tuple[Size, ...]:
    """The full model first, then smaller ones, the largest first.

    Depth: the first blocks of the pretrained stack (the top ones are dropped), and for half of the
    blocks also those spread over the depth. For a model whose adapter is saved separately, the
    depth cannot change: ranks, halved repeatedly. Raises ``RecipeError`` if neither is possible.
    """
    adapter = context.recipe.model.adapter
    network = context.prepared({}).loaded.network
    if adapter.method is not None and not adapter.merge:
        return _rank_sizes(network)
    blocks = depth_of(network)
    if blocks < 2:
        rule = "tries smaller models, but this one has a single block"
        raise RecipeError("search=capacity", rule, blocks, "Name a deeper model.")
    if blocks <= FEW_BLOCKS:
        depths = list(range(blocks - 1, 0, -1))
    else:
        candidates = {max(1, round(share * blocks)) for share in SHARES} - {blocks}
        depths = sorted(candidates, reverse=True)
    sizes = [Size("whole", f"all {blocks} blocks", {}, blocks)]
    for depth in depths:
        name = f"{depth} of {blocks} blocks"
        sizes.append(Size(f"first-{depth}", name, {LAYERS: depth, KEPT: "first"}, depth))
        if depth == blocks // 2 > 1:
            settings = {LAYERS: depth, KEPT: "spread"}
            sizes.append(Size(f"spread-{depth}", f"{name}, spread", settings, depth))
    return tuple(sizes)


def _rank_sizes(network: Network) -> tuple[Size, ...]:
    assert network.adapter is not None
    kind, rank = network.adapter.spec.kind, network.adapter.spec.rank
    if rank is None or rank < 2:
        raise RecipeError(
            "search=capacity",
            f"has no smaller form of model.adapter.kind={kind} to try",
            rank,
            "Add --set model.adapter.merge=true, so that blocks can be dropped, or raise "
            "model.adapter.rank.",
        )
    ranks = [rank]
    while ranks[-1] > 1 and len(ranks) < 4:
        ranks.append(max(1, ranks[-1] // 2))
    full = Size("whole", f"rank {rank}", {}, rank=rank)
    others = [Size(f"rank-{r}", f"rank {r}", {RANK: r}, rank=r) for r in ranks[1:]]
    return (full, *others)


def measure_costs(context: SearchContext, sizes: Sequence[Size]) -> dict[str, Cost]:
    """The cost of each size, by its key, measured on the plain model that is saved (mean pooling
    adds a block to it), on rows of medium length, one at a time.

    For each row the fastest of several passes counts, since other load only ever slows a machine
    down. The sizes take turns, so that a slow minute affects all of them, if they fit into memory
    together.
    """
    from holdfast.models.layers import count_parameters
    from holdfast.plan.memory import available_mb

    counts = {
        size.key: count_parameters(context.prepared(size.settings).loaded.network) for size in sizes
    }
    total_mb = sum(4e-6 * total for total, _ in counts.values()) * NETWORK_COPIES
    all_fit = total_mb < available_mb() / 2
    times: dict[str, float] = {}
    for group in [sizes] if all_fit else [[size] for size in sizes]:
        times |= _measure_times(context, group)
    return {key: Cost(*counts[key], 1000 * seconds) for key, seconds in times.items()}


def _measure_times(context: SearchContext, sizes: Sequence[Size]) -> dict[str, float]:
    """Seconds per row, the sizes in turn."""
    import torch

    from holdfast.training.machine.machine import use_threads

    passes: dict[str, list[Callable[[], Any]]] = {}
    for size in sizes:
        prepared = context.prepared(size.settings)
        use_threads(prepared.machine.threads)
        passes[size.key] = _timed_passes(prepared)
    best = {key: np.full(TIMED_ROWS, np.inf) for key in passes}
    with torch.inference_mode():
        for _, place, key in itertools.product(range(ROUNDS), range(TIMED_ROWS), passes):
            start = time.perf_counter()
            passes[key][place]()
            best[key][place] = min(best[key][place], time.perf_counter() - start)
    return {key: float(seconds.mean()) for key, seconds in best.items()}


def _timed_passes(prepared: PreparedData) -> list[Callable[[], object]]:
    """A pass of each of ``TIMED_ROWS`` rows through the model as it is saved."""
    from holdfast.models.encoders.network import EncoderClassifier, plain_model

    network: Any = prepared.loaded.network
    task, batches = timing_batches(prepared, TIMED_ROWS)
    batches_timed = [batches[i % len(batches)] for i in range(TIMED_ROWS)]
    if not isinstance(network, EncoderClassifier) or network.adapter is not None:
        return [partial(task.forward, network.eval(), batch) for batch in batches_timed]
    plain: Any = plain_model(network).eval()
    inputs_of_batches = [
        {k: v for k, v in batch.items() if k in network.accepts} for batch in batches_timed
    ]
    return [partial(plain, **inputs) for inputs in inputs_of_batches]


Answer = Literal["oversized", "all_needed", "too_small", "undecided"]

FULL = "whole"


@dataclass(frozen=True, slots=True)
class SizeStanding:
    """The comparison of one size with the full model on the same rows: ``paired`` is size minus
    full model (higher is better), ``expected_difference`` the difference after shrinkage by the
    other sizes and its own noise."""

    key: str
    paired: PairedVerdict
    expected_difference: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """The ``answer``, the ``selected`` size (its key), and the comparison of each other size."""

    answer: Answer
    selected: str
    standings: tuple[SizeStanding, ...]
    margin: float
    n: int

    def standing_of(self, key: str) -> SizeStanding | None:
        """The comparison of this size; ``None`` for the full model."""
        return next((one for one in self.standings if one.key == key), None)


def judge_sizes(
    full: Floats,
    smaller: Mapping[str, Floats],
    magnitudes: Mapping[str, float],
    chains: Sequence[Sequence[str]],
    margin: float,
    units: Ints | None = None,
    label: str | None = None,
) -> Capacity:
    """Compare sizes. ``full`` [n] is the quality of the full model's prediction of each row (higher
    is better), ``smaller`` that of each smaller size by its key, ``magnitudes`` their sizes; along
    each of the ``chains`` (the largest first) the expected quality does not increase.

    A size is as good if it is shown not to be worse by the margin (``judge_pairs``: equivalent, or
    better). *oversized*: some size is; the smallest such size is chosen. *all_needed*: none is, and
    the largest smaller one is shown to be worse; *too_small* if the full model also underfits (the
    ``label`` of its verdict). *undecided*: the rows cannot show it; then the smallest size is
    chosen whose expected difference is within the margin and that is not shown to be worse, since
    an undetectable difference is not worth its cost. Rows of one of the ``units`` [n] (a group,
    duplicates) are not independent; without units each row is.

    The expected difference d: the means along a chain are made monotone (least squares, pool
    adjacent violators), and each is shrunk towards 0 by its noise, d · max(0, 1 − se² ÷ d²) (the
    positive part of James and Stein 1961).
    """
    from scipy.optimize import isotonic_regression

    judged = {key: judge_pairs(one - full, margin, units) for key, one in smaller.items()}
    expected: dict[str, float] = {}
    for chain in chains:
        keys = [key for key in chain if key in smaller]
        if not keys:
            continue
        means = isotonic_regression([judged[key].value for key in keys], increasing=False).x
        for key, mean in zip(keys, means, strict=True):
            expected[key] = shrink(float(mean), _standard_error(smaller[key] - full, units))
    standings = tuple(SizeStanding(key, judged[key], expected[key]) for key in expected)

    def smallest(keys: Sequence[str]) -> str:
        return min(keys, key=lambda key: (magnitudes[key], -expected[key]))

    as_good = [key for key in expected if judged[key].verdict in ("equivalent", "better")]
    worse = {key for key in expected if judged[key].verdict == "worse"}
    n = len(full)
    if as_good:
        return Capacity("oversized", smallest(as_good), standings, margin, n)
    if expected and max(expected, key=lambda key: magnitudes[key]) in worse:
        answer: Answer = "too_small" if label == "underfit" else "all_needed"
        return Capacity(answer, FULL, standings, margin, n)
    acceptable = [key for key in expected if expected[key] >= -margin and key not in worse]
    return Capacity("undecided", smallest(acceptable) if acceptable else FULL, standings, margin, n)


def shrink(value: float, standard_error: float) -> float:
    """A difference shrunk towards 0 by its standard error."""
    if value == 0 or not np.isfinite(standard_error):
        return 0.0
    return value * max(0.0, 1 - (standard_error / value) ** 2)


def _standard_error(gaps: Floats, units: Ints | None) -> float:
    gaps = gaps if units is None else by_groups(gaps, units)
    return float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("inf")


def capacity_sentence(
    capacity: Capacity, sizes: Sequence[Size], costs: Mapping[str, Cost], has_accuracy: bool
) -> str:
    """The answer in one sentence, with its numbers."""
    named = {size.key: size for size in sizes}
    selected = capacity.standing_of(capacity.selected)
    if capacity.answer == "oversized":
        assert selected is not None
        do = "are" if (named[selected.key].blocks or 0) > 1 else "is"
        comparison = "better" if selected.paired.verdict == "better" else "as good"
        gap, speed = _gap_text(selected, has_accuracy), _speed_text(costs, selected.key)
        return f"oversized: {named[selected.key].name} {do} {comparison} ({gap}), {speed}"
    if capacity.answer in ("all_needed", "too_small"):
        largest = max(capacity.standings, key=lambda one: named[one.key].magnitude)
        loss_text = (
            f"with {named[largest.key].name} it is worse ({_gap_text(largest, has_accuracy)})"
        )
        if capacity.answer == "too_small":
            return (
                f"too small: {loss_text}, and the full model underfits; a larger model may be "
                "better"
            )
        return f"not oversized: {loss_text}; no larger model was tried"
    unknown = f"inconclusive: {capacity.n} rows cannot show whether the model is oversized"
    if selected is None:
        nearest = max(capacity.standings, key=lambda one: one.expected_difference, default=None)
        nearest_text = (
            f" ({named[nearest.key].name}: {_gap_text(nearest, has_accuracy)})" if nearest else ""
        )
        return (
            f"{unknown}{nearest_text}; the full model is kept, because each smaller size is "
            "probably worse"
        )
    gap, speed = _gap_text(selected, has_accuracy), _speed_text(costs, selected.key)
    return f"{unknown}; chosen as the cheaper size: {named[selected.key].name} ({gap}), {speed}"


def _gap_text(standing: SizeStanding, has_accuracy: bool) -> str:
    paired, scale = standing.paired, 100.0 if has_accuracy else -1.0
    unit = " points" if has_accuracy else " of the loss"
    ends = sorted((paired.low * scale, paired.high * scale))
    interval = f"95 % CI {_signed(ends[0])} to {_signed(ends[1])}"
    return f"{_signed(paired.value * scale)}{unit}, {interval}"


def _signed(value: float) -> str:
    return signed(value, "+.2g") if value == value else "unknown"


def _speed_text(costs: Mapping[str, Cost], key: str) -> str:
    times = costs[FULL].latency_ms / costs[key].latency_ms
    return f"{times:.1f} times as fast"
