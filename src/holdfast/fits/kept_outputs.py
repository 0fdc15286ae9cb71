"""Whether the outputs of the frozen first layers are kept (``train.cache_frozen``): can the network
be entered behind them, which the model is asked, and would it pay?"""

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
    prefix: Prefix, network: Network, task: TrainingTask, examples: Examples, precision: str
) -> PrefixEntry:
    """Pass a few rows as they are and entered half-way, and compare.

    The losses must be the same from the kept states alone, with zeros where a row is padded, and a
    row's states must not depend on the rows beside it. The network is left in evaluation mode.
    """
    device = device_type()
    if device != "cpu":
        network.to(device)
    network.eval()
    half = autocast(device, precision)
    with torch.inference_mode(), half:
        return _ask(prefix, network, task, examples, device)


def _ask(
    prefix: Prefix, network: Network, task: TrainingTask, examples: Examples, device: str
) -> PrefixEntry:
    def batch_of(rows: Ints) -> Batch:
        return device_batch(task, examples, rows, device)

    def output(batch: Batch) -> torch.Tensor:
        return prefix.output(lambda: task.forward(network, batch))

    def losses() -> torch.Tensor:
        return task.losses(task.forward(network, batch), batch).float().cpu()

    def half_way() -> torch.Tensor:
        with prefix.skipping(kept.to(device)):
            return losses()

    rows = _unlike(examples)
    batch = batch_of(rows)
    why_not = prefix.learn_forms(losses)
    if why_not is not None:
        return PrefixEntry(why_not)
    states = output(batch)
    sizes = state_sizes(examples, rows, states)
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


SETTING = "train.cache_frozen"
# Unasked, no more than this, nor more than half of what the disk has left.
MOST_BYTES = 4_000_000_000
DISK_SHARE = 0.5
WRITTEN_BYTES_A_SECOND = 200e6
MB = 1e6


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
    train, valid = ready.splits.training_examples, ready.valid
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


def _refusal(task: TrainingTask) -> PrefixEntry | None:
    if process_count() > 1:
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
