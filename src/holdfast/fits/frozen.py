"""Choose the layers to train (``model.freeze``). ``auto`` measures training rows before the first
step: the task's gradient at each layer, and how well a linear probe predicts from its output.

    relative gradient of a layer:  ‖∂L/∂w‖ ÷ ‖w‖  over all its weights (2210.11466, Auto-RGN)

The paper scales the learning rate of layers by this ratio. It finds that layers with a small
gradient are better left unchanged where the data differ little from the pretraining data. Frozen
from the bottom, they also save gradients and the backward pass. Values are compared within one
network only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.wording import percent_phrase
from holdfast.models.base import Layer, Network
from holdfast.models.layer_outputs import below_head, capture_outputs, pooled
from holdfast.models.layers import SETTING as FREEZE
from holdfast.models.layers import count_parameters, freeze
from holdfast.models.probes.probe import Probe, fit_probe
from holdfast.training.plan import probe_positions
from holdfast.training.restore import random_state, set_random_state
from holdfast.training.task import Examples, TrainingTask, features_of

AUTO = "auto"
ROWS, BATCH = 256, 16
EVIDENCE = "layers by evidence"


def freeze_part(network: Network, part: int | float | str | None) -> None:
    """Freeze as the recipe says: ``words`` is the word-embedding table, ``none`` nothing."""
    if part not in ("words", "none"):
        decision = freeze(network, part)
        if decision:
            notify(decision)
        return
    freeze(network, None)
    if part == "none":
        return
    network.word_embeddings.weight.requires_grad_(False)
    total, trainable = count_parameters(network)
    because = (
        f"the word-embedding table stays as pretrained: {trainable:,} of {total:,} parameters "
        "are trained (model.freeze=none trains all)"
    )
    notify(Decision("frozen layers", "words", because))


def choose_layers(
    network: Network, task: TrainingTask, train: Examples, seed: int, usual: str
) -> str:
    """The value for ``model.freeze``; logs a decision for the choice and one per layer.

    Up to 256 training rows are passed. A head is fitted to half of them, and the loss of the other
    half gives the gradients, since the head has not seen these rows. A head that cannot be fitted
    is used as it is. For rows with one class, a linear probe on the output of each layer is also
    cross-validated. The network is not changed. ``usual`` is the value where no layer is to be
    frozen by the rule. Raises ``RecipeError`` for a network with an adapter.
    """
    if network.adapter is not None:
        rule = "chooses among the model's own layers, but an adapter is trained in their place"
        raise RecipeError(FREEZE, rule, AUTO, "Remove model.freeze.")
    freeze(network, None)
    state, was_training = random_state(), network.training
    network.eval()
    rows = probe_positions(train.rows, ROWS, seed)
    rows = np.random.default_rng(seed).permutation(rows)
    try:
        layers = _measure_layers(network, task, train, rows, seed)
    finally:
        clear_gradients(network)
        network.train(was_training)
        set_random_state(state)
    return _choose(layers, count_frozen(layers), len(rows), usual)


def _measure_layers(
    network: Network, task: TrainingTask, train: Examples, rows: Ints, seed: int
) -> list[LayerEvidence]:
    head: Any = network.head
    original = {name: p.data for name, p in head.named_parameters()}
    classes = _classes(network, task, train)
    probes = _probes(network, task, train, rows, classes, seed) if classes else {}
    half = rows[len(rows) // 2 :] if classes else rows
    # Separate memory with the same values: a fit shares its weights with the loaded network.
    for name, value in _head_from_probe(probes, original).items():
        head.get_parameter(name).data = value
    try:
        gradients = _gradients(network, task, train, half)
    finally:
        for name, value in original.items():
            head.get_parameter(name).data = value
    layers = []
    for name, gradient in gradients.items():
        probe = probes.get(name)
        loss = min((loss for _, loss in probe.losses), default=None) if probe else None
        layers.append(LayerEvidence(name, gradient, loss, _probe_accuracy(probe, train, rows)))
    return layers


def _classes(network: Network, task: TrainingTask, train: Examples) -> int:
    """The number of classes of a row with one class; 0 where no probe can be fitted."""
    labels = getattr(train, "labels", None)
    is_class_index = (
        isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu"
    )
    return len(task.classes) if is_class_index and hasattr(network, "features") else 0


def _probes(
    network: Network, task: TrainingTask, train: Any, rows: Ints, classes: int, seed: int
) -> dict[str, Probe]:
    """A linear probe on the output of each layer for all rows; under ``head`` one fitted to the
    first half of the rows, on the input of the head."""
    features: dict[str, list[Floats]] = {}
    with capture_outputs(below_head(network)) as outputs, torch.no_grad():
        for batch in _batches(task, train, rows):
            features.setdefault("head", []).append(features_of(network, batch).numpy())
            mask = batch.get("attention_mask")
            for name, states in outputs().items():
                features.setdefault(name, []).append(pooled(states, mask).numpy())
    labels, half = np.asarray(train.labels)[rows], len(rows) // 2
    probes = {}
    for name, parts in features.items():
        table, targets = np.concatenate(parts), labels
        if name == "head":
            table, targets = table[:half], labels[:half]
        probes[name] = fit_probe(table, targets, classes=classes, seed=seed)
    return probes


def _head_from_probe(
    probes: dict[str, Probe], original: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """The head's parameters from a probe, where it is a plain linear layer."""
    probe = probes.get("head")
    if probe is None or {n: tuple(t.shape) for n, t in original.items()} != {
        "weight": probe.weight.shape,
        "bias": probe.bias.shape,
    }:
        return {}
    values = {"weight": probe.weight, "bias": probe.bias}
    return {n: torch.as_tensor(v, dtype=torch.float32) for n, v in values.items()}


