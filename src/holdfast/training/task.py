"""What the loop asks of a task; the loop itself has no branch on the kind of task."""

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
    """Encoded rows: their source positions, and how long each is in the unit that costs time
    (tokens, patches), both [n].

    A row of the table gives one example; none where nothing of it can be learned; several where
    it is a long text that is read in parts. Examples stand in the order of their rows.
    """

    @property
    def rows(self) -> Ints: ...

    @property
    def lengths(self) -> Ints: ...

    def __len__(self) -> int: ...

    def take(self, positions: Ints) -> Self:
        """What encoding the rows at these positions of the table, in this order, would give."""


@runtime_checkable
class LabelledExamples(Examples, Protocol):
    """Examples with a label each, ``labels`` [n, …] in the form that the loop learns."""

    @property
    def labels(self) -> npt.NDArray[Any]: ...


@runtime_checkable
class GrowingExamples(Examples, Protocol):
    """Examples that others can be learned beside."""

    def extended(self, others: Self, weights: Floats) -> Self:
        """These, each of weight 1, and after them ``others`` [m] of ``weights`` [m]."""


@runtime_checkable
class ExtendableExamples(LabelledExamples, GrowingExamples, Protocol):
    """The same of rows that have a label each, which may be another."""

    def relabelled(self, labels: Floats | Ints) -> Self:
        """The same with other labels [n, …]."""


def labels_of(examples: Examples) -> npt.NDArray[Any]:
    """The labels of a task's examples, where it has some."""
    assert isinstance(examples, LabelledExamples)
    return examples.labels


@dataclass(frozen=True, slots=True)
class Measurements:
    """One set of rows, measured in evaluation mode. ``losses`` [n] in nats, each over so many
    ``tokens`` [n] where a row's loss is a mean, of which so many were ``right`` [n]; ``metrics``
    plain numbers; ``refined_loss`` the mean loss after ``temperature``, the plain mean loss where a
    task has no temperature."""

    losses: Floats
    metrics: dict[str, float]
    refined_loss: float
    temperature: float
    correct: npt.NDArray[Any] | None = None
    logits: Floats | None = None
    tokens: Ints | None = None
    right: Floats | None = None


def snapshot_fields(train: Measurements, valid: Measurements) -> dict[str, Any]:
    """The fields of a ``Snapshot`` that come of its train probe and its validation rows."""
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
    """What a model wrote for a fixed sample of two sets of rows, ``train`` and ``valid``: numbers
    by metric, and the shares of texts that copy, repeat or say nothing."""

    metrics: dict[str, dict[str, float]]
    shares: dict[str, dict[str, float]]


class TrainingTask(Protocol):
    """Rows to batches, model output to per-example losses, outputs to numbers."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the outputs, in their order, where they have names."""

    def collate(self, examples: Any, positions: Sequence[int] | Ints) -> Batch:
        """A padded batch of these rows: the model's inputs and what the losses need."""

    def forward(self, network: Network, batch: Batch) -> Any:
        """The network's output for a batch, in its present mode."""

    def losses(self, output: Any, batch: Batch) -> torch.Tensor:
        """Per-example losses [batch] of a training or evaluation batch, float32, in nats."""

    def weights(self, examples: Any, positions: Sequence[int] | Ints) -> Floats:
        """How much each of these rows weighs in the training loss [n]: 1, or its target tokens.

        The training loss of an update is Σ weight · loss ÷ Σ weight over all its rows.
        """

    def join(self, outputs: Sequence[Any], batches: Sequence[Batch]) -> tuple[Any, Batch]:
        """One output and batch from those of several parts, for a loss that compares rows."""

    def keep(self, output: Any, batch: Batch) -> torch.Tensor:
        """What to keep of an evaluation batch, one line per example [batch, …]."""

    def measure(
        self, losses: Floats, outputs: Floats, examples: Any, positions: Sequence[int] | Ints
    ) -> Measurements:
        """Losses and kept outputs of these rows, in their order, to numbers."""


def device_batch(
    task: TrainingTask, examples: Any, positions: Sequence[int] | Ints, device: torch.device | str
) -> Batch:
    """A padded batch of these rows on ``device``."""
    return {name: value.to(device) for name, value in task.collate(examples, positions).items()}


def row_means(each: torch.Tensor, counts: torch.Tensor | None) -> torch.Tensor:
    """The mean of each row [batch] of the values of all target tokens, of which a row has so many
    as ``counts`` [batch] says; ``each`` itself where it has one value a row."""
    import torch

    return each if counts is None else torch.segment_reduce(each, "mean", lengths=counts)


# What a batch holds for the losses, not for the network.
TARGETS = ("labels", "partners", "shares")


@dataclass(frozen=True, slots=True)
class ClassifierOutput:
    """What the network says of a batch: ``logits`` [batch, classes], and the ``features``
    [batch, width] that its last layer reads."""

    logits: torch.Tensor
    features: torch.Tensor


def features_of(network: Any, batch: Batch) -> torch.Tensor:
    """What the last layer reads, [batch, width], float32."""
    inputs = {name: value for name, value in batch.items() if name not in TARGETS}
    features: torch.Tensor = network.features(**inputs)
    return features.float()


def classify(network: Any, batch: Batch) -> ClassifierOutput:
    """Logits and features of a batch, in the network's present mode.

    The last layer is computed in float32 whatever the precision: it costs nothing, and bfloat16
    logits have three digits.
    """
    return classify_features(network, features_of(network, batch))


def classify_features(network: Any, features: torch.Tensor) -> ClassifierOutput:
    """Logits of rows whose ``features`` [batch, width] are known already."""
    import torch

    # Autocast would compute the last layer in bfloat16 too.
    with torch.autocast(features.device.type, enabled=False):
        logits = network.head(network.dropout(features))
    return ClassifierOutput(logits, features)


def losses_by_row(losses: Floats, tokens: Ints, rows: Ints) -> tuple[Floats, Ints]:
    """Mean losses and tokens of rows [R], in ascending order, from those of their parts [n], which
    a long text has several of; ``rows`` [n] says whose part each is."""
    _, row_codes = np.unique(rows, return_inverse=True)
    row_tokens = np.bincount(row_codes, weights=tokens)
    row_losses = np.bincount(row_codes, weights=losses * tokens)
    return row_losses / np.maximum(row_tokens, 1), row_tokens.astype(np.int64)
