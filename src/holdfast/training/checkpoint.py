"""Checkpoints: written to a temporary file, synced, renamed; two are kept; read without running
code.

A resumed run is bit-identical whatever the moment of its last checkpoint. So a clock may decide
when to write one: often enough to lose little, rarely enough to cost little.

A checkpoint is a file of ``torch.save``, which is a zip archive. The comment at its end says which
run it belongs to, and the SHA-256 of all its other bytes. A checkpoint is not used if it is
damaged, or belongs to another run, other settings or rows, or another step than its name says.

For a sharded network each process writes its own shards: the first process a normal checkpoint, as
the last step, the others additional files (``part-STEP-KofN.pt``). The newest step of which every
process can read its own file is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from holdfast.core.decisions import notify
from holdfast.core.errors import MachineError, RunError
from holdfast.core.files import write_atomically
from holdfast.core.input_errors import reason
from holdfast.core.records import Decision
from holdfast.core.wording import count_phrase

LEAST_SECONDS = 5.0
COST_SHARE = 0.02
KEPT_CHECKPOINTS = 2
NAMES, PARTS = "step-*.pt", "part-*of*.pt"
# Increase it when the fields of a state change: a state of another format is never loaded.
FORMAT = b"holdfast checkpoint 3"
DIGITS = 64
COMMENT = len(FORMAT) + 2 + 2 * DIGITS
# A zip archive ends with the length of its comment, in two bytes, and the comment.
LENGTH = COMMENT.to_bytes(2, "little")
BLOCK = 1 << 20


class CheckpointStore:
    """The ``checkpoints`` folder of one run.

    ``folder`` may be ``None``: nothing is written. ``every_s`` is the minimum time between two; 0
    writes one after every step. ``load`` notifies when a checkpoint cannot be read and an older one
    is used, and adds this to ``decisions``. ``mark`` identifies the run: files with another mark
    are not read. ``run_info`` is stored in each state as ``beside``: what the run began with.
    ``part`` says which shard of a sharded network this process holds, of how many.
    """

    def __init__(
        self,
        folder: Path | None,
        every_s: float = LEAST_SECONDS,
        mark: str = "",
        run_info: Mapping[str, object] = MappingProxyType({}),
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._folder = folder
        self._every_s = every_s
        self._share = COST_SHARE if every_s else float("inf")
        self._mark = mark
        self._run_info = dict(run_info)
        self._part = part
        self._unusable: list[Path] = []
        self.decisions: tuple[Decision, ...] = ()
        self._last = time.perf_counter()
        self._cost = 0.0

    @property
    def is_enabled(self) -> bool:
        """Whether anything is written at all."""
        return self._folder is not None

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed for the next one to take at most 2 % of it."""
        waited = time.perf_counter() - self._last
        return self._folder is not None and waited >= max(self._every_s, self._cost / self._share)

    def save(self, step: int, state: Mapping[str, object]) -> None:
        """Write the state of ``step`` and delete all but the newest two."""
        if self._folder is None:
            return
        start = time.perf_counter()
        self._folder.mkdir(parents=True, exist_ok=True)
        full_state = {**state, "beside": self._run_info}
        write_atomically(self._path(step), lambda path: write_sealed(path, full_state, self._mark))
        unusable, self._unusable = self._unusable, []
        # One that was skipped may be of this step, and is by now the one just written.
        for old in {*self._paths()[:-KEPT_CHECKPOINTS], *unusable} - {self._path(step)}:
            # Holdfast did not create a folder of such a name.
            with contextlib.suppress(IsADirectoryError):
                old.unlink(missing_ok=True)
        self._last = time.perf_counter()
        self._cost = self._last - start

    def load(self) -> dict[str, Any] | None:
        """The newest state; ``None`` where there is no checkpoint.

        Raises ``RunError`` where no checkpoint can be used, or where they are of another number of
        processes.
        """
        from holdfast.training.machine.sharding import gather_objects

        self._check_parts()
        problems: list[str] = []
        own_paths = {self._step_of(path): path for path in self._paths()}
        steps = gather_objects([[*own_paths]], self._part[1])
        # Start with the steps of which every process has a file, until each has read its own.
        for step in sorted(set.intersection(*map(set, steps)), reverse=True):
            path, state, problem = own_paths[step], None, ""
            try:
                state = self._read(path)
            except UnusableCheckpoint as error:
                problem = f"{path.name} {error}"
                self._unusable.append(path)
            step_problems = [one for one in gather_objects([problem], self._part[1]) if one]
            if not step_problems:
                if problems:
                    because = (
                        f"{'; '.join(problems)}: the previous one is used, and the next replaces it"
                    )
                    self.decisions = (Decision("checkpoint", path.name, because, prominent=True),)
                    notify(self.decisions[0])
                return state
            problems += step_problems
        if problems:
            raise RunError(
                str(self._folder),
                f"contains no checkpoint that can be used: {'; '.join(problems)}",
                None,
                f"Restore them from a copy, or delete the {NAMES}: --resume then starts the run "
                "from the beginning.",
            )
        return None

    def _check_parts(self) -> None:
        """Raise ``RunError`` where another number of processes wrote the files there."""
        # A folder that cannot be read is refused with its other files.
        self._paths()
        if self._folder is None or not self._folder.exists():
            return
        names = [path.stem for path in self._folder.iterdir() if path.match(PARTS)]
        counts = {int(name.rpartition("of")[2]) for name in names}
        count = self._part[1]
        one_process = count > 1 and not counts and any(self._folder.glob(NAMES))
        if one_process or counts - {count}:
            processes = count_phrase(
                1 if one_process else max(counts - {count}), "process", "processes"
            )
            rule = f"contains checkpoints of a run on {processes}"
            remedy = f"Continue it with {processes}, or start a new run."
            raise RunError(str(self._folder), rule, count, remedy)

    def read_run_info(self) -> dict[str, Any] | None:
        """The ``run_info`` of the newest checkpoint that can be used; ``None`` without one."""
        for path in reversed(self._paths()):
            try:
                run_info = self._read(path)["beside"]
            except UnusableCheckpoint:
                continue
            return dict(run_info)
        return None

    def _read(self, path: Path) -> dict[str, Any]:
        state = read_sealed(path, self._mark)
        if path.name != self._path(state["step"]).name:
            raise UnusableCheckpoint(f"is of step {state['step']}")
        return state

    def _path(self, step: int) -> Path:
        assert self._folder is not None
        number, count = self._part
        if number:
            return self._folder / f"part-{step:08d}-{number}of{count}.pt"
        return self._folder / f"step-{step:08d}.pt"

    def _step_of(self, path: Path) -> str:
        """The step in a file name, as text."""
        number, count = self._part
        return path.stem.partition("-")[2].removesuffix(f"-{number}of{count}")

    def _paths(self) -> list[Path]:
        if self._folder is None or not self._folder.exists():
            return []
        try:
            number, count = self._part
            names = f"part-*-{number}of{count}.pt" if number else NAMES
            return sorted(path for path in self._folder.iterdir() if path.match(names))
        except OSError as error:
            raise RunError(
                str(self._folder),
                f"cannot be read: {reason(error)}",
                None,
                "Make it readable, or delete it: --resume then starts the run from the beginning.",
            ) from error


