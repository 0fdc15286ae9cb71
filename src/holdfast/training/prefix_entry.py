"""Can a network be entered behind its frozen layers, and what is it worth? The model is asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from holdfast.core.input_errors import reason
from holdfast.core.records import Ints
from holdfast.models.compute.prefix import Prefix, train_mode
from holdfast.training.machine.machine import autocast, device_kind
from holdfast.training.prefix_cache import sizes_of
from holdfast.training.restore import random_state, set_random_state
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    from holdfast.models.base import Network
    from holdfast.training.task import Batch, Examples, Task


MOST_ROWS, MOST_TOKENS = 8, 512
PROBE_SECONDS = 0.2
# A row's state may differ from that of the row alone by this share of its largest number: the sums
# of a matrix product are taken in another order when the batch has another shape.
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


@dataclass(frozen=True, slots=True)
class PrefixEntry:
    """What was found: ``why_not``, or what keeping costs and saves. ``unit_bytes`` are those of one
    unit of a row's size, ``whole`` the size of every row where rows are not cut to their length;
    ``saved_s`` the seconds by which a row passes faster."""

    why_not: str | None = None
    unit_bytes: int = 0
    whole: int | None = None
    saved_s: float = 0.0

    def bytes_of(self, examples: Examples) -> int:
        """The size of the kept outputs of these rows."""
        units = len(examples) * self.whole if self.whole else int(examples.lengths.sum())
        return units * self.unit_bytes


def ask_model(
    prefix: Prefix, network: Network, task: Task, examples: Examples, precision: str
) -> PrefixEntry:
    """Pass a few rows as they are and entered half-way, and compare.

    The losses must be the same from the kept states alone, with zeros where a row is padded, and a
    row's states must not depend on the rows beside it. The network is left in evaluation mode.
    """
    device = device_kind()
    if device != "cpu":
        network.to(device)
    network.eval()
    half = autocast(device, precision)
    with torch.inference_mode(), half:
        return _ask(prefix, network, task, examples, device)


def _ask(
    prefix: Prefix, network: Network, task: Task, examples: Examples, device: str
) -> PrefixEntry:
    def batch_of(rows: Ints) -> Batch:
        return device_batch(task, examples, rows, device)

    def output(batch: Batch) -> torch.Tensor:
        return prefix.output(lambda: task.forward(network, batch))

    def losses() -> torch.Tensor:
        return task.losses(task.forward(network, batch), batch).float().cpu()

    def half_way() -> torch.Tensor:
        with prefix.entered(kept.to(device)):
            return losses()

    rows = _unlike(examples)
    batch = batch_of(rows)
    why_not = prefix.ask(losses)
    if why_not is not None:
        return PrefixEntry(why_not)
    states = output(batch)
    sizes = sizes_of(examples, rows, states)
    kept = _without_padding(states, sizes[rows]).cpu()
    why_not = (
        _difference(losses, half_way)
        or _company(states[0], output(batch_of(rows[:1]))[0])
        or _draws(network, states, lambda: output(batch))
    )
    if why_not is not None:
        return PrefixEntry(why_not)
    saved = (_seconds(losses) - _seconds(half_way)) / len(rows)
    whole = None if np.array_equal(sizes, examples.lengths) else int(states.shape[1])
    return PrefixEntry(None, math.prod(states.shape[2:]) * states.dtype.itemsize, whole, saved)


def _unlike(examples: Examples) -> Ints:
    """A few rows from the middle half of the lengths, the shortest first."""
    lengths = np.asarray(examples.lengths)
    order = np.argsort(lengths, kind="stable")
    count = max(2, min(MOST_ROWS, MOST_TOKENS // int(np.median(lengths))))
    places = np.linspace(0.25, 0.75, min(count, len(order))) * (len(order) - 1)
    return np.asarray(order[np.unique(np.round(places).astype(np.int64))], dtype=np.int64)


def _without_padding(states: torch.Tensor, sizes: Ints) -> torch.Tensor:
    kept = torch.zeros_like(states)
    for row, size in enumerate(sizes):
        kept[row, :size] = states[row, :size]
    return kept


def _difference(
    whole: Callable[[], torch.Tensor], half_way: Callable[[], torch.Tensor]
) -> str | None:
    expected = whole()
    try:
        found = half_way()
    except Exception as error:
        return f"the model cannot be entered half-way ({reason(error)})"
    if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-5):
        return None
    return "the model's losses are others when it is entered half-way"


def _company(beside: torch.Tensor, alone: torch.Tensor) -> str | None:
    """A row's states among others and alone, up to rounding and padding."""
    half = torch.is_autocast_enabled(beside.device.type)
    share = ROUNDING[torch.bfloat16 if half else torch.float32]
    first, second = beside[: len(alone)].float(), alone[: len(beside)].float()
    if bool((first - second).abs().max() <= share * second.abs().max()):
        return None
    return "a row's states depend on the rows that share its batch"


def _draws(
    network: Network, states: torch.Tensor, output: Callable[[], torch.Tensor]
) -> str | None:
    """Dropout outside of the frozen layers, but before their end, would still be drawn."""
    before = random_state()
    train_mode(network)
    again = output()
    network.eval()
    set_random_state(before)
    same = torch.equal(states, again)
    return None if same else "dropout is drawn before the last frozen block, by none of the layers"


def _seconds(run: Callable[[], torch.Tensor]) -> float:
    """Seconds of one call, the quickest of those that fit into the probe's time."""
    best, start = math.inf, time.perf_counter()
    while time.perf_counter() - start < PROBE_SECONDS or best == math.inf:
        before = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - before)
    return best
