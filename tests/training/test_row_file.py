"""Rows of unlike length in one file: what is written is what is read, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.core.errors import MachineError
from holdfast.training.prefix_cache import RowFile

SIZES = np.array([3, 1, 5, 2])


def filled(path: Path, dtype: torch.dtype = torch.float32, tail: tuple[int, ...] = (4,)) -> RowFile:
    file = RowFile(path, SIZES, tail, dtype, "key")
    for row in (2, 0, 3, 1):
        file.write(row, values(row, dtype, tail))
    return file


def values(row: int, dtype: torch.dtype, tail: tuple[int, ...]) -> torch.Tensor:
    """A row with two places of padding behind it."""
    made = torch.Generator().manual_seed(row)
    return torch.randn(int(SIZES[row]) + 2, *tail, generator=made).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("tail", [(4,), (2, 3)])
def test_rows_come_back_bit_by_bit_with_zeros_behind(
    dtype: torch.dtype, tail: tuple[int, ...], tmp_path: Path
) -> None:
    file = filled(tmp_path / "a.rows", dtype, tail)
    file.seal()
    found = file.read(np.array([3, 2, 1]))
    assert (found.dtype, tuple(found.shape)) == (dtype, (3, 5, *tail))
    for place, row in enumerate((3, 2, 1)):
        size = SIZES[row]
        assert torch.equal(found[place, :size], values(row, dtype, tail)[:size])
        assert not found[place, size:].any()
    assert file.path.stat().st_size == file.bytes


def test_what_is_read_may_be_written_to_and_the_file_stays(tmp_path: Path) -> None:
    file = filled(tmp_path / "a.rows")
    file.seal()
    file.read(np.array([0])).zero_()
    assert torch.equal(file.read(np.array([0]))[0], values(0, torch.float32, (4,))[:3])


def test_only_a_sealed_file_of_the_same_key_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    file = filled(path)
    assert not file.is_sealed
    file.seal()
    assert RowFile(path, SIZES, (4,), torch.float32, "key").is_sealed
    assert not RowFile(path, SIZES, (4,), torch.float32, "another").is_sealed
    assert not RowFile(path, SIZES, (5,), torch.float32, "key").is_sealed
    again = filled(path)
    assert not again.is_sealed, "half written over"
    again.seal()
    path.write_bytes(path.read_bytes()[:-4])
    assert not again.is_sealed, "cut short"


def test_a_bit_that_changed_meanwhile_makes_it_be_filled_again(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    filled(path).seal()
    data = path.read_bytes()
    for place in (0, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert not RowFile(path, SIZES, (4,), torch.float32, "key").is_sealed
    path.write_bytes(data)
    assert RowFile(path, SIZES, (4,), torch.float32, "key").is_sealed
    note = path.with_suffix(".json")
    for odd in ("[" * 100_000, "3", "", '{"key": "key"}'):
        note.write_text(odd)
        assert not RowFile(path, SIZES, (4,), torch.float32, "key").is_sealed


def test_removed_leaves_nothing(tmp_path: Path) -> None:
    file = filled(tmp_path / "a.rows")
    file.seal()
    file.read(np.array([0]))
    file.remove()
    assert list(tmp_path.iterdir()) == []
    assert not file.is_sealed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_and_not_a_dead_process() -> None:
    file = RowFile(Path("/dev/full"), np.array([1 << 16]), (4,), torch.float32, "key")
    with pytest.raises(MachineError, match="is full"):
        file.write(0, torch.zeros(1 << 16, 4))
