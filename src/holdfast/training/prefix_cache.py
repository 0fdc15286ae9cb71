"""Cache of the outputs of the frozen first layers, computed once per row.

Training steps, the training sample, the validation rows and a refitted head read the same rows
through the same frozen layers (``models/compute/prefix.py``). So one file per set of rows serves
all four: tensors of many rows in one memory-mapped file, each row of its own length, without
padding.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from holdfast.core.files import disk_errors, write_json
from holdfast.core.records import Ints
from holdfast.core.run_files import file_digest
from holdfast.models.compute.prefix import Prefix, evaluation_mode
from holdfast.training.plan import batches_by_length
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.training.task import Batch, Examples, TrainingTask


# The inputs of a network; the rest of a batch is for the losses.
INPUTS = ("input_ids", "token_type_ids", "position_ids", "pixel_values")


@dataclass(frozen=True, slots=True)
class RowPasses:
    """How rows pass through the network, as far as the cache needs it."""

    network: Any
    task: TrainingTask
    accelerator: Accelerator

    def batch(self, examples: Examples, positions: Ints) -> Batch:
        """These rows as a batch on the device."""
        return device_batch(self.task, examples, positions, self.accelerator.device)


@dataclass(frozen=True, slots=True)
class _CachedRows:
    """One set of rows: its file, and a hash of each row's inputs at the time it was filled."""

    examples: Any
    file: RowFile
    marks: Sequence[bytes]


class PrefixCache:
    """The cached outputs of ``prefix``, in ``folder``.

    A batch uses the cache only while the frozen weights are unchanged and every one of its rows has
    the inputs that it had when it was filled. Otherwise (unfrozen, augmented) it is computed from
    the first layer. Rows are filled in batches that depend only on the rows, so a resumed run that
    must fill again gets the same bits; one that finds the sealed files reads them.
    """

    def __init__(self, prefix: Prefix, folder: Path) -> None:
        self._prefix = prefix
        self._folder = folder
        self._sets: list[_CachedRows] = []
        self.notify: Callable[[str], None] = lambda _: None

    def fill(
        self,
        passes: RowPasses,
        sets: Mapping[str, Examples],
        tokens: int,
        beginnings: Mapping[str, Examples] = MappingProxyType({}),
    ) -> None:
        """Compute the missing rows of ``sets`` (name: examples), in evaluation mode, ``tokens``
        padded tokens per batch; ``beginnings`` are examples with which a set of this name begins.
        Raises ``MachineError`` when the disk is full."""
        self._prefix.mark()
        autocast = passes.accelerator.autocast()
        with evaluation_mode(passes.network), torch.inference_mode(), autocast:
            weights = self._weights_hash()
            for name, examples in sets.items():
                if len(examples):
                    cached = self._fill_file(passes, name, examples, tokens, weights)
                    self._sets.append(cached)
                    beginning = beginnings.get(name, examples)
                    if beginning is not examples:
                        self._sets.append(replace(cached, examples=beginning))

    def cached_prefix(
        self, examples: Examples, positions: Ints, batch: Batch
    ) -> contextlib.AbstractContextManager[None]:
        """A context in which a pass of ``batch``, which consists of these rows, starts after the
        frozen layers, if their outputs are cached and still valid."""
        cached = next((cached for cached in self._sets if cached.examples is examples), None)
        if cached is None:
            return contextlib.nullcontext()
        if not self._prefix.is_unchanged:
            self.remove()
            self.notify("the frozen layers are trained now, or their weights were changed")
            return contextlib.nullcontext()
        if _row_hashes(examples, positions, batch) != [cached.marks[row] for row in positions]:
            return contextlib.nullcontext()
        device = next(iter(batch.values())).device
        return self._prefix.skipping(cached.file.read(positions).to(device))

    def remove(self) -> None:
        """Delete the files; from then on everything is computed from the first layer."""
        for cached in self._sets:
            cached.file.remove()
        self._sets = []

    def _fill_file(
        self, passes: RowPasses, name: str, examples: Examples, tokens: int, weights: bytes
    ) -> _CachedRows:
        """The complete file of one set of rows, and the hashes of its rows."""
        batches = list(batches_by_length(examples.lengths, np.arange(len(examples)), tokens))
        marks = [b""] * len(examples)
        for batch_rows in batches:
            batch_marks = _row_hashes(examples, batch_rows, passes.batch(examples, batch_rows))
            for row, mark in zip(batch_rows, batch_marks, strict=True):
                marks[row] = mark
        key = _cache_key(weights, marks, passes.accelerator.mixed_precision, tokens)
        file: RowFile | None = None
        for batch_rows in batches:
            # Compute the first batch even where the file is complete: it gives a state's shape.
            batch = passes.batch(examples, batch_rows)
            states = self._prefix.output(partial(passes.task.forward, passes.network, batch))
            if file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                sizes = state_sizes(examples, batch_rows, states)
                path = self._folder / f"prefix-{name}.rows"
                file = RowFile(path, sizes, tuple(states.shape[2:]), states.dtype, key)
            if file.is_sealed:
                break
            for row, state in zip(batch_rows, states, strict=True):
                file.write(int(row), state)
        assert file is not None
        file.seal()
        return _CachedRows(examples, file, marks)

    def _weights_hash(self) -> bytes:
        """A hash of the frozen weights."""
        digest = hashlib.blake2b(digest_size=16)
        for parameter in self._prefix.parameters():
            flat = parameter.detach().cpu().reshape(-1).view(torch.uint8)
            digest.update(flat.numpy().data)
        return digest.digest()


