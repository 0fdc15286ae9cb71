"""The outputs of the frozen first layers, computed once a row and read back from then on.

Training steps, the train probe, the validation rows and a refitted head all read the same rows
through the same frozen layers (``models/compute/prefix.py``), so one file a set of rows serves all
four.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.core.records import Ints
from holdfast.models.compute.prefix import Prefix
from holdfast.training.batches import by_length
from holdfast.training.prefix.row_file import RowFile
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.training.task import Batch, Examples, Task


# What a network reads; the rest of a batch is for the losses.
INPUTS = ("input_ids", "token_type_ids", "position_ids", "pixel_values")


@dataclass(frozen=True, slots=True)
class RowPasses:
    """How rows pass the network: what the loop has of it."""

    network: Any
    task: Task
    accelerator: Accelerator

    def batch(self, examples: Examples, positions: Ints) -> Batch:
        """These rows on the device."""
        return device_batch(self.task, examples, positions, self.accelerator.device)


@dataclass(frozen=True, slots=True)
class _Kept:
    """One set of rows: its file, and a mark of each row's inputs as they were when it was
    filled."""

    examples: Any
    file: RowFile
    marks: Sequence[bytes]


class PrefixCache:
    """The kept outputs of ``prefix``, in ``folder``.

    A batch is entered half-way only while the frozen weights are as they were and every one of its
    rows has the inputs that it had when it was filled; otherwise (unfrozen, augmented) it is
    computed from the start. Rows are filled in batches that depend on the rows alone, so a resumed
    run that has to fill anew gets the same bits; one that finds the sealed files reads them.
    """

    def __init__(self, prefix: Prefix, folder: Path) -> None:
        self._prefix = prefix
        self._folder = folder
        self._sets: list[_Kept] = []
        self.notify: Callable[[str], None] = lambda _: None

    def fill(
        self,
        passes: RowPasses,
        sets: Mapping[str, Examples],
        tokens: int,
        beginnings: Mapping[str, Examples] = MappingProxyType({}),
    ) -> None:
        """Compute what is not there yet of the rows of ``sets`` (name: examples), in evaluation
        mode, ``tokens`` padded tokens a batch; ``beginnings`` are examples that a set of this name
        begins with. Raises ``MachineError`` when the disk is full."""
        was_training = passes.network.training
        passes.network.eval()
        self._prefix.remember()
        with torch.inference_mode(), passes.accelerator.autocast():
            weights = self._weights()
            for name, examples in sets.items():
                if len(examples):
                    kept = self._filled(passes, name, examples, tokens, weights)
                    self._sets.append(kept)
                    begins = beginnings.get(name, examples)
                    if begins is not examples:
                        self._sets.append(replace(kept, examples=begins))
        passes.network.train(was_training)

    def entered(
        self, examples: Examples, positions: Ints, batch: Batch
    ) -> contextlib.AbstractContextManager[None]:
        """In this context a pass of ``batch``, which holds these rows, begins behind the frozen
        layers, if they are kept and still hold."""
        kept = next((kept for kept in self._sets if kept.examples is examples), None)
        if kept is None:
            return contextlib.nullcontext()
        if not self._prefix.is_unchanged:
            self.remove()
            self.notify("the frozen layers learn now, or their weights were changed")
            return contextlib.nullcontext()
        if _marks(examples, positions, batch) != [kept.marks[row] for row in positions]:
            return contextlib.nullcontext()
        device = next(iter(batch.values())).device
        return self._prefix.entered(kept.file.read(positions).to(device))

    def remove(self) -> None:
        """Delete the files; what is asked from then on is computed from the start."""
        for kept in self._sets:
            kept.file.remove()
        self._sets = []

    def _filled(
        self, passes: RowPasses, name: str, examples: Examples, tokens: int, weights: bytes
    ) -> _Kept:
        """The file of one set of rows, every one of them in it, and their marks."""
        batches = list(by_length(examples.lengths, np.arange(len(examples)), tokens))
        marks = [b""] * len(examples)
        for chosen in batches:
            found = _marks(examples, chosen, passes.batch(examples, chosen))
            for row, mark in zip(chosen, found, strict=True):
                marks[row] = mark
        key = _key(weights, marks, passes.accelerator.mixed_precision, tokens)
        file: RowFile | None = None
        for chosen in batches:
            # The first batch is passed even where the file is whole: it tells the shape of a state.
            states = self._states(passes, examples, chosen)
            if file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                sizes = sizes_of(examples, chosen, states)
                path = self._folder / f"prefix-{name}.rows"
                file = RowFile(path, sizes, tuple(states.shape[2:]), states.dtype, key)
            if file.is_sealed:
                break
            for row, state in zip(chosen, states, strict=True):
                file.write(int(row), state)
        assert file is not None
        file.seal()
        return _Kept(examples, file, marks)

    def _states(self, passes: RowPasses, examples: Examples, positions: Ints) -> torch.Tensor:
        batch = passes.batch(examples, positions)
        return self._prefix.output(lambda: passes.task.forward(passes.network, batch))

    def _weights(self) -> bytes:
        """A hash of the frozen weights."""
        digest = hashlib.blake2b(digest_size=16)
        for parameter in self._prefix.parameters():
            whole = parameter.detach().cpu().reshape(-1).view(torch.uint8)
            digest.update(whole.numpy().data)
        return digest.digest()


def entered(
    cache: PrefixCache | None, examples: Examples, positions: Ints, batch: Batch
) -> contextlib.AbstractContextManager[None]:
    """``cache.entered``; nothing where there is no cache."""
    if cache is None:
        return contextlib.nullcontext()
    return cache.entered(examples, positions, batch)


def sizes_of(examples: Examples, positions: Ints, states: torch.Tensor) -> Ints:
    """How much of its state [size, …] is a row's own, for all ``examples``: its tokens where the
    batch is padded to the longest, else (pictures) the whole.

    ``states`` [batch, size, …] are those of ``positions``.
    """
    lengths: Ints = np.asarray(examples.lengths, dtype=np.int64)
    if states.shape[1] == int(lengths[positions].max()):
        return lengths
    return np.full(len(lengths), states.shape[1], dtype=np.int64)


def _key(weights: bytes, marks: Sequence[bytes], precision: str, tokens: int) -> str:
    """A hash of all that the kept numbers come from: weights, inputs, precision, batches."""
    digest = hashlib.blake2b(weights, digest_size=16)
    digest.update(f"{torch.__version__} {precision} {tokens} {len(marks)}".encode())
    for mark in marks:
        digest.update(mark)
    return digest.hexdigest()


def _marks(examples: Examples, positions: Ints, batch: Batch) -> list[bytes]:
    """A hash of what the network reads of each row, whatever it is padded to."""
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
