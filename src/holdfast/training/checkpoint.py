"""Checkpoints: written beside, synced, renamed; two are kept; read without running code.

A resumed run is bit-identical whatever the moment of its last checkpoint, so their moments may
come from a clock: often enough to lose little, seldom enough to cost little.

A checkpoint is a file of ``torch.save``, which is a zip archive, and the comment at its end says of
which run it is and what the SHA-256 of all its other bytes must be. One that is damaged, of another
run, of other settings or rows, or of another step than its name says is not used.

Of a network that is spread over processes each writes what it holds: the first a checkpoint as any
other, and last, the others files beside it (``part-STEP-KofN.pt``). What is used is the newest step
of which every process can read its own.
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

LEAST_SECONDS = 5.0
COST_SHARE = 0.02
KEPT_CHECKPOINTS = 2
NAMES, PARTS = "step-*.pt", "part-*of*.pt"
# To be raised when the fields of a state change: a state of another format is never loaded.
FORMAT = b"holdfast checkpoint 3"
DIGITS = 64
COMMENT = len(FORMAT) + 2 + 2 * DIGITS
# A zip archive ends with the length of its comment, in two bytes, and the comment.
LENGTH = COMMENT.to_bytes(2, "little")
BLOCK = 1 << 20


class CheckpointStore:
    """The ``checkpoints`` folder of one run.

    ``folder`` may be ``None``: nothing is kept. ``every_s`` is the least time between two; 0 writes
    one after every step. ``load`` notifies when a checkpoint cannot be read and an older one is
    used, which ``decisions`` then holds too. ``mark`` says which run this is: what was written
    under another is not read. ``run_info`` is kept in each state as ``beside``: what the run began
    with. ``part`` says which part of a spread network this process holds, of how many.
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
        """Whether enough time has passed for the next one to cost at most a fiftieth of it."""
        waited = time.perf_counter() - self._last
        return self._folder is not None and waited >= max(self._every_s, self._cost / self._share)

    def save(self, step: int, state: Mapping[str, object]) -> None:
        """Write the state of ``step`` and drop all but the newest two."""
        if self._folder is None:
            return
        start = time.perf_counter()
        self._folder.mkdir(parents=True, exist_ok=True)
        full_state = {**state, "beside": self._run_info}
        write_atomically(self._path(step), lambda path: write_sealed(path, full_state, self._mark))
        unusable, self._unusable = self._unusable, []
        # One that was passed over may be of this step, and is by now the one just written.
        for old in {*self._paths()[:-KEPT_CHECKPOINTS], *unusable} - {self._path(step)}:
            # A folder of such a name was not made here.
            with contextlib.suppress(IsADirectoryError):
                old.unlink(missing_ok=True)
        self._last = time.perf_counter()
        self._cost = self._last - start

    def load(self) -> dict[str, Any] | None:
        """The newest state, or ``None`` when there is none.

        Raises ``RunError`` when checkpoints are there but none can be used, or where they are of
        another number of processes.
        """
        from holdfast.training.machine.sharding import gather_objects

        self._check_parts()
        problems: list[str] = []
        own_paths = {self._step_of(path): path for path in self._paths()}
        steps = gather_objects([[*own_paths]], self._part[1])
        # Those of which every process has a part, until each has read its own.
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
                        f"{'; '.join(problems)}: the one before is used, and the next replaces it"
                    )
                    self.decisions = (Decision("checkpoint", path.name, because, prominent=True),)
                    notify(self.decisions[0])
                return state
            problems += step_problems
        if problems:
            raise RunError(
                str(self._folder),
                f"holds no checkpoint that can be used: {'; '.join(problems)}",
                None,
                f"Restore them from a copy, or delete the {NAMES}: --resume then starts the run "
                "anew.",
            )
        return None

    def _check_parts(self) -> None:
        """Raise ``RunError`` where what lies there was written by another number of processes."""
        # A folder that cannot be looked into is refused with the other files of it.
        self._paths()
        if self._folder is None or not self._folder.exists():
            return
        names = [path.stem for path in self._folder.iterdir() if path.match(PARTS)]
        counts = {int(name.rpartition("of")[2]) for name in names}
        count = self._part[1]
        one_process = count > 1 and not counts and any(self._folder.glob(NAMES))
        if one_process or counts - {count}:
            process_count = 1 if one_process else max(counts - {count})
            raise RunError(
                str(self._folder),
                f"holds checkpoints of a run that was spread over {process_count} processes",
                count,
                f"Continue it with {process_count}, or start a new run.",
            )

    def read_run_info(self) -> dict[str, Any] | None:
        """What the newest checkpoint that can be used keeps as ``read_run_info``; ``None`` without
        one."""
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
        """The step in a name, as it is written there."""
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
                f"cannot be looked into: {reason(error)}",
                None,
                "Make it readable, or delete it: --resume then starts the run anew.",
            ) from error


