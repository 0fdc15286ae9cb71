"""Supervised contrast: pull rows of one class together, push the classes apart (2004.11362).

For unit vectors z and temperature τ, over a batch B, the loss of anchor i with positives
P(i) = {p ∈ B, p ≠ i, y_p = y_i} is

    ℓ_i = − 1/|P(i)| · Σ_{p ∈ P(i)} log( exp(z_i·z_p ÷ τ) ÷ Σ_{a ∈ B, a ≠ i} exp(z_i·z_a ÷ τ) )

which is L_out of the paper. It uses every pair of rows, which is why it learns more from 100
rows than cross-entropy does. Unlike SetFit (2209.11055), which passes pairs one by one, a batch
of n rows gives n·(n − 1) pairs for n forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.core.settings import MOST, setting
from holdfast.core.updates import Draw, ForwardPass, RowPool
from holdfast.methods.registry import METHODS, Method, Parts, RunContext, Stage

if TYPE_CHECKING:
    import torch

USUAL_BATCH, USUAL_CLASSES = 32, 8
# With many classes a batch of 8 rarely contains the two that are confused.
MANY_BATCH, MANY_CLASSES = 64, 32


def contrast(
    features: torch.Tensor, labels: torch.Tensor, temperature: float = 0.1
) -> torch.Tensor:
    """Per-anchor loss [batch], in nats; 0 for an anchor without a positive in the batch.

    ``features`` [batch, width] of any length (they are normalized here), ``labels`` [batch].
    ``temperature`` above 0; 0.05 to 0.3 are usual.
    """
    import torch

    unit = torch.nn.functional.normalize(features.float(), dim=1)
    similarity = unit @ unit.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positives = (labels[:, None] == labels[None, :]) & ~itself
    # Mask the row itself only in the sum: −∞ · 0 would be NaN below.
    log_share = similarity - torch.logsumexp(
        similarity.masked_fill(itself, float("-inf")), dim=1, keepdim=True
    )
    count = positives.sum(dim=1)
    return -(log_share * positives).sum(dim=1) / count.clamp(min=1)


@dataclass(frozen=True, slots=True)
class ContrastTerm:
    """The loss term that replaces the losses of an update by their contrastive loss."""

    temperature: float = 0.1
    name: ClassVar[str] = "contrast"
    compares_rows: ClassVar[bool] = True

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        return contrast(passed.output.features, passed.batch["labels"], self.temperature)


@dataclass(frozen=True, slots=True)
class ClassBatches:
    """Several rows of several classes in each update, at most ``classes`` of them. There are no
    epochs, since updates do not wait for each row to occur again."""

    classes: int = 8
    name: ClassVar[str] = "classes"
    has_epochs: ClassVar[bool] = False

    def steps_per_epoch(self, pool: RowPool) -> int:
        return pool.steps_per_pass

    def draw(self, pool: RowPool, step: int) -> Draw:
        assert pool.labels is not None
        return Draw(class_batch(pool.labels, pool.batch, self.classes, pool.seed, step))


def class_batch(labels: Ints, batch: int, most_classes: int, seed: int, step: int) -> Ints:
    """A batch for contrast: up to ``most_classes`` classes, as many rows of each as fit.

    Classes are drawn without replacement, in proportion to the square root of their size; at
    least two where there are two. Rows are drawn without replacement within a class; a class with
    fewer rows than its places gives all it has, and the rest is filled from the others.
    """
    rng = generator(seed, "contrast", step)
    present, sizes = np.unique(labels, return_counts=True)
    weight = np.sqrt(sizes)
    # At least two rows of each class: a single one has no positive.
    count = min(len(present), most_classes, max(2, batch // 2))
    chosen_classes = rng.choice(len(present), size=count, replace=False, p=weight / weight.sum())
    pools = [rng.permutation(np.flatnonzero(labels == present[c])) for c in chosen_classes]
    rows = [pool[: batch // count] for pool in pools]
    rest = np.concatenate([pool[batch // count :] for pool in pools])
    missing = batch - sum(len(part) for part in rows)
    return np.concatenate([*rows, rng.permutation(rest)[:missing]])


@dataclass(frozen=True, slots=True)
class Contrast:
    """A stage before the fine-tuning that trains the features, while the head is refitted to them
    at each evaluation. Fewer than four rows do not contain two of two classes."""

    steps: int = setting(50, above=0)
    learning_rate: float = setting(None, above=0)
    batch_size: int = setting(None, least=4, whole=True)
    temperature: float = setting(0.1, above=0)
    classes: int = setting(None, least=1, whole=True)


def _run_defaults(known: RunContext) -> dict[str, Any]:
    """Its learning rate is half the fine-tuning's, as measured. From 32 classes on a batch has 64
    rows of 32 of them; data sets such as TREC keep their batches."""
    many = known.classes >= MANY_CLASSES
    batch = MANY_BATCH if many else USUAL_BATCH
    return {
        "learning_rate": min(known.learning_rate / 2, MOST),
        "batch_size": min(batch, known.train_rows),
        "classes": MANY_CLASSES if many else USUAL_CLASSES,
    }


def _parts(settings: Contrast) -> Parts:
    stage = Stage(
        "contrast",
        settings.steps,
        settings.batch_size,
        settings.learning_rate,
        ClassBatches(settings.classes),
        (ContrastTerm(settings.temperature),),
        head="refit",
    )
    return Parts(stages=(stage,))


METHODS.add("contrast", Method(Contrast, _parts, _run_defaults, needs_classes=True))
