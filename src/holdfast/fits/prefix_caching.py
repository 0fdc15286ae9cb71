"""Decide whether to cache the outputs of the frozen first layers (``train.cache_frozen``): test
whether the model can start from them, and whether caching saves time."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from holdfast.contract.fit import TrainingPlan
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.input_errors import reason
from holdfast.core.machine import process_count
from holdfast.core.records import Decision, Ints
from holdfast.models.base import Network
from holdfast.models.compute.prefix import Prefix, frozen_prefix, train_mode
from holdfast.training.machine.machine import autocast, device_type
from holdfast.training.plan import Plan
from holdfast.training.prefix_cache import state_sizes
from holdfast.training.restore import random_state, set_random_state
from holdfast.training.task import Examples, TrainingTask, device_batch

if TYPE_CHECKING:
    from holdfast.training.task import Batch


MAX_ROWS, MAX_TOKENS = 8, 512
PROBE_SECONDS = 0.2
# A row's states in a batch may differ from its states alone by this share of their largest value:
# matrix products add in another order when the batch has another shape.
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


@dataclass(frozen=True, slots=True)
class PrefixCost:
    """The result of the test: ``why_not``, or the cost and gain of caching. ``unit_bytes`` are the
    bytes per unit of a row's size, ``full_length`` the size of every row where rows are not cut to
    their length, ``saved_s`` the seconds that a pass of one row saves."""

    why_not: str | None = None
    unit_bytes: int = 0
    full_length: int | None = None
    saved_s: float = 0.0

    def bytes_of(self, examples: Examples) -> int:
        """The size of the cached outputs of these rows."""
        units = (
            len(examples) * self.full_length if self.full_length else int(examples.lengths.sum())
        )
        return units * self.unit_bytes


def probe_prefix(
    prefix: Prefix, network: Network, task: TrainingTask, examples: Examples, precision: str
) -> PrefixCost:
    """Pass a few rows normally and from cached outputs, and compare.

    The losses must be the same from the cached outputs only, with zeros where a row is padded, and
    a row's states must not depend on the other rows of its batch. The network is left in evaluation
    mode.
    """
    device = device_type()
    if device != "cpu":
        network.to(device)
    network.eval()
    half = autocast(device, precision)
    with torch.inference_mode(), half:
        return _probe(prefix, network, task, examples, device)


def _probe(
    prefix: Prefix, network: Network, task: TrainingTask, examples: Examples, device: str
) -> PrefixCost:
    def batch_of(rows: Ints) -> Batch:
        return device_batch(task, examples, rows, device)

    def output(batch: Batch) -> torch.Tensor:
        return prefix.output(lambda: task.forward(network, batch))

    def losses() -> torch.Tensor:
        return task.losses(task.forward(network, batch), batch).float().cpu()

    def half_way() -> torch.Tensor:
        with prefix.skipping(cached.to(device)):
            return losses()

    rows = _sample_rows(examples)
    batch = batch_of(rows)
    why_not = prefix.learn_forms(losses)
    if why_not is not None:
        return PrefixCost(why_not)
    states = output(batch)
    sizes = state_sizes(examples, rows, states)
    cached = _without_padding(states, sizes[rows]).cpu()
    why_not = (
        _loss_difference(losses, half_way)
        or _batch_dependence(states[0], output(batch_of(rows[:1]))[0])
        or _draws_dropout(network, states, lambda: output(batch))
    )
    if why_not is not None:
        return PrefixCost(why_not)
    saved = (_seconds(losses) - _seconds(half_way)) / len(rows)
    full_length = None if np.array_equal(sizes, examples.lengths) else int(states.shape[1])
    return PrefixCost(None, math.prod(states.shape[2:]) * states.dtype.itemsize, full_length, saved)


def _sample_rows(examples: Examples) -> Ints:
    """A few rows from the middle half of the lengths, the shortest first."""
    lengths = np.asarray(examples.lengths)
    order = np.argsort(lengths, kind="stable")
    count = max(2, min(MAX_ROWS, MAX_TOKENS // int(np.median(lengths))))
    places = np.linspace(0.25, 0.75, min(count, len(order))) * (len(order) - 1)
    return np.asarray(order[np.unique(np.round(places).astype(np.int64))], dtype=np.int64)


def _without_padding(states: torch.Tensor, sizes: Ints) -> torch.Tensor:
    unpadded = torch.zeros_like(states)
    for row, size in enumerate(sizes):
        unpadded[row, :size] = states[row, :size]
    return unpadded


def _loss_difference(
    full_pass: Callable[[], torch.Tensor], cached_pass: Callable[[], torch.Tensor]
) -> str | None:
    expected = full_pass()
    try:
        cached_losses = cached_pass()
    except Exception as error:
        return f"the model cannot start from cached outputs ({reason(error)})"
    if cached_losses.shape == expected.shape and torch.allclose(
        cached_losses, expected, rtol=1e-4, atol=1e-5
    ):
        return None
    return "the model's losses differ when it starts from cached outputs"


def _batch_dependence(in_batch: torch.Tensor, alone: torch.Tensor) -> str | None:
    """Compare a row's states in a batch and alone, up to rounding and padding."""
    half = torch.is_autocast_enabled(in_batch.device.type)
    share = ROUNDING[torch.bfloat16 if half else torch.float32]
    first, second = in_batch[: len(alone)].float(), alone[: len(in_batch)].float()
    if bool((first - second).abs().max() <= share * second.abs().max()):
        return None
    return "a row's states depend on the other rows in its batch"


