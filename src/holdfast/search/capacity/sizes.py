"""The sizes of a model that are tried, and what each of them costs where the model is used."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.models.depth import depth_of
from holdfast.search.bench import Bench, middle_batches

if TYPE_CHECKING:
    from holdfast.contract.fit import PreparedData
    from holdfast.models.base import Network

LAYERS, KEPT, RANK = "model.layers", "model.layers_kept", "model.adapter.rank"
# Every depth is tried of a model of so many blocks; of a deeper one these shares.
FEW_BLOCKS = 6
SHARES = (5 / 6, 2 / 3, 1 / 2, 1 / 3, 1 / 6)
TIMED, ROUNDS = 16, 8
# Of a network: the one that was loaded, and the plain one.
COPIES = 2


@dataclass(frozen=True, slots=True)
class Size:
    """One size: its ``name`` in words, ``settings`` as in a recipe (none for the whole), and how
    large it is (``blocks``, or the ``rank`` of its adapter)."""

    key: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    blocks: int | None = None
    rank: int | None = None

    @property
    def large(self) -> int:
        """Its blocks, or its rank: sizes of one search are told apart by the same one."""
        return self.blocks or self.rank or 0

    @property
    def is_spread(self) -> bool:
        """Whether its blocks are spread over the depth of the model."""
        return self.settings.get(KEPT) == "spread"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a size costs where it is used: ``parameters`` of the plain model, ``trainable`` those
    that learn, ``latency_ms`` a row, one at a time, on this machine."""

    parameters: int
    trainable: int
    latency_ms: float


def sizes_of(bench: Bench) -> tuple[Size, ...]:
    """The whole model first, then smaller ones, the largest first.

    Depth: the first blocks of the pretrained stack (the top ones are dropped), and for half of the
    blocks those spread over it too. Of a model with an adapter that is saved beside it, whose depth
    cannot change: ranks, down by halves. Raises ``RecipeError`` where neither is possible.
    """
    adapter = bench.recipe.model.adapter
    network = bench.prepared({}).loaded.network
    if adapter.kind is not None and not adapter.merge:
        return _ranks(network)
    there = depth_of(network)
    if there < 2:
        rule = "tries smaller models, and this one has a single block"
        raise RecipeError("search=capacity", rule, there, "Name a deeper model.")
    if there <= FEW_BLOCKS:
        depths = list(range(there - 1, 0, -1))
    else:
        found = {max(1, round(share * there)) for share in SHARES} - {there}
        depths = sorted(found, reverse=True)
    sizes = [Size("whole", f"all {there} blocks", {}, there)]
    for d in depths:
        name = f"{d} of {there} blocks"
        sizes.append(Size(f"first-{d}", name, {LAYERS: d, KEPT: "first"}, d))
        if d == there // 2 > 1:
            settings = {LAYERS: d, KEPT: "spread"}
            sizes.append(Size(f"spread-{d}", f"{name}, spread", settings, d))
    return tuple(sizes)


def _ranks(network: Network) -> tuple[Size, ...]:
    assert network.adapter is not None
    kind, rank = network.adapter.spec.kind, network.adapter.spec.rank
    if rank is None or rank < 2:
        raise RecipeError(
            "search=capacity",
            f"has no smaller form of model.adapter.kind={kind} to try",
            rank,
            "Add --set model.adapter.merge=true, which lets blocks be left out, or raise "
            "model.adapter.rank.",
        )
    ranks = [rank]
    while ranks[-1] > 1 and len(ranks) < 4:
        ranks.append(max(1, ranks[-1] // 2))
    whole = Size("whole", f"rank {rank}", {}, rank=rank)
    others = [Size(f"rank-{r}", f"rank {r}", {RANK: r}, rank=r) for r in ranks[1:]]
    return (whole, *others)


def costs_of(bench: Bench, sizes: Sequence[Size]) -> dict[str, Cost]:
    """Each size's cost, by its key, measured on the plain model that it is saved as (mean pooling
    adds a block to it), on rows of middle length one at a time.

    Of each row the quickest of several passes counts, since a machine is only ever disturbed
    upwards; the sizes take turns at it, so that a slow minute hits them all, where memory holds
    them side by side.
    """
    from holdfast.models.layers import count_parameters
    from holdfast.plan.memory import available_mb

    found = {
        size.key: count_parameters(bench.prepared(size.settings).loaded.network) for size in sizes
    }
    together = sum(4e-6 * total for total, _ in found.values()) * COPIES
    at_once = together < available_mb() / 2
    times: dict[str, float] = {}
    for some in [sizes] if at_once else [[size] for size in sizes]:
        times |= _times(bench, some)
    return {key: Cost(*found[key], 1000 * seconds) for key, seconds in times.items()}


def _times(bench: Bench, sizes: Sequence[Size]) -> dict[str, float]:
    """Seconds a row, the sizes in turn."""
    import torch

    from holdfast.training.machine.machine import use_threads

    passes: dict[str, list[Callable[[], Any]]] = {}
    for size in sizes:
        prepared = bench.prepared(size.settings)
        use_threads(prepared.machine.threads)
        passes[size.key] = _passes(prepared)
    best = {key: np.full(TIMED, np.inf) for key in passes}
    with torch.inference_mode():
        for _, place, key in itertools.product(range(ROUNDS), range(TIMED), passes):
            start = time.perf_counter()
            passes[key][place]()
            best[key][place] = min(best[key][place], time.perf_counter() - start)
    return {key: float(seconds.mean()) for key, seconds in best.items()}


def _passes(prepared: PreparedData) -> list[Callable[[], object]]:
    """A pass of each of ``TIMED`` rows through what answers once the network is saved."""
    from holdfast.models.encoders.network import EncoderClassifier, plain_model

    network: Any = prepared.loaded.network
    task, batches = middle_batches(prepared, TIMED)
    some = [batches[i % len(batches)] for i in range(TIMED)]
    if not isinstance(network, EncoderClassifier) or network.adapter is not None:
        return [partial(task.forward, network.eval(), batch) for batch in some]
    plain: Any = plain_model(network).eval()
    given = [{k: v for k, v in batch.items() if k in network.accepts} for batch in some]
    return [partial(plain, **inputs) for inputs in given]
