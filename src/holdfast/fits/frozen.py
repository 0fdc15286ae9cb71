"""Frozen layers: which learn (``model.freeze``; ``auto`` goes by what training rows say before the
first step), and whether the outputs of the first ones are kept (``train.cache_frozen``).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import TrainingPlan
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.machine import processes
from holdfast.core.records import Decision, Floats, Ints
from holdfast.models.base import Network
from holdfast.models.compute.prefix import Prefix, frozen_prefix
from holdfast.models.layers import SETTING as FREEZE
from holdfast.models.layers import count_parameters, freeze
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
from holdfast.training.plan import Plan, probe_positions
from holdfast.training.prefix_entry import PrefixEntry, ask_model
from holdfast.training.restore import random_state, set_random_state
from holdfast.training.task import Examples, Task, features_of

if TYPE_CHECKING:
    import torch


AUTO = "auto"
ROWS, BATCH = 256, 16
WHAT = "layers by evidence"
SETTING = "train.cache_frozen"
# Unasked, no more than this, nor more than half of what the disk has left.
MOST_BYTES = 4_000_000_000
DISK_SHARE = 0.5
WRITTEN_BYTES_A_SECOND = 200e6
MB = 1e6


def freeze_part(network: Network, what: int | float | str | None) -> None:
    """Freeze as the recipe says: ``words`` is the word-embedding table, ``none`` nothing."""
    if what not in ("words", "none"):
        decision = freeze(network, what)
        if decision:
            notify(decision)
        return
    freeze(network, None)
    if what == "none":
        return
    network.word_embeddings.weight.requires_grad_(False)
    total, trainable = count_parameters(network)
    because = (
        f"the word-embedding table stays as pretrained: {trainable:,} of {total:,} parameters "
        "learn (model.freeze=none to train all)"
    )
    notify(Decision("frozen layers", "words", because))


def choose_layers(network: Network, task: Task, train: Examples, seed: int, usual: str) -> str:
    """What ``model.freeze`` is then; a decision for the choice and one a layer say why.

    Up to 256 training rows are passed. A head is fitted to half of them, and the loss of the other
    half gives the gradients: those of rows that the head has not seen. A head that cannot be fitted
    is taken as it is. Of rows with a class a probe on what each layer gives is cross-validated
    beside. Nothing of the network is changed. ``usual`` is what stays frozen where no layer is left
    alone. Raises ``RecipeError`` for a network with an adapter.
    """
    if network.adapter is not None:
        raise RecipeError(
            FREEZE,
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
    return _chosen(seen, left_alone(seen), len(rows), usual)


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


def _chosen(seen: Sequence[LayerSeen], count: int, rows: int, usual: str) -> str:
    chosen = ",".join(one.name for one in seen[:count]) or usual
    most = max(one.gradient for one in seen)
    rule = (
        f"less than {LITTLE:.0%} of the largest gradient relative to the weights is asked of each, "
        "from the bottom up"
    )
    because = f"{rule}; {rows} training rows" if count else f"no bottom layer where {rule}"
    notify(Decision(FREEZE, chosen, because, prominent=True))
    for place, one in enumerate(seen):
        probe = ""
        if one.loss is not None:
            right = f", {one.right:.0%} right" if one.right is not None else ""
            probe = f"; a probe on what it gives: log loss {one.loss:.3f}{right}, out of fold"
        told = f"relative gradient {one.gradient:.2e}, {one.gradient / most:.0%} of the largest"
        learns = "stays" if place < count else "learns"
        notify(Decision(WHAT, f"{one.name}: {learns}", f"{told}{probe}", prominent=True))
    return chosen


def keep_prefix(
    ready: TrainingPlan, folder: Path | None = None, *, enriched: bool = False
) -> tuple[str, Prefix | None]:
    """``train.cache_frozen`` resolved, and what is kept, if anything.

    Where rows are ``enriched`` what is learnt from is another form each time, so that ``auto`` is
    off; ``on`` keeps the outputs of the rows as they are, for the looks.

    ``auto`` is on where the passes that are saved take longer than the filling, and the files are
    small: at most 4 GB and half of the free disk at ``folder`` (the system's temporary folder where
    there is none). Nothing frozen leaves ``auto`` as it is, without a word.

    Raises
    ------
    RecipeError : it is ``on``, and there is nothing to keep, no way to, or no room for it.
    """
    wanted, network, task, plan = (
        ready.recipe.train.cache_frozen,
        ready.loaded.network,
        ready.task,
        ready.plan,
    )
    train, valid = ready.sides.learnt, ready.valid
    layers = frozen_prefix(network)
    if not layers and wanted == "on":
        raise RecipeError(
            SETTING,
            "has nothing to keep: the embeddings and first blocks are not frozen",
            wanted,
            "Set model.freeze to a number of layers, or leave it out.",
        )
    if not layers or wanted == "off":
        if layers:
            because = "set by you: frozen layers are computed in every pass"
            notify(Decision(SETTING, "off", because))
        return wanted, None
    if enriched and wanted == "auto":
        because = (
            f"{len(layers)} first layers are frozen, but rows are learnt from in other forms "
            "(enrich), whose outputs nobody asks for twice"
        )
        notify(Decision(SETTING, "off", because))
        return "off", None
    prefix = Prefix(layers)
    entry = _refusal(task) or ask_model(prefix, network, task, train, ready.recipe.train.precision)
    size = entry.bytes_of(train) + entry.bytes_of(valid)
    why_not = entry.why_not or _no_room(size, wanted, folder)
    if why_not and wanted == "on":
        raise RecipeError(SETTING, f"is not possible here: {why_not}", wanted, "Leave it out.")
    # Seconds that are saved, those of filling taken off.
    rows = len(train) + len(valid)
    saved = (passes_of(plan, len(train), len(valid)) - rows) * entry.saved_s
    gain = saved - size / WRITTEN_BYTES_A_SECOND
    on = why_not is None and (wanted == "on" or gain > 0)
    because = f"{len(layers)} first layers are frozen; " + (
        why_not or _reckoned(entry, train, valid, plan, size, gain)
    )
    said = f"set by you: {because}" if wanted == "on" else because
    setting = "on" if on else "off"
    notify(Decision(SETTING, setting, said))
    return setting, prefix if on else None


def passes_of(plan: Plan, train_rows: int, valid_rows: int) -> int:
    """Rows that pass the frozen layers in the whole run: steps, looks, and refitted heads."""
    rows = len(plan.evaluate_at) * (plan.probe_rows + valid_rows)
    start = 0
    for phase in plan.phases:
        end = start + phase.steps
        rows += phase.rows_passed
        if phase.head == "refit":
            rows += train_rows * sum(start < at <= end for at in plan.evaluate_at)
        start = end
    return rows


def _refusal(task: Task) -> PrefixEntry | None:
    if processes() > 1:
        return PrefixEntry("several processes train together, and each would fill files of its own")
    if getattr(task, "pack", False):
        return PrefixEntry("rows share a line (train.pack), in company that changes")
    return None


def _no_room(size: int, wanted: str, folder: Path | None) -> str | None:
    """Why ``size`` bytes are too many. What a run that is continued has written already is free
    for it."""
    place = folder or Path(tempfile.gettempdir())
    held = sum(path.stat().st_size for path in place.glob("prefix-*.rows"))
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free + held
    most = min(MOST_BYTES, DISK_SHARE * free) if wanted == "auto" else free
    if size <= most:
        return None
    return (
        f"their outputs take {size / MB:,.0f} MB, and {most / MB:,.0f} MB are allowed "
        f"({free / MB:,.0f} MB of disk are free)"
    )


def _reckoned(
    entry: PrefixEntry, train: Examples, valid: Examples, plan: Plan, size: int, gain: float
) -> str:
    rows = len(train) + len(valid)
    times = passes_of(plan, len(train), len(valid)) / rows
    verdict = f"about {gain:,.1f} s are saved" if gain > 0 else "keeping them would not pay"
    return (
        f"each row passes them {times:.1f} times, and {1000 * entry.saved_s:.2f} ms a pass are "
        f"saved (probed); {size / MB:,.1f} MB are kept: {verdict}"
    )
