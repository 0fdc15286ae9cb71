"""What the loop needs from a task; the loop itself has no branch on the kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import Network


Batch = dict[str, "torch.Tensor"]


class Examples(Protocol):
    """Encoded rows: their source positions, and their lengths in the unit that determines the time
    (tokens, patches), both [n].

    A row of the table gives one example; none where it contains nothing to learn; several where it
    is a long text that is split into parts. Examples are in the order of their rows.
    """

    @property
    def rows(self) -> Ints: ...

    @property
    def lengths(self) -> Ints: ...

    def __len__(self) -> int: ...

    def take(self, positions: Ints) -> Self:
        """The same as encoding the rows at these positions of the table, in this order."""


@runtime_checkable
class LabelledExamples(Examples, Protocol):
    """Examples with a label each, ``labels`` [n, …] in the form used in training."""

    @property
    def labels(self) -> npt.NDArray[Any]: ...


@runtime_checkable
class GrowingExamples(Examples, Protocol):
    """Examples to which others can be added for training."""

    def extended(self, others: Self, weights: Floats) -> Self:
        """These, each of weight 1, and after them ``others`` [m] of ``weights`` [m]."""


def labels_of(examples: Examples) -> npt.NDArray[Any]:
    """The labels of a task's examples, where it has some."""
    assert isinstance(examples, LabelledExamples)
    return examples.labels


@dataclass(frozen=True, slots=True)
class Measurements:
    """One set of rows, measured in evaluation mode. ``losses`` [n] are in nats. Where a row's loss
    is a mean over tokens, ``tokens`` [n] is their number, and ``right`` [n] how many of them were
    correct. ``metrics`` are plain numbers. ``refined_loss`` is the mean loss after temperature
    scaling with ``temperature``, or the plain mean loss where a task has no temperature."""

    losses: Floats
    metrics: dict[str, float]
    refined_loss: float
    temperature: float
    correct: npt.NDArray[Any] | None = None
    logits: Floats | None = None
    tokens: Ints | None = None
    right: Floats | None = None


def snapshot_fields(train: Measurements, valid: Measurements) -> dict[str, Any]:
    """The fields of a ``Snapshot`` from its training sample and its validation rows."""
    measurements = {"train": train, "valid": valid}
    names = ("losses", "metrics", "correct", "tokens", "right")
    return {
        **{
            f"{split}_{name}": getattr(measured, name)
            for split, measured in measurements.items()
            for name in names
        },
        "refined_loss": valid.refined_loss,
        "temperature": valid.temperature,
        "valid_logits": valid.logits,
    }


@dataclass(frozen=True, slots=True)
class GenerationMeasurements:
    """Measurements of generated text for a fixed sample of two sets of rows, ``train`` and
    ``valid``: numbers by metric, and the shares of outputs that copy, repeat or are empty."""

    metrics: dict[str, dict[str, float]]
    shares: dict[str, dict[str, float]]


class TrainingTask(Protocol):
    """Turns rows into batches, model output into per-example losses, outputs into numbers."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the outputs, in their order, where they have names."""

    def collate(self, examples: Any, positions: Sequence[int] | Ints) -> Batch:
        """A padded batch of these rows: the model's inputs and what the losses need."""

    def forward(self, network: Network, batch: Batch) -> Any:
        """The network's output for a batch, in its current mode."""

    def losses(self, output: Any, batch: Batch) -> torch.Tensor:
        """Per-example losses [batch] of a training or evaluation batch, float32, in nats."""

    def weights(self, examples: Any, positions: Sequence[int] | Ints) -> Floats:
        """The weight of each of these rows in the training loss [n]: 1, or its number of target
        tokens.

        The training loss of an update is Σ weight · loss ÷ Σ weight over all its rows.
        """

    def join(self, outputs: Sequence[Any], batches: Sequence[Batch]) -> tuple[Any, Batch]:
        """One output and batch from those of several parts, for a loss that compares rows."""

    def keep(self, output: Any, batch: Batch) -> torch.Tensor:
        """The part of an evaluation batch's output to store, one item per example [batch, …]."""

    def measure(
        self, losses: Floats, outputs: Floats, examples: Any, positions: Sequence[int] | Ints
    ) -> Measurements:
        """Compute metrics from the losses and stored outputs of these rows, in their order."""


def device_batch(
    task: TrainingTask, examples: Any, positions: Sequence[int] | Ints, device: torch.device | str
) -> Batch:
    """A padded batch of these rows on ``device``."""
    return {name: value.to(device) for name, value in task.collate(examples, positions).items()}


def row_means(each: torch.Tensor, counts: torch.Tensor | None) -> torch.Tensor:
    """The mean of each row [batch] of the values of all target tokens, where ``counts`` [batch] is
    the number of tokens of a row; ``each`` itself where it has one value per row. The order of the
    sum is fixed on every device."""
    import torch

    return each if counts is None else torch.segment_reduce(each, "mean", lengths=counts)


# Items of a batch for the losses, not for the network.
TARGETS = ("labels", "partners", "shares")


@dataclass(frozen=True, slots=True)
class ClassifierOutput:
    """The network's output for a batch: ``logits`` [batch, classes], and the ``features``
    [batch, width] that are the input of its last layer."""

    logits: torch.Tensor
    features: torch.Tensor


def features_of(network: Any, batch: Batch) -> torch.Tensor:
    """The input of the last layer, [batch, width], float32."""
    inputs = {name: value for name, value in batch.items() if name not in TARGETS}
    features: torch.Tensor = network.features(**inputs)
    return features.float()


def classify(network: Any, batch: Batch) -> ClassifierOutput:
    """Logits and features of a batch, in the network's current mode.

    The last layer is computed in float32 whatever the precision: this costs nothing, and bfloat16
    logits have only three digits.
    """
    return classify_features(network, features_of(network, batch))


def classify_features(network: Any, features: torch.Tensor) -> ClassifierOutput:
    """Logits of rows whose ``features`` [batch, width] are already known."""
    import torch

    # Autocast would also compute the last layer in bfloat16.
    with torch.autocast(features.device.type, enabled=False):
        logits = network.head(network.dropout(features))
    return ClassifierOutput(logits, features)


def losses_by_row(losses: Floats, tokens: Ints, rows: Ints) -> tuple[Floats, Ints]:
    """Mean losses and tokens of rows [R], in ascending order, from those of their parts [n], since
    a long text has several; ``rows`` [n] gives the row of each part."""
    _, row_codes = np.unique(rows, return_inverse=True)
    row_tokens = np.bincount(row_codes, weights=tokens)
    row_losses = np.bincount(row_codes, weights=losses * tokens)
    return row_losses / np.maximum(row_tokens, 1), row_tokens.astype(np.int64)