def _draws_dropout(
    network: Network, states: torch.Tensor, output: Callable[[], torch.Tensor]
) -> str | None:
    """Detect dropout outside of the frozen layers but before their end: it would still be
    active."""
    rng_state = random_state()
    train_mode(network)
    repeated = output()
    network.eval()
    set_random_state(rng_state)
    is_same = torch.equal(states, repeated)
    return (
        None if is_same else "dropout outside of the layers is active before the last frozen block"
    )


def _seconds(run: Callable[[], torch.Tensor]) -> float:
    """Seconds of one call, the fastest of those that fit into the time for the test."""
    best, start = math.inf, time.perf_counter()
    while time.perf_counter() - start < PROBE_SECONDS or best == math.inf:
        before = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - before)
    return best


SETTING = "train.cache_frozen"
# The most by default, and the largest share of the free disk space.
MAX_BYTES = 4_000_000_000
DISK_SHARE = 0.5
WRITTEN_BYTES_A_SECOND = 200e6
MB = 1e6


def choose_prefix_cache(
    training_plan: TrainingPlan, folder: Path | None = None, *, enriched: bool = False
) -> tuple[str, Prefix | None]:
    """Resolve ``train.cache_frozen``, and return the layers to cache, if any.

    Where rows are ``enriched`` they differ each time, so ``auto`` is off; ``on`` caches the outputs
    of the original rows, for evaluations.

    ``auto`` is on where the saved passes take longer than filling the cache, and the files are
    small: at most 4 GB and half of the free disk at ``folder`` (the system's temporary folder where
    there is none). If nothing is frozen, ``auto`` is returned and nothing is logged.

    Raises
    ------
    RecipeError : it is ``on``, but there is nothing to cache, no way to do it, or no room for it.
    """
    requested, network, task, plan = (
        training_plan.recipe.train.cache_frozen,
        training_plan.loaded.network,
        training_plan.task,
        training_plan.plan,
    )
    train, valid = training_plan.splits.training_examples, training_plan.valid
    layers = frozen_prefix(network)
    if not layers and requested == "on":
        rule = "has nothing to cache: the embeddings and first blocks are not frozen"
        remedy = "Set model.freeze to a number of layers, or remove the setting."
        raise RecipeError(SETTING, rule, requested, remedy)
    if not layers or requested == "off":
        if layers:
            because = "set in the recipe: frozen layers are computed in every pass"
            notify(Decision(SETTING, "off", because))
        return requested, None
    if enriched and requested == "auto":
        because = (
            f"{len(layers)} first layers are frozen, but augmentation changes rows at every "
            "use (augment), so cached outputs would not be used again"
        )
        notify(Decision(SETTING, "off", because))
        return "off", None
    prefix = Prefix(layers)
    entry = _unsupported(task) or probe_prefix(
        prefix, network, task, train, training_plan.recipe.train.precision
    )
    size = entry.bytes_of(train) + entry.bytes_of(valid)
    why_not = entry.why_not or _no_room(size, requested, folder)
    if why_not and requested == "on":
        raise RecipeError(SETTING, f"is not possible here: {why_not}", requested, "Leave it out.")
    # Seconds saved, minus those for filling the cache.
    rows = len(train) + len(valid)
    saved = (count_passes(plan, len(train), len(valid)) - rows) * entry.saved_s
    gain = saved - size / WRITTEN_BYTES_A_SECOND
    is_on = why_not is None and (requested == "on" or gain > 0)
    because = f"the first {len(layers)} layers are frozen; " + (
        why_not or _gain_text(entry, train, valid, plan, size, gain)
    )
    reason_text = f"set in the recipe: {because}" if requested == "on" else because
    setting = "on" if is_on else "off"
    notify(Decision(SETTING, setting, reason_text))
    return setting, prefix if is_on else None


def count_passes(plan: Plan, train_rows: int, valid_rows: int) -> int:
    """Rows that pass the frozen layers in the full run: steps, evaluations, and refitted heads."""
    rows = len(plan.evaluate_at) * (plan.probe_rows + valid_rows)
    start = 0
    for phase in plan.phases:
        end = start + phase.steps
        rows += phase.rows_passed
        if phase.head == "refit":
            rows += train_rows * sum(start < at <= end for at in plan.evaluate_at)
        start = end
    return rows


def _unsupported(task: TrainingTask) -> PrefixCost | None:
    if process_count() > 1:
        return PrefixCost("several processes train together, and each would fill its own files")
    if getattr(task, "pack", False):
        return PrefixCost("train.pack puts rows on a line with others, which change")
    return None


def _no_room(size: int, requested: str, folder: Path | None) -> str | None:
    """Why ``size`` bytes are too many, or ``None``. Files that a resumed run has already written
    count as free space."""
    place = folder or Path(tempfile.gettempdir())
    already_written = sum(path.stat().st_size for path in place.glob("prefix-*.rows"))
    existing = next(path for path in (place, *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free + already_written
    allowed = min(MAX_BYTES, DISK_SHARE * free) if requested == "auto" else free
    if size <= allowed:
        return None
    return (
        f"their outputs take {size / MB:,.0f} MB, but only {allowed / MB:,.0f} MB are allowed "
        f"({free / MB:,.0f} MB of disk are free)"
    )


def _gain_text(
    entry: PrefixCost, train: Examples, valid: Examples, plan: Plan, size: int, gain: float
) -> str:
    rows = len(train) + len(valid)
    passes_per_row = count_passes(plan, len(train), len(valid)) / rows
    verdict = f"about {gain:,.1f} s are saved" if gain > 0 else "caching would not save time"
    return (
        f"each row passes them {passes_per_row:.1f} times, and caching saves "
        f"{1000 * entry.saved_s:.2f} ms per "
        f"pass (measured) and takes {size / MB:,.1f} MB: {verdict}"
    )