class UnusableCheckpoint(Exception):
    """Why a checkpoint is not used, as the end of a sentence that begins with its name."""


class UnsealedCheckpoint(UnusableCheckpoint):
    """A file without the comment that ``write_sealed`` puts at its end."""


class _HashingFile:
    """A file that is written from its beginning to its end, with the SHA-256 of what was written
    but for the last two bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._pending, self.digest = file, b"", hashlib.sha256()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        view = memoryview(data).cast("B")
        if len(view) < BLOCK:
            self._hash(view)
            self._file.write(view)
            return len(view)
        # Both let other threads run, and a large tensor takes as long to hash as to write.
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
    """A file of ``torch.save`` that says of what it is, in which ``form`` (as long as ``FORMAT``),
    and what its bytes must be.

    Through a Python file, so that a full disk shows as the operating system's error: PyTorch's
    own writer has a sentence of its own for it.
    """
    import torch

    with path.open("wb") as file:
        hashing: Any = _HashingFile(file)
        try:
            torch.save(state, hashing)
        except RuntimeError as error:
            # So does an interrupt, which that writer would also hide behind a sentence.
            if isinstance(error.__context__, OSError | KeyboardInterrupt):
                raise error.__context__ from error
            raise
        comment = _comment(mark, form)
        hashing.digest.update(comment)
        file.seek(-len(LENGTH), 2)
        file.write(comment + hashing.digest.hexdigest().encode())


def _comment(mark: str, form: bytes) -> bytes:
    """The length of the comment and the comment itself, but for the SHA-256."""
    return LENGTH + form + b" " + hashlib.sha256(mark.encode()).hexdigest().encode() + b" "


def read_sealed(path: Path, mark: str, form: bytes = FORMAT) -> dict[str, Any]:
    """The state in a whole file that ``write_sealed`` wrote with this mark and form. Raises
    ``UnusableCheckpoint``, or ``UnsealedCheckpoint``, for any other, ``MachineError`` where memory
    runs out."""
    import torch

    try:
        _check(path, mark, form)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise MachineError(
            str(path),
            "needs more memory to be read than there is",
            None,
            "Give the process more memory.",
        ) from error
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
            raise UnsealedCheckpoint("is damaged, or of another version of Holdfast")
        file.seek(0)
        digest, remaining, block = hashlib.sha256(), start, memoryview(bytearray(BLOCK))
        while remaining and (size := file.readinto(block[: min(BLOCK, remaining)])):
            digest.update(block[:size])
            remaining -= size
        digest.update(comment[:-DIGITS])
    if comment[-DIGITS:] != digest.hexdigest().encode():
        raise UnusableCheckpoint("is damaged: its SHA-256 is not the one that it was written with")
    if not comment.startswith(_comment(mark, form)):
        raise UnusableCheckpoint("is of another run, or of other rows or settings")


class SealedFile:
    """A piece of work that is done, on disk until its run is finished, so that a run that was
    killed does not repeat it; without a ``path`` nothing is kept. ``mark`` says of what it is: what
    was written under another is not read."""

    def __init__(self, path: Path | None, mark: str, form: bytes) -> None:
        self._path, self._form = path, form
        self._mark = hashlib.sha256(mark.encode()).hexdigest()

    def save(self, state: Mapping[str, object]) -> None:
        """Write it whole or not at all."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, lambda path: write_sealed(path, state, self._mark, self._form))

    def load(self, subject: str, consequence: str = "") -> dict[str, Any] | None:
        """The state; ``None`` where it is to be made: the log says where ``subject`` is there and
        cannot be used, and what happens ``consequence``."""
        if self._path is None or not self._path.exists():
            return None
        try:
            return read_sealed(self._path, self._mark, self._form)
        except UnusableCheckpoint as error:
            notify(Decision(subject, "not used", f"{self._path.name} {error}{consequence}"))
            return None
