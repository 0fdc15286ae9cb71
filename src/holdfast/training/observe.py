"""Evaluation of rows in evaluation mode, with the same code for training sample and validation
rows: with the run's own network, or from the predictions of the networks of folds.

A run that trains on all rows has no validation rows, and its own network cannot judge it. Networks
that were trained in the same way on parts of the rows (folds) predict the remaining rows, at every
evaluation, and together they predict each row once. Those losses replace the validation losses of
the run, so diagnosis, choice and stopping need not know about folds.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.core.decisions import tick
from holdfast.core.records import Floats, Ints
from holdfast.models.compute.prefix import evaluation_mode
from holdfast.training.machine.sharding import gather_objects, is_sharded
from holdfast.training.plan import batches_by_length, shard
from holdfast.training.prefix_cache import PrefixCache, cached_prefix
from holdfast.training.task import Measurements, classify_features, device_batch, features_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.models.base import Network
    from holdfast.training.task import Examples, TrainingTask


# On a CPU a batch that fits its caches is a quarter faster than one four times as large.
EVALUATION_TOKENS = {"cpu": 1024, "mps": 8192, "cuda": 32768}


class Observer:
    """Passes rows through a network in inference mode, longest first, sharded over processes.

    ``tokens`` bounds the padded tokens of a batch, so that evaluation never needs more memory
    than training, which keeps activations for a batch of at least that size; without it, a default
    for the device is used. ``alone`` is for code that one process runs without the others: nothing
    is sharded. ``cache`` holds the outputs of the frozen first layers, for the rows that it was
    filled with. ``rows_passed`` and ``seconds`` are the totals of rows that this process passed
    through the network, and of the time it took.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        task: TrainingTask,
        tokens: int | None = None,
        alone: bool = False,
        cache: PrefixCache | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._rank = 0 if alone else accelerator.process_index
        self._world = 1 if alone else accelerator.num_processes
        self._task = task
        self._cache = cache
        self._features: list[tuple[Any, Floats]] = []
        self.rows_passed, self.seconds = 0, 0.0
        device_type = accelerator.device.type
        self._tokens = tokens or EVALUATION_TOKENS.get(device_type, EVALUATION_TOKENS["cpu"])

    def remember_features(self, examples: Examples, features: Floats) -> None:
        """Until ``forget_features``, let ``measure`` compute results for ``examples`` from these
        ``features`` [all of them, width] and the network's current last layer: a linear probe has
        just passed the rows through the other layers."""
        self._features.append((examples, features))

    def forget_features(self) -> None:
        """Drop the remembered features, since the network is about to change."""
        self._features = []

    def measure(
        self, network: Network, examples: Examples, positions: Ints
    ) -> tuple[Floats, Floats]:
        """Per-example losses [n] and stored outputs [n, …] of these positions, in their order."""
        known = [features for rows, features in self._features if rows is examples]
        if known and len(positions):
            return self._measure_features(network, examples, positions, known[-1])

        def compute(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            output = self._task.forward(network, batch)
            losses = self._task.losses(output, batch)[:, None]
            return torch.cat([losses, self._task.keep(output, batch)], dim=1)

        table = self._collect(network, examples, positions, compute)
        return table[:, 0].astype(np.float64), table[:, 1:]

    def features(self, network: Network, examples: Examples, positions: Ints) -> Floats:
        """The input of a classifier's last layer [n, width], float32, in the order of
        ``positions``."""
        return self._collect(
            network, examples, positions, lambda batch: features_of(network, batch)
        )

    def _measure_features(
        self, network: Network, examples: Any, positions: Ints, features: Floats
    ) -> tuple[Floats, Floats]:
        device = self._accelerator.device
        with evaluation_mode(network), torch.inference_mode():
            output = classify_features(network, torch.from_numpy(features[positions]).to(device))
            batch = {"labels": torch.from_numpy(examples.labels[positions]).to(device)}
            losses, outputs = self._task.losses(output, batch), self._task.keep(output, batch)
        return losses.float().cpu().numpy().astype(np.float64), outputs.float().cpu().numpy()

    def _collect(
        self,
        network: Network,
        examples: Examples,
        positions: Ints,
        compute: Callable[..., torch.Tensor],
    ) -> Floats:
        start, count = time.perf_counter(), len(positions)
        lengths, everything = examples.lengths[positions], np.arange(count)
        positions_here = shard(everything, self._rank, self._world)
        index: list[Ints] = []
        lines: list[torch.Tensor] = []
        device, done = self._accelerator.device, 0
        # Tensors gathered in inference mode could not be gathered again for the next update.
        no_gradients = torch.no_grad if is_sharded(network) else torch.inference_mode
        with evaluation_mode(network), no_gradients(), self._accelerator.autocast():
            for batch_positions in batches_by_length(lengths, positions_here, self._tokens):
                batch = device_batch(self._task, examples, positions[batch_positions], device)
                with cached_prefix(self._cache, examples, positions[batch_positions], batch):
                    # NumPy has no bfloat16.
                    lines.append(compute(batch).float().cpu())
                index.append(batch_positions)
                done += len(batch_positions)
                tick(done, len(positions_here))
            for _ in range(self._spare_passes(network, lengths, len(index))):
                compute(device_batch(self._task, examples, positions[:1], device))
        self.rows_passed += len(positions_here)
        self.seconds += time.perf_counter() - start
        order = np.concatenate(index) if index else np.zeros(0, dtype=np.int64)
        values = torch.cat(lines).numpy() if lines else np.zeros((0, 1), dtype=np.float32)
        parts = gather_objects([(order, values)], self._world)
        # A process without rows does not know the width.
        width = max(part[1].shape[1] for part in parts)
        table = np.zeros((count, width), dtype=np.float32)
        for part_order, part_values in parts:
            if len(part_order):
                table[part_order] = part_values
        return table

    def _spare_passes(self, network: Network, lengths: Ints, passes_here: int) -> int:
        """The additional passes needed here because another process makes more and all must join
        each."""
        if not is_sharded(network):
            return 0
        everything = np.arange(len(lengths))
        shards = (shard(everything, rank, self._world) for rank in range(self._world))
        return (
            max(sum(1 for _ in batches_by_length(lengths, rows, self._tokens)) for rows in shards)
            - passes_here
        )


@dataclass(frozen=True, slots=True, eq=False)
class FoldEvaluation:
    """The predictions of the folds' networks for the rows [n].

    ``steps`` are those of the evaluations of the run that is judged, increasing from 0; ``losses``
    (one [n] per evaluation, in nats) and ``outputs`` (one [n, …] per evaluation) are results of
    ``Observer.measure``. ``probe`` [n, classes] are the logits of the folds' linear probes;
    ``curve`` is what else they measured on the rows. ``inflation`` is how many times as far apart
    their logits are on rows that they learned as on these. ``notes`` are the journal's lines about
    the folds.
    """

    folds: int
    steps: tuple[int, ...]
    losses: tuple[Floats, ...]
    outputs: tuple[Floats, ...]
    probe: Floats
    curve: Any = None
    inflation: float = float("nan")
    notes: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def measurements_at(self, step: int, task: TrainingTask, examples: Examples) -> Measurements:
        """The folds' results for all rows at the last evaluation not after ``step``."""
        return task.measure(*self.outputs_at(step), examples, np.arange(len(examples)))

    def outputs_at(self, step: int) -> tuple[Floats, Floats]:
        """Losses and stored outputs at the last evaluation not after ``step``."""
        place = bisect_right(self.steps, step) - 1
        return self.losses[place], self.outputs[place]


@dataclass(frozen=True, slots=True, eq=False)
class FoldMeasurements:
    """Evaluations of several fits, each on a part of the rows, in place of those of one fit on all
    rows: the measurements of each on its held-out rows, joined.

    ``steps`` are those of the evaluations of the fit on all rows, increasing from 0;
    ``evaluations`` has one item for each. The fit ends at ``ends_at``, for the reason ``because``,
    and keeps its last checkpoint: the rows it trains on judge nothing.
    """

    folds: int
    steps: tuple[int, ...]
    evaluations: tuple[Measurements, ...]
    ends_at: int
    because: str
    curve: Any = None
    probe: None = None
    notes: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def measurements_at(self, step: int, task: TrainingTask, examples: Examples) -> Measurements:
        """The held-out rows, at the last evaluation not after ``step``."""
        return self.evaluations[bisect_right(self.steps, step) - 1]
