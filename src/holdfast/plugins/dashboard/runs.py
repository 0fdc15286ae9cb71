"""The runs of a folder: found, summed up, and looked at again only where something changed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.core.lock import NAME as LOCK
from holdfast.core.printable import printable
from holdfast.core.run_files import EVENTS, RESULT
from holdfast.plugins.dashboard.summary import MARKS, Summary, state_of, summary_of

# Levels of folders below the first: runs/, runs/project/, runs/project/part/.
DEEPEST = 3
# The whole folder is looked through again after so many times what that took, and a second.
PAUSE = 20.0
# A folder that takes longer to look through is looked through while the page is there already [s].
LONG_S = 0.2
WATCHED = (RESULT, EVENTS, LOCK)

Mark = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class RunFile:
    """A run's folder, the name that the pages know it by, and the marks of its files."""

    name: str
    path: Path
    names: frozenset[str]
    mark: Mark


@dataclass(frozen=True, slots=True)
class RunList:
    """What is known at a moment: ``summaries`` by name; ``unread`` runs that are not summed up yet;
    ``links`` that were not followed, ``closed`` folders that could not be opened."""

    summaries: Mapping[str, Summary]
    unread: int = 0
    links: int = 0
    closed: int = 0


class Runs:
    """The runs below ``root``, which may be a run itself. A name of a run is a name that was found
    there: nothing that a request says becomes a path.

    Links are not followed, so that nothing outside ``root`` is shown. Several threads may ask.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._scanning = threading.Lock()
        self.version = 0
        self._found: dict[str, RunFile] = {}
        self._summaries: dict[str, tuple[Mark, Summary]] = {}
        self._folders: dict[Path, int] = {}
        self._links = self._closed = 0
        self._looked = -1e9
        self._took = 0.0

    def path(self, name: str) -> Path | None:
        """The folder of the run of this name; ``None`` where there is none (any more)."""
        if name not in self._found:
            self._scan()
        found = self._found.get(name)
        # A link that was put in its place since may lead anywhere.
        if found is None or not found.path.is_dir() or found.path.is_symlink():
            return None
        return found.path

    def listed(self, within_s: float = 60.0) -> RunList:
        """Every run as its files say now; those that could not be read in ``within_s`` are told as
        ``unread`` and read at the next call."""
        until = time.monotonic() + within_s
        if time.monotonic() - self._looked > min(60.0, 1.0 + PAUSE * self._took):
            if self._took <= LONG_S or not self._found:
                self._scan()
            elif self._scanning.acquire(blocking=False):
                threading.Thread(target=self._scan_beside, name="runs", daemon=True).start()
        summaries: dict[str, Summary] = {}
        unread = 0
        for found in list(self._found.values()):
            kept = self._summaries.get(found.name)
            if kept and kept[0] == found.mark and kept[1].state in ("finished", "damaged"):
                summaries[found.name] = kept[1]
            elif time.monotonic() < until:
                summaries[found.name] = self._read(found)
            else:
                unread += 1
        return RunList(summaries, unread, self._links, self._closed)

    def _scan_beside(self) -> None:
        """Look through a large folder while the page shows what is known; ``version`` tells those
        who wait for news that there may be some."""
        try:
            self._scan()
            self.version += 1
        finally:
            self._scanning.release()

    def changed(self) -> bool:
        """Whether a run that is not finished went on, or runs came or went: of the finished ones
        nothing is asked, so that it costs next to nothing."""
        if any(_stamp(folder) != was for folder, was in list(self._folders.items())):
            self._looked = -1e9
            return True
        for name, (_, summary) in list(self._summaries.items()):
            found = self._found.get(name)
            if found and summary.state in ("running", "interrupted"):
                names = _names(found.path)
                state = state_of(found.path, names) if names else None
                if state != summary.state or run_mark(found.path) != found.mark:
                    self._looked = -1e9
                    return True
        return False

    def summary(self, name: str) -> Summary | None:
        """One run as its files say now; ``None`` where it is gone."""
        path = self.path(name)
        if path is None:
            return None
        names = _names(path)
        return self._read(RunFile(name, path, names, run_mark(path))) if names else None

    def _read(self, found: RunFile) -> Summary:
        state = state_of(found.path, found.names)
        kept = self._summaries.get(found.name)
        if kept and kept[0] == found.mark:
            # Only who holds it may be another than before.
            if kept[1].state in (state, "damaged"):
                return kept[1]
            if "finished" not in (state, kept[1].state):
                made = replace(kept[1], state=state)
                self._summaries[found.name] = (found.mark, made)
                return made
        when = max((one[0] for one in found.mark if one), default=0) / 1e9
        made = summary_of(found.path, found.name, state, when or _stamp(found.path) / 1e9)
        self._summaries[found.name] = (found.mark, made)
        return made

    def _scan(self) -> None:
        with self._lock:
            started = time.monotonic()
            self._links = self._closed = 0
            folders: dict[Path, int] = {}
            found = {one.name: one for one in self._walk(self.root, (), folders)}
            self._found, self._folders = found, folders
            for gone in set(self._summaries) - set(found):
                del self._summaries[gone]
            self._looked = time.monotonic()
            self._took = self._looked - started

    def _walk(
        self, folder: Path, parts: Sequence[str], folders: dict[Path, int]
    ) -> Iterator[RunFile]:
        stamp = _stamp(folder)
        try:
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError:
            self._closed += 1
            return
        names = frozenset(one.name for one in inside)
        if names & MARKS:
            name = "/".join(map(_named, parts or (folder.name,)))
            yield RunFile(name, folder, names, run_mark(folder))
            return
        folders[folder] = stamp
        if len(parts) >= DEEPEST:
            return
        for entry in inside:
            with contextlib.suppress(OSError):
                if entry.is_symlink():
                    self._links += 1
                elif entry.is_dir() and not entry.name.startswith("."):
                    yield from self._walk(Path(entry.path), (*parts, entry.name), folders)


def _named(part: str) -> str:
    """A folder's name as an address and a page can bear it; bytes that are no text are written
    out."""
    return printable(part.encode("utf-8", "backslashreplace").decode())


def _names(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(one.name for one in entries)
    except OSError:
        return frozenset()


def run_mark(run: Path) -> Mark:
    """When the files that a summary is made of were written, their sizes and numbers."""
    return tuple(file_mark(run / name) for name in WATCHED)


def file_mark(path: Path) -> tuple[int, int, int] | None:
    """When a file was written [ns], its size and number; ``None`` where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _stamp(path: Path) -> int:
    return (file_mark(path) or (0,))[0]