class UnusableCheckpoint(Exception):
    """Why a checkpoint cannot be used, as the end of a sentence that begins with its name."""


class _HashingFile:
    """A file that is written sequentially, with the SHA-256 of its content except for the last two
    bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._pending, self.digest = file, b"", hashlib.sha256()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        view = memoryview(data).cast("B")
        if len(view) < BLOCK:
            self._hash(view)
            self._file.write(view)
            return len(view)
        # Both release the GIL, and hashing a large tensor takes as long as writing it.
        hashing_thread = threading.Thread(target=self._hash, args=(view,))
        hashing_thread.start()
        try:
            self._file.write(view)
        finally:
            hashing_thread.join()
        return len(view)

    def _hash(self, view: memoryview) -> None:
        if len(view) < len(LENGTH):
            self._pending += bytes(view)
            self.digest.update(self._pending[: -len(LENGTH)])
            self._pending = self._pending[-len(LENGTH) :]
            return
        self.digest.update(self._pending)
        self.digest.update(view[: -len(LENGTH)])
        self._pending = bytes(view[-len(LENGTH) :])

    def flush(self) -> None:
        self._file.flush()


def write_sealed(path: Path, state: Mapping[str, object], mark: str, form: bytes = FORMAT) -> None:
    """Write a file of ``torch.save`` that says which run it belongs to, its format ``form`` (as
    long as ``FORMAT``), and the checksum of its bytes.

    It goes through a Python file, so that a full disk gives the operating system's error; PyTorch's
    own writer would give a message of its own.
    """
    import torch

    with path.open("wb") as file:
        hashing: Any = _HashingFile(file)
        try:
            torch.save(state, hashing)
        except RuntimeError as error:
            # An interrupt, too, would be hidden behind a message of that writer.
            if isinstance(error.__context__, OSError | KeyboardInterrupt):
                raise error.__context__ from error
            raise
        comment = _comment(mark, form)
        hashing.digest.update(comment)
        file.seek(-len(LENGTH), 2)
        file.write(comment + hashing.digest.hexdigest().encode())


def _comment(mark: str, form: bytes) -> bytes:
    """The length of the comment and the comment itself, without the SHA-256."""
    return LENGTH + form + b" " + hashlib.sha256(mark.encode()).hexdigest().encode() + b" "


def read_sealed(path: Path, mark: str, form: bytes = FORMAT) -> dict[str, Any]:
    """The state in an intact file that ``write_sealed`` wrote with this mark and form. Raises
    ``UnusableCheckpoint`` for any other, ``MachineError`` where memory runs out."""
    import torch

    try:
        _check(path, mark, form)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError as error:
        rule = "needs more memory than is available to be read"
        raise MachineError(str(path), rule, None, "Give the process more memory.") from error
    except UnusableCheckpoint:
        raise
    except Exception as error:
        raise UnusableCheckpoint(f"cannot be read ({reason(error)})") from error
    return state


def _check(path: Path, mark: str, form: bytes) -> None:
    """Raise ``UnusableCheckpoint`` unless every byte is as it was written, and for this run."""
    if not path.is_file():
        raise UnusableCheckpoint("is not a file")
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, 2)
        start = size - COMMENT - len(LENGTH)
        file.seek(max(0, start))
        comment = file.read()
        if start < 0 or not comment.startswith(LENGTH + form):
            raise UnusableCheckpoint("is damaged, or of another version of Holdfast")
        file.seek(0)
        digest, remaining, block = hashlib.sha256(), start, memoryview(bytearray(BLOCK))
        while remaining and (size := file.readinto(block[: min(BLOCK, remaining)])):
            digest.update(block[:size])
            remaining -= size
        digest.update(comment[:-DIGITS])
    if comment[-DIGITS:] != digest.hexdigest().encode():
        raise UnusableCheckpoint("is damaged: its SHA-256 does not match the stored one")
    if not comment.startswith(_comment(mark, form)):
        raise UnusableCheckpoint("belongs to another run, or to other rows or settings")


class SealedFile:
    """An intermediate result on disk until its run is finished, so that a resumed run does not
    compute it again. Without a ``path`` nothing is stored. ``mark`` identifies what it belongs to:
    files with another mark are not read."""

    def __init__(self, path: Path | None, mark: str, form: bytes) -> None:
        self._path, self._form = path, form
        self._mark = hashlib.sha256(mark.encode()).hexdigest()

    def save(self, state: Mapping[str, object]) -> None:
        """Write it atomically."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, lambda path: write_sealed(path, state, self._mark, self._form))

    def load(self, subject: str, consequence: str = "") -> dict[str, Any] | None:
        """The state; ``None`` where it must be computed. If ``subject`` exists and cannot be used,
        a decision says so, with the ``consequence``."""
        if self._path is None or not self._path.exists():
            return None
        try:
            return read_sealed(self._path, self._mark, self._form)
        except UnusableCheckpoint as error:
            notify(
                Decision(
                    subject, "not used", f"{self._path.name} {error}{consequence}", prominent=True
                )
            )
            return None
