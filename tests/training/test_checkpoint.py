"""Checkpoints: whole, two, and never trusted blindly."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import MachineError, RunError
from holdfast.core.records import Decision
from holdfast.training import checkpoint
from holdfast.training.checkpoint import COMMENT, CheckpointStore, write_sealed


def state(step: int) -> dict[str, object]:
    return {"step": step, "tensors": {"w": torch.arange(4.0) + step}, "nothing": None}


def test_the_newest_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", 0)
    for step in (1, 9, 10, 100):
        store.save(step, state(step))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000010.pt", "step-00000100.pt"]
    loaded = store.load()
    assert loaded is not None
    assert loaded["step"] == 100
    assert torch.equal(loaded["tensors"]["w"], torch.arange(4.0) + 100)


def test_without_a_folder_nothing_is_kept() -> None:
    store = CheckpointStore(None, 0)
    store.save(1, state(1))
    assert store.load() is None
    assert not store.is_due


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path).load() is None


DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "overwritten": lambda data: b"\0" * len(data),
    "text": lambda data: b"not a checkpoint",
    "a byte": lambda data: data[:700] + bytes([data[700] ^ 0xFF]) + data[701:],
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_a_damaged_newest_is_passed_over_aloud(tmp_path: Path, damage: str) -> None:
    told: list[Decision] = []
    store = CheckpointStore(tmp_path, 0)
    store.save(1, state(1))
    store.save(2, state(2))
    newest = tmp_path / "step-00000002.pt"
    newest.write_bytes(DAMAGE[damage](newest.read_bytes()))
    with decisions_to(told.append):
        loaded = store.load()
    assert loaded is not None
    assert loaded["step"] == 1
    assert [(t.what, t.chosen) for t in told] == [("checkpoint", "step-00000001.pt")]
    assert "step-00000002.pt is damaged" in told[0].because


def test_sound_checkpoints_are_read_in_silence(tmp_path: Path) -> None:
    told: list[Decision] = []
    store = CheckpointStore(tmp_path, 0)
    store.save(1, state(1))
    with decisions_to(told.append):
        store.load()
    assert told == []


def test_when_all_are_damaged_the_error_says_what_to_do(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 0)
    store.save(1, state(1))
    (tmp_path / "step-00000001.pt").write_bytes(b"no")
    with pytest.raises(RunError, match="no checkpoint that can be used") as caught:
        store.load()
    assert "delete the step-*.pt" in caught.value.remedy


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"step": Evil()}, tmp_path / "step-00000001.pt")
    with pytest.raises(RunError):
        CheckpointStore(tmp_path).load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
@pytest.mark.parametrize("size", [4, 3_000_000])
def test_a_full_disk_is_told_and_the_older_checkpoint_stays(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import holdfast.training.checkpoint as module

    store = CheckpointStore(tmp_path, 0)
    store.save(1, state(1))
    write = module.write_sealed

    def onto_a_full_disk(path: Path, state: dict[str, object], mark: str) -> None:
        path.symlink_to("/dev/full")
        write(path, state, mark)

    monkeypatch.setattr(module, "write_sealed", onto_a_full_disk)
    with pytest.raises(MachineError, match="is full") as caught:
        store.save(2, state(2) | {"big": torch.zeros(size)})
    assert caught.value.__cause__.errno == errno.ENOSPC  # type: ignore[union-attr]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
    loaded = store.load()
    assert loaded is not None
    assert loaded["step"] == 1


def test_time_between_two_is_at_least_what_was_asked(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path, 0).is_due
    assert not CheckpointStore(tmp_path, 60).is_due


def test_a_slow_save_waits_for_fifty_times_its_cost(tmp_path: Path, monkeypatch) -> None:
    import holdfast.training.checkpoint as module

    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    store = CheckpointStore(tmp_path, 1.0)
    monkeypatch.setattr(
        module, "write_sealed", lambda path, state, mark: (path.touch(), advance(3.0))
    )

    def advance(seconds: float) -> None:
        clock[0] += seconds

    advance(2)
    assert store.is_due
    store.save(1, {})
    advance(149)
    assert not store.is_due
    advance(1.1)
    assert store.is_due


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def refused(path: Path, mark: str = "this run") -> str:
    with pytest.raises(RunError, match="no checkpoint that can be used") as caught:
        CheckpointStore(path.parent, mark=mark).load()
    return str(caught.value)


def test_one_flipped_bit_anywhere_is_seen(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, 0, mark="this run").save(7, state(7))
    path = tmp_path / "step-00000007.pt"
    sound, random = path.read_bytes(), np.random.default_rng(0)
    ends = [0, 1, len(sound) - 1, len(sound) - 64, len(sound) - 150, len(sound) - COMMENT - 2]
    for place in [*ends, *random.integers(0, len(sound), 80).tolist()]:
        path.write_bytes(flipped(sound, place, int(random.integers(8))))
        assert "step-00000007.pt" in refused(path), place
    path.write_bytes(sound)
    assert CheckpointStore(tmp_path, mark="this run").load() is not None


def test_a_file_that_is_cut_or_longer_is_seen(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, 0, mark="this run").save(7, state(7))
    path = tmp_path / "step-00000007.pt"
    sound = path.read_bytes()
    cuts = [sound[: len(sound) * share // 20] for share in range(20)]
    for data in [*cuts, sound[:-1], sound[1:], sound + b"\0", sound + sound]:
        path.write_bytes(data)
        refused(path)


def test_a_checkpoint_of_another_run_or_step_is_not_used(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, 0, mark="this run").save(7, state(7))
    path = tmp_path / "step-00000007.pt"
    assert "belongs to another run" in refused(path, "that run")
    path.rename(tmp_path / "step-00000009.pt")
    assert "step-00000009.pt is of step 7" in refused(path)


def test_what_is_no_file_or_of_no_digest_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "step-00000007.pt"
    path.mkdir()
    assert "is not a file" in refused(path)
    path.rmdir()
    path.symlink_to(path)
    assert "is not a file" in refused(path)
    path.unlink()
    torch.save(state(7), path)
    assert "of another version" in refused(path)


def test_the_next_one_takes_the_place_of_what_was_passed_over(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 0)
    for step in (1, 5):
        store.save(step, state(step))
    (tmp_path / "step-00000005.pt").write_bytes(b"no")
    again = CheckpointStore(tmp_path, 0)
    assert again.load() is not None
    for step in (2, 3):
        again.save(step, state(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002.pt", "step-00000003.pt"]


def test_a_checkpoint_is_a_plain_file_of_torch_and_keeps_what_the_run_began_with(
    tmp_path: Path,
) -> None:
    store = CheckpointStore(tmp_path, 0, run_info={"rows": "ab", "findings": []})
    assert store.read_run_info() is None
    store.save(3, state(3))
    plain = torch.load(tmp_path / "step-00000003.pt", weights_only=True)
    assert plain["step"] == 3
    assert store.read_run_info() == {"rows": "ab", "findings": []}


def test_tensors_large_and_small_are_hashed_as_they_are_written(tmp_path: Path) -> None:
    """A large one is hashed beside the writing of it."""
    many = {str(i): torch.randn(size) for i, size in enumerate((1, 3, 700_000, 2, 400_000, 0))}
    store = CheckpointStore(tmp_path, 0)
    store.save(4, {"step": 4, **many})
    loaded = store.load()
    assert loaded is not None
    assert all(torch.equal(loaded[name], many[name]) for name in many)
    path = tmp_path / "step-00000004.pt"
    data = path.read_bytes()
    path.write_bytes(flipped(data, len(data) // 2, 3))
    assert "is damaged" in refused(path, "")


def test_a_checkpoint_of_an_older_form_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 0)
    write_sealed(tmp_path / "step-00000003.pt", {"step": 3}, "", b"holdfast checkpoint 2")
    with pytest.raises(RunError, match="of another version of Holdfast") as caught:
        store.load()
    assert "delete the step-*.pt: --resume then starts the run" in caught.value.remedy


def test_an_interrupt_while_it_is_written_is_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's writer would say "unexpected pos", which looks like a defect."""
    write, written = checkpoint._HashingFile.write, []

    def interrupted(self: checkpoint._HashingFile, data: bytes) -> int:
        written.append(len(data))
        if len(written) == 3:
            raise KeyboardInterrupt
        return write(self, data)

    monkeypatch.setattr(checkpoint._HashingFile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_sealed(tmp_path / "one.pt", {"w": torch.zeros(5_000_000)}, "mark")