def cached_prefix(
    cache: PrefixCache | None, examples: Examples, positions: Ints, batch: Batch
) -> contextlib.AbstractContextManager[None]:
    """``cache.cached_prefix``; an empty context without a cache."""
    if cache is None:
        return contextlib.nullcontext()
    return cache.cached_prefix(examples, positions, batch)


def state_sizes(examples: Examples, positions: Ints, states: torch.Tensor) -> Ints:
    """The size of each row's own part of its state [size, …], for all ``examples``: its number of
    tokens where the batch is padded to the longest, else (images) the full size.

    ``states`` [batch, size, …] are those of ``positions``.
    """
    lengths: Ints = np.asarray(examples.lengths, dtype=np.int64)
    if states.shape[1] == int(lengths[positions].max()):
        return lengths
    return np.full(len(lengths), states.shape[1], dtype=np.int64)


def _cache_key(weights: bytes, marks: Sequence[bytes], precision: str, tokens: int) -> str:
    """A hash of what the cached numbers depend on: weights, inputs, precision, batches."""
    digest = hashlib.blake2b(weights, digest_size=16)
    digest.update(f"{torch.__version__} {precision} {tokens} {len(marks)}".encode())
    for mark in marks:
        digest.update(mark)
    return digest.hexdigest()


def _row_hashes(examples: Examples, positions: Ints, batch: Batch) -> list[bytes]:
    """A hash of the network's input for each row, independent of its padding."""
    lengths = examples.lengths[positions]
    longest = int(lengths.max())
    inputs = [batch[name].cpu().numpy() for name in INPUTS if name in batch]
    marks = []
    for row, length in enumerate(lengths):
        digest = hashlib.blake2b(digest_size=8)
        for values in inputs:
            part = values[row, :length] if values.shape[1] == longest else values[row]
            digest.update(np.ascontiguousarray(part).data)
        marks.append(digest.digest())
    return marks


# Bits are stored and returned unchanged, whatever the type of the numbers; all bits 0 is 0.0.
BITS = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}


class RowFile:
    """Rows [size, *tail] of one type, row i ``sizes[i]`` long; ``key`` identifies their content.

    The numbers are written to a plain file, so that a full disk is an error of the operating system
    and not a crashed process, and are read through a memory map. ``seal`` writes the description
    last, with the SHA-256 of the rows. A file without a description, with another ``key``, or with
    a changed bit counts as missing.
    """

    def __init__(
        self, path: Path, sizes: Ints, tail: tuple[int, ...], dtype: torch.dtype, key: str
    ) -> None:
        self.path, self.tail, self.dtype, self.key = path, tail, dtype, key
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(self._sizes)]).astype(np.int64)
        self._bits: npt.DTypeLike = BITS[dtype.itemsize]
        self._width = math.prod(tail)
        self._map: Any = None
        self._file: Any = None
        self._complete = False

    @property
    def bytes(self) -> int:
        """The size of all rows in bytes."""
        return int(self._offsets[-1]) * self._width * self.dtype.itemsize

    @property
    def is_sealed(self) -> bool:
        """Whether every row has been written, by this or an earlier process, and is unchanged."""
        try:
            stored = json.loads(self._description_path.read_text("utf-8"))
            size_matches = self.path.is_file() and self.path.stat().st_size == self.bytes
            self._complete = size_matches and (self._complete or stored == self._description())
        except (OSError, ValueError, RecursionError):
            return False
        return self._complete

    def _description(self) -> dict[str, Any]:
        return {"key": self.key, **file_digest(self.path)}

    def write(self, row: int, values: torch.Tensor) -> None:
        """Write one row [at least sizes[row], *tail] to its place, without padding.

        Raises ``MachineError`` on a full disk.
        """
        row_values = values[: int(self._sizes[row])].detach().cpu().contiguous()
        remaining = memoryview(row_values.view(torch.uint8).numpy().reshape(-1).data)
        try:
            with disk_errors(self.path):
                if self._file is None:
                    self._complete = False
                    # A file that is partly rewritten must not count as complete.
                    self._description_path.unlink(missing_ok=True)
                    self._file = self.path.open("wb", buffering=0)
                self._file.seek(int(self._offsets[row]) * self._width * self.dtype.itemsize)
                while remaining:
                    # Without a buffer, a write may be partial.
                    remaining = remaining[self._file.write(remaining) :]
        except BaseException:
            self._close()
            raise

    def seal(self) -> None:
        """Mark the file as complete."""
        if self._complete:
            return
        with disk_errors(self.path):
            if self._file is not None:
                # Sync the rows to disk before the description says so.
                os.fsync(self._file.fileno())
            self._close()
            write_json(self._description_path, self._description())
            self._complete = True

    def read(self, rows: Ints) -> torch.Tensor:
        """These rows [n, longest of them, *tail], zeros after the shorter ones."""
        if self._map is None:
            # Copy on write, though nothing is written: PyTorch warns about a read-only array.
            shape = (int(self._offsets[-1]), self._width)
            self._map = np.memmap(self.path, dtype=self._bits, mode="c", shape=shape)
        longest = int(self._sizes[rows].max())
        padded = np.zeros((len(rows), longest, self._width), dtype=self._bits)
        for place, row in enumerate(rows):
            size = self._sizes[row]
            padded[place, :size] = self._map[self._offsets[row] : self._offsets[row] + size]
        values = torch.from_numpy(padded).view(self.dtype)
        return values.view(len(rows), longest, *self.tail)

    def remove(self) -> None:
        """Close the file and delete it."""
        self._map, self._complete = None, False
        self._close()
        self._description_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _description_path(self) -> Path:
        return self.path.with_suffix(".json")
