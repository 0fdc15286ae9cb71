"""Tensors of many rows in one memory-mapped file, each row of its own length, without padding."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from holdfast.core.files import disk_errors, write_json
from holdfast.core.records import Ints
from holdfast.core.run_files import file_mark

# Bits are kept and given back as they are, whatever the type of the numbers; all bits 0 is 0.0.
BITS = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}


class RowFile:
    """Rows [size, *tail] of one type, row i ``sizes[i]`` long; ``key`` says what they are of.

    The numbers go through a plain file, so that a full disk is an error of the operating system and
    not a dead process, and are read through a memory map. ``seal`` writes the description last,
    with the SHA-256 of the rows: a file without one, with another ``key``, or of which a bit has
    changed, counts as not there.
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
        self._whole = False

    @property
    def bytes(self) -> int:
        """The size of all rows."""
        return int(self._offsets[-1]) * self._width * self.dtype.itemsize

    @property
    def is_sealed(self) -> bool:
        """Whether every row has been written, by this process or one before it, and is as it was
        written."""
        try:
            written = json.loads(self._note.read_text("utf-8"))
            right = self.path.is_file() and self.path.stat().st_size == self.bytes
            self._whole = right and (self._whole or written == self._description())
        except (OSError, ValueError, RecursionError):
            return False
        return self._whole

    def _description(self) -> dict[str, Any]:
        return {"key": self.key, **file_mark(self.path)}

    def write(self, row: int, values: torch.Tensor) -> None:
        """Put one row [at least sizes[row], *tail] into its place, without what is padding.

        Raises ``MachineError`` on a full disk.
        """
        wanted = values[: int(self._sizes[row])].detach().cpu().contiguous()
        left = memoryview(wanted.view(torch.uint8).numpy().reshape(-1).data)
        try:
            with disk_errors(self.path):
                if self._file is None:
                    self._whole = False
                    # A file that is half written again must not count as whole.
                    self._note.unlink(missing_ok=True)
                    self._file = self.path.open("wb", buffering=0)
                self._file.seek(int(self._offsets[row]) * self._width * self.dtype.itemsize)
                while left:
                    # Without a buffer a write may take a part alone.
                    left = left[self._file.write(left) :]
        except BaseException:
            self._close()
            raise

    def seal(self) -> None:
        """All rows are there."""
        if self._whole:
            return
        with disk_errors(self.path):
            if self._file is not None:
                # The rows are on the disk before the note says so.
                os.fsync(self._file.fileno())
            self._close()
            write_json(self._note, self._description())
            self._whole = True

    def read(self, rows: Ints) -> torch.Tensor:
        """These rows [n, longest of them, *tail], zeros behind the shorter ones."""
        if self._map is None:
            # Copy on write, of which nothing is written: PyTorch warns of a read-only array.
            shape = (int(self._offsets[-1]), self._width)
            self._map = np.memmap(self.path, dtype=self._bits, mode="c", shape=shape)
        longest = int(self._sizes[rows].max())
        found = np.zeros((len(rows), longest, self._width), dtype=self._bits)
        for place, row in enumerate(rows):
            size = self._sizes[row]
            found[place, :size] = self._map[self._offsets[row] : self._offsets[row] + size]
        values = torch.from_numpy(found).view(self.dtype)
        return values.view(len(rows), longest, *self.tail)

    def remove(self) -> None:
        """Close the file and delete it."""
        self._map, self._whole = None, False
        self._close()
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _note(self) -> Path:
        return self.path.with_suffix(".json")
