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

if TYPE_CHECKING:
    from holdfast.contract.fit import PreparedData
    from holdfast.models.base import Network
    from holdfast.search.bench import Bench

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
    recipe = bench.recipe
    adapter = recipe.model.adapter
    if adapter.kind is not None and not adapter.merge:
        return _ranks(bench)
    loaded = bench.prepared({}).loaded
    there = depth_of(loaded.network)
    if there < 2:
        raise RecipeError(
            "search=capacity",
            "tries smaller models, and this one has a single block",
            there,
            "Name a deeper model.",
        )
    whole = Size("whole", f"all {there} blocks", {}, there)
    depths = _depths(there)
    sizes = [
        Size(f"first-{d}", f"{d} of {there} blocks", {LAYERS: d, KEPT: "first"}, d) for d in depths
    ]
    half = there // 2
    if half > 1:
        spread = Size(
            f"spread-{half}",
            f"{half} of {there} blocks, spread",
            {LAYERS: half, KEPT: "spread"},
            half,
        )
        sizes.insert(next(i for i, s in enumerate(sizes) if s.blocks == half) + 1, spread)
    return (whole, *sizes)


def _depths(there: int) -> list[int]:
    if there <= FEW_BLOCKS:
        return list(range(there - 1, 0, -1))
    found = {max(1, round(share * there)) for share in SHARES} - {there}
    return sorted(found, reverse=True)


def _ranks(bench: Bench) -> tuple[Size, ...]:
    loaded = bench.prepared({}).loaded
    adapter = loaded.network.adapter
    assert adapter is not None
    rank = adapter.spec.rank
    if rank is None or rank < 2:
        raise RecipeError(
            "search=capacity",
            f"has no smaller form of model.adapter.kind={adapter.spec.kind} to try",
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

    found: dict[str, tuple[int, int]] = {}
    for size in sizes:
        found[size.key] = count_parameters(bench.prepared(size.settings).loaded.network)
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
        passes[size.key] = _passes(prepared, _plain(prepared.loaded.network))
    best = {key: np.full(TIMED, np.inf) for key in passes}
    with torch.inference_mode():
        for _, place, key in itertools.product(range(ROUNDS), range(TIMED), passes):
            start = time.perf_counter()
            passes[key][place]()
            best[key][place] = min(best[key][place], time.perf_counter() - start)
    return {key: float(seconds.mean()) for key, seconds in best.items()}


def _plain(network: Network) -> Any:
    """What answers once the network is saved."""
    from holdfast.models.encoders.network import EncoderClassifier, plain_model

    if isinstance(network, EncoderClassifier) and network.adapter is None:
        return plain_model(network).eval()
    return network


def _passes(prepared: PreparedData, plain: Any) -> list[Callable[[], object]]:
    """A pass of each of ``TIMED`` rows through ``plain``, which may be the network itself."""
    network: Any = prepared.loaded.network
    task = prepared.kind.make_task(prepared.loaded, prepared.rows, prepared.recipe, None)
    examples = prepared.kind.side(prepared.examples, prepared.loaded, prepared.rows)
    order = np.argsort(np.asarray(examples.lengths), kind="stable")
    middle = max(0, len(order) // 2 - TIMED // 2)
    rows = np.resize(order[middle : middle + TIMED], TIMED)
    batches = [task.collate(examples, np.array([row])) for row in rows]
    if plain is network:
        return [partial(task.forward, network.eval(), batch) for batch in batches]
    given = [{k: v for k, v in batch.items() if k in network.accepts} for batch in batches]
    return [partial(plain, **inputs) for inputs in given]
