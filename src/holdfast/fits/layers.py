"""``model.freeze=auto``: which layers learn, by what training rows say before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.models.base import Network
from holdfast.models.layers import SETTING, freeze
from holdfast.models.probes.layer_evidence import (
    LITTLE,
    LayerSeen,
    below_head,
    clear,
    left_alone,
    outputs_of,
    pooled,
    relative_gradient,
)
from holdfast.models.probes.probe import Probe, fit_probe
from holdfast.training.batches import probe_positions
from holdfast.training.restore import random_state, set_random_state
from holdfast.training.task import Examples, Task, features_of

if TYPE_CHECKING:
    import torch


AUTO = "auto"
ROWS, BATCH = 256, 16
WHAT = "layers by evidence"


def choose_layers(
    network: Network, task: Task, train: Examples, seed: int, usual: str
) -> tuple[str, tuple[Decision, ...]]:
    """What ``model.freeze`` is then, and why: a line for the choice and one a layer.

    Up to 256 training rows are passed. A head is fitted to half of them, and the loss of the other
    half gives the gradients: those of rows that the head has not seen. A head that cannot be fitted
    is taken as it is. Of rows with a class a probe on what each layer gives is cross-validated
    beside. Nothing of the network is changed. ``usual`` is what stays frozen where no layer is left
    alone. Raises ``RecipeError`` for a network with an adapter.
    """
    if network.adapter is not None:
        raise RecipeError(
            SETTING,
            "chooses among the model's own layers, and an adapter learns in their place",
            AUTO,
            "Leave model.freeze out.",
        )
    freeze(network, None)
    state, mode = random_state(), network.training
    network.eval()
    rows = probe_positions(train.rows, ROWS, seed)
    rows = np.random.default_rng(seed).permutation(rows)
    try:
        seen = _seen(network, task, train, rows, seed)
    finally:
        clear(network)
        network.train(mode)
        set_random_state(state)
    return _told(seen, left_alone(seen), len(rows), usual)


def _seen(network: Network, task: Task, train: Examples, rows: Ints, seed: int) -> list[LayerSeen]:
    head: Any = network.head
    before = {name: p.data for name, p in head.named_parameters()}
    classes = _classes(network, task, train)
    found = _probes(network, task, train, rows, classes, seed) if classes else {}
    half = rows[len(rows) // 2 :] if classes else rows
    # Other memory, not other values: a fit shares its weights with what was loaded.
    for name, value in _fitted(found, before).items():
        head.get_parameter(name).data = value
    try:
        gradients = _gradients(network, task, train, half)
    finally:
        for name, value in before.items():
            head.get_parameter(name).data = value
    seen = []
    for name, gradient in gradients.items():
        probe = found.get(name)
        loss = min((loss for _, loss in probe.losses), default=None) if probe else None
        seen.append(LayerSeen(name, gradient, loss, _right(probe, train, rows)))
    return seen


def _classes(network: Network, task: Task, train: Examples) -> int:
    """How many classes a row has one of; 0 where no probe can tell."""
    labels = getattr(train, "labels", None)
    whole = isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu"
    return len(task.classes) if whole and hasattr(network, "features") else 0


def _probes(
    network: Network, task: Task, train: Any, rows: Ints, classes: int, seed: int
) -> dict[str, Probe]:
    """A probe on what each layer gives for all rows; under ``head`` one of the first half, on what
    the head reads."""
    import torch

    given: dict[str, list[Floats]] = {}
    with outputs_of(below_head(network)) as outputs, torch.no_grad():
        for batch in _batches(task, train, rows):
            given.setdefault("head", []).append(features_of(network, batch).numpy())
            mask = batch.get("attention_mask")
            for name, states in outputs().items():
                given.setdefault(name, []).append(pooled(states, mask).numpy())
    labels, half = np.asarray(train.labels)[rows], len(rows) // 2
    probes = {}
    for name, parts in given.items():
        table, marks = np.concatenate(parts), labels
        if name == "head":
            table, marks = table[:half], labels[:half]
        probes[name] = fit_probe(table, marks, classes=classes, seed=seed)
    return probes


def _fitted(found: dict[str, Probe], before: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The head's parameters as a probe has them, where it is a plain linear layer."""
    import torch

    probe = found.get("head")
    if probe is None or {n: tuple(t.shape) for n, t in before.items()} != {
        "weight": probe.weight.shape,
        "bias": probe.bias.shape,
    }:
        return {}
    values = {"weight": probe.weight, "bias": probe.bias}
    return {n: torch.as_tensor(v, dtype=torch.float32) for n, v in values.items()}


def _gradients(network: Network, task: Task, train: Examples, rows: Ints) -> dict[str, float]:
    """The relative gradient of each layer below the head, of the mean loss over these rows."""
    clear(network)
    for batch in _batches(task, train, rows):
        losses = task.losses(task.forward(network, batch), batch)
        loss: Any = losses.sum() / len(rows)
        loss.backward()
    return {layer.name: relative_gradient(layer) for layer in below_head(network)}


def _batches(task: Task, train: Examples, rows: Ints) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), BATCH):
        yield task.collate(train, rows[start : start + BATCH])


def _right(probe: Probe | None, train: Any, rows: Ints) -> float | None:
    if probe is None or probe.held_out is None:
        return None
    told = np.isfinite(probe.held_out).all(axis=1)
    labels = np.asarray(train.labels)[rows][told]
    return float((probe.held_out[told].argmax(axis=1) == labels).mean()) if told.any() else None


def _told(
    seen: Sequence[LayerSeen], count: int, rows: int, usual: str
) -> tuple[str, tuple[Decision, ...]]:
    chosen = ",".join(one.name for one in seen[:count]) or usual
    most = max(one.gradient for one in seen)
    rule = (
        f"less than {LITTLE:.0%} of the largest gradient relative to the weights is asked of each, "
        "from the bottom up"
    )
    because = f"{rule}; {rows} training rows" if count else f"no bottom layer where {rule}"
    lines = []
    for place, one in enumerate(seen):
        probe = ""
        if one.loss is not None:
            right = f", {one.right:.0%} right" if one.right is not None else ""
            probe = f"; a probe on what it gives: log loss {one.loss:.3f}{right}, out of fold"
        told = f"relative gradient {one.gradient:.2e}, {one.gradient / most:.0%} of the largest"
        learns = "stays" if place < count else "learns"
        line = Decision(WHAT, f"{one.name}: {learns}", f"{told}{probe}", prominent=True)
        lines.append(line)
    return chosen, (Decision(SETTING, chosen, because, prominent=True), *lines)
