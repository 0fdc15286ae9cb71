"""Rows measured in evaluation mode, by one code for the train probe and for validation: through the
run's own network, or as the networks of folds answered them.

A run that learns from all rows spares none for validation, and cannot be judged by its own network.
Networks that were trained in the same way on parts of the rows (folds) answer the rest, look by
look, and together they answer each row once: those losses stand where a run's validation losses
stand, so that what diagnoses, chooses and stops needs to know nothing of folds.
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


# On a processor a batch that stays in its caches is a quarter faster than one four times as large.
EVALUATION_TOKENS = {"cpu": 1024, "mps": 8192, "cuda": 32768}


class Observer:
    """Runs rows through a network in inference mode, longest first, sharded over processes.

    ``tokens`` bounds the padded tokens of a batch, so that evaluation never needs more memory
    than training, which keeps activations for a batch of at least that size; without it, what
    suits the device. ``alone`` is for code
    that one process runs without the others: nothing is sharded. ``cache`` holds the outputs of
    the frozen first layers, for the rows that it was filled with. ``rows_passed`` and ``seconds``
    add up what this process passed through the network, and how long that took.
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
        """Until ``forget_features``, ``measure`` reads what it is asked of ``examples`` off these
        ``features`` [all of them, width] and the network's last layer as it then is: a probe has
        just passed the rows through the rest."""
        self._features.append((examples, features))

    def forget_features(self) -> None:
        """The network is about to change."""
        self._features = []

    def measure(
        self, network: Network, examples: Examples, positions: Ints
    ) -> tuple[Floats, Floats]:
        """Per-example losses [n] and kept outputs [n, …] of these positions, in their order."""
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
        """What a classifier's last layer reads [n, width], float32, in the order of
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
        # What is gathered in inference mode could not be gathered anew for the next update.
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
        # A process that has no rows does not know the width.
        width = max(part[1].shape[1] for part in parts)
        table = np.zeros((count, width), dtype=np.float32)
        for part_order, part_values in parts:
            if len(part_order):
                table[part_order] = part_values
        return table

    def _spare_passes(self, network: Network, lengths: Ints, passes_here: int) -> int:
        """How many passes more another process makes, where each pass is made by all."""
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
    """The rows [n] as the folds' networks answered them.

    ``steps`` are those of the looks of the run that is judged, rising from 0; ``losses`` (one [n] a
    look, in nats) and ``outputs`` (one [n, …] a look) are what ``Observer.measure`` gives.
    ``probe`` [n, classes] are the logits of the folds' linear probes; ``curve`` what they say of
    the rows beside that. ``notes`` are the journal's lines about the folds.
    """

    folds: int
    steps: tuple[int, ...]
    losses: tuple[Floats, ...]
    outputs: tuple[Floats, ...]
    probe: Floats
    curve: Any = None
    notes: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def measurements_at(self, step: int, task: TrainingTask, examples: Examples) -> Measurements:
        """All rows as the folds answered them at the last look that is not after ``step``."""
        return task.measure(*self.outputs_at(step), examples, np.arange(len(examples)))

    def outputs_at(self, step: int) -> tuple[Floats, Floats]:
        """Losses and kept outputs at the last look that is not after ``step``."""
        place = bisect_right(self.steps, step) - 1
        return self.losses[place], self.outputs[place]


@dataclass(frozen=True, slots=True, eq=False)
class FoldMeasurements:
    """Looks of whole fits, each on a part of the rows, in the place of those of one fit on all of
    them: what each measured of the rows that it was judged by, joined.

    ``steps`` are those of the looks of the fit on all rows, rising from 0; ``evaluations`` one
    each. The fit ends at ``ends_at``, ``because`` says why, and keeps its last state: what it
    learns from judges nothing.
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
        """The rows that judge, at the last look that is not after ``step``."""
        return self.evaluations[bisect_right(self.steps, step) - 1]
