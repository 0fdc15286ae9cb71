"""Which trials nobody beats in everything: score, time of an answer, size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from holdfast.search.bench import Bench

TIMED, WARM, ROUNDS = 16, 4, 3
# Times that differ by less are one: a clock on a machine in use tells no more.
ALIKE = 1.2


@dataclass(frozen=True, slots=True)
class Footing:
    """What a form of the model costs where it is used: ``latency_ms`` a row, one at a time, on
    this machine; ``parameters``; ``size_mb`` as float32."""

    latency_ms: float
    parameters: int

    @property
    def size_mb(self) -> float:
        return self.parameters * 4 / 1e6


def footing(bench: Bench, settings: Mapping[str, object]) -> Footing:
    """Measured on the network as these settings prepare it, on its middle rows: the fastest of
    three rounds, since a machine is disturbed upwards alone. How a fit trains changes neither."""
    import time

    import torch

    from holdfast.models.fresh import fresh
    from holdfast.models.layers import count_parameters
    from holdfast.training.machine.machine import use_threads

    prepared = bench.prepared(settings)
    use_threads(prepared.machine.threads)
    network = fresh(prepared.loaded.network).eval()
    task = prepared.kind.make_task(prepared.loaded, prepared.rows, prepared.recipe, None)
    order = np.argsort(np.asarray(prepared.examples.lengths), kind="stable")
    middle = max(0, len(order) // 2 - TIMED // 2)
    rows = order[middle : middle + TIMED]
    examples = prepared.kind.side(prepared.examples, prepared.loaded, prepared.rows)
    batches = [task.collate(examples, np.array([row])) for row in rows]
    best = float("inf")
    with torch.inference_mode():
        for batch in batches[:WARM]:
            task.forward(network, batch)
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for batch in batches:
                task.forward(network, batch)
            best = min(best, (time.perf_counter() - start) / len(batches))
    total, _ = count_parameters(network)
    return Footing(1000 * best, total)


def front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The places of those points of which none is at least as good in everything and better in
    something; of each coordinate less is better. Of equal points the first."""
    kept = []
    for place, point in enumerate(points):
        beaten = any(
            all(a <= b for a, b in zip(other, point, strict=True))
            and (any(a < b for a, b in zip(other, point, strict=True)) or i < place)
            for i, other in enumerate(points)
            if i != place
        )
        if not beaten:
            kept.append(place)
    return kept


def alike(times: Sequence[float]) -> list[float]:
    """Times as far as a clock tells them apart: of those within a fifth of one another each is the
    least."""
    least: list[float] = []
    for time in sorted(times):
        if not least or time > ALIKE * least[-1]:
            least.append(time)
    return [max(one for one in least if one <= time) for time in times]