def _gradients(
    network: Network, task: TrainingTask, train: Examples, rows: Ints
) -> dict[str, float]:
    """The relative gradient of each layer below the head, for the mean loss over these rows."""
    clear_gradients(network)
    for batch in _batches(task, train, rows):
        losses = task.losses(task.forward(network, batch), batch)
        loss: Any = losses.sum() / len(rows)
        loss.backward()
    return {layer.name: relative_gradient(layer) for layer in below_head(network)}


def _batches(task: TrainingTask, train: Examples, rows: Ints) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), BATCH):
        yield task.collate(train, rows[start : start + BATCH])


def _probe_accuracy(probe: Probe | None, train: Any, rows: Ints) -> float | None:
    if probe is None or probe.held_out is None:
        return None
    scored = np.isfinite(probe.held_out).all(axis=1)
    labels = np.asarray(train.labels)[rows][scored]
    return float((probe.held_out[scored].argmax(axis=1) == labels).mean()) if scored.any() else None


def _choose(layers: Sequence[LayerEvidence], count: int, rows: int, usual: str) -> str:
    names = ",".join(one.name for one in layers[:count]) or usual
    largest = max(one.gradient for one in layers)
    rule = (
        f"relative gradient below {percent_phrase(LITTLE_GRADIENT)} of the largest one, for each "
        "layer "
        "from the bottom up"
    )
    because = f"{rule}; {rows} training rows" if count else f"no layers with a {rule}"
    notify(Decision(FREEZE, names, because, prominent=True))
    for place, one in enumerate(layers):
        probe = ""
        if one.loss is not None:
            accuracy = (
                f", accuracy {percent_phrase(one.accuracy)}" if one.accuracy is not None else ""
            )
            probe = f"; out of fold, a linear probe has log loss {one.loss:.3f}{accuracy}"
        gradient_text = (
            f"relative gradient {one.gradient:.2e}, "
            f"{percent_phrase(one.gradient / largest)} of the largest"
        )
        state = "stays" if place < count else "learns"
        notify(
            Decision(EVIDENCE, f"{one.name}: {state}", f"{gradient_text}{probe}", prominent=True)
        )
    return names


# A layer stays frozen below this share of the largest relative gradient of a block.
LITTLE_GRADIENT = 0.5


@dataclass(frozen=True, slots=True)
class LayerEvidence:
    """One layer: its ``name``, its relative ``gradient``, and for a linear probe on its output, out
    of fold, the log ``loss`` in nats and the ``accuracy``; ``None`` where rows have no single
    class."""

    name: str
    gradient: float
    loss: float | None = None
    accuracy: float | None = None


def relative_gradient(layer: Layer) -> float:
    """‖g‖ ÷ ‖w‖ over those parameters of a layer that have a gradient; 0 where none has."""
    pairs = [(p.grad, p) for p in layer.parameters() if p.grad is not None]
    if not pairs:
        return 0.0
    gradient = math.sqrt(sum(float(g.double().square().sum()) for g, _ in pairs))
    size = math.sqrt(sum(float(p.detach().double().square().sum()) for _, p in pairs))
    return gradient / size if size else 0.0


def count_frozen(layers: Sequence[LayerEvidence]) -> int:
    """How many of the layers below the head, in their order, to freeze.

    From the bottom up, as long as the relative gradient of a layer is less than half of the
    largest; at most half of the layers, since the first gradient does not predict later ones.
    """
    largest = max((one.gradient for one in layers), default=0.0)
    count = 0
    for one in layers[: len(layers) // 2]:
        if not one.gradient < LITTLE_GRADIENT * largest:
            break
        count += 1
    return count


def clear_gradients(network: Network) -> None:
    """Remove all gradients of the network."""
    for parameter in network.parameters():
        parameter.grad = None
