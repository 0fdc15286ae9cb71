"""The runs of a folder: found, summarized, and read again only where something changed; and their
list: searched, filtered, sorted, in pages, with a small bar for each score."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from holdfast.core.lock import LOCK_FILE as LOCK
from holdfast.core.metric_names import LOWER_IS_BETTER, metric_name
from holdfast.core.printable import printable
from holdfast.core.records import Estimate
from holdfast.core.run_files import EVENTS_FILE, RESULT_FILE
from holdfast.plugins.dashboard.summary import MARKS, STATES, Summary, read_summary, state_of
from holdfast.report.charts.svg import element
from holdfast.report.numbers import interval, is_rate, number

# Levels of folders below the first: runs/, runs/project/, runs/project/part/.
MAX_DEPTH = 3
# The folder is scanned again after this multiple of the scan's duration, plus a second.
RESCAN_RATIO = 20.0
# A folder whose scan takes longer is scanned in the background [s].
SLOW_SCAN_S = 0.2
WATCHED = (RESULT_FILE, EVENTS_FILE, LOCK)

FileVersions = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run's folder, its name on the pages, and the versions of its files."""

    name: str
    path: Path
    names: frozenset[str]
    version: FileVersions


@dataclass(frozen=True, slots=True)
class RunList:
    """The runs known at a moment: ``summaries`` by name; ``unread`` runs without a summary yet;
    ``skipped_links`` that were not followed, ``unreadable`` folders that could not be opened."""

    summaries: Mapping[str, Summary]
    unread: int = 0
    skipped_links: int = 0
    unreadable: int = 0


class Runs:
    """The runs below ``root``, which may be a run itself. Only names found by scanning are valid:
    no text of a request becomes a path.

    Links are not followed, so that nothing outside ``root`` is shown. Thread-safe.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._scanning = threading.Lock()
        self.version = 0
        self._run_folders: dict[str, ListedRun] = {}
        self._summaries: dict[str, tuple[FileVersions, Summary]] = {}
        self._folders: dict[Path, int] = {}
        self._links = self._unreadable = 0
        self._scanned_at = -1e9
        self._scan_seconds = 0.0

    def path(self, name: str) -> Path | None:
        """The folder of the run with this name; ``None`` where it does not exist."""
        if name not in self._run_folders:
            self._scan()
        folder = self._run_folders.get(name)
        # A link that has replaced it may lead anywhere.
        if folder is None or not folder.path.is_dir() or folder.path.is_symlink():
            return None
        return folder.path

    def list_runs(self, within_s: float = 60.0) -> RunList:
        """Every run in its current state; those that could not be read within ``within_s`` count as
        ``unread`` and are read at the next call."""
        until = time.monotonic() + within_s
        if time.monotonic() - self._scanned_at > min(60.0, 1.0 + RESCAN_RATIO * self._scan_seconds):
            if self._scan_seconds <= SLOW_SCAN_S or not self._run_folders:
                self._scan()
            elif self._scanning.acquire(blocking=False):
                threading.Thread(target=self._scan_in_background, name="runs", daemon=True).start()
        summaries: dict[str, Summary] = {}
        unread = 0
        for folder in list(self._run_folders.values()):
            cached = self._summaries.get(folder.name)
            if (
                cached
                and cached[0] == folder.version
                and cached[1].state in ("finished", "damaged")
            ):
                summaries[folder.name] = cached[1]
            elif time.monotonic() < until:
                summaries[folder.name] = self._read(folder)
            else:
                unread += 1
        return RunList(summaries, unread, self._links, self._unreadable)

    def _scan_in_background(self) -> None:
        """Scan a large folder while the page shows what is known; a new ``version`` tells waiting
        pages."""
        try:
            self._scan()
            self.version += 1
        finally:
            self._scanning.release()

    def changed(self) -> bool:
        """Whether an unfinished run changed, or runs were added or removed; finished runs are not
        checked, so that it costs next to nothing."""
        if any(
            _modified_ns(folder) != previous for folder, previous in list(self._folders.items())
        ):
            self._scanned_at = -1e9
            return True
        for name, (_, summary) in list(self._summaries.items()):
            run_folder = self._run_folders.get(name)
            if run_folder and summary.state in ("running", "interrupted"):
                names = _names(run_folder.path)
                state = state_of(run_folder.path, names) if names else None
                if state != summary.state or run_version(run_folder.path) != run_folder.version:
                    self._scanned_at = -1e9
                    return True
        return False

    def summary(self, name: str) -> Summary | None:
        """The current summary of one run; ``None`` where it is gone."""
        path = self.path(name)
        if path is None:
            return None
        names = _names(path)
        return self._read(ListedRun(name, path, names, run_version(path))) if names else None

    def _read(self, folder: ListedRun) -> Summary:
        state = state_of(folder.path, folder.names)
        cached = self._summaries.get(folder.name)
        if cached and cached[0] == folder.version:
            # Only the process that holds it may have changed.
            if cached[1].state in (state, "damaged"):
                return cached[1]
            if "finished" not in (state, cached[1].state):
                summary = replace(cached[1], state=state)
                self._summaries[folder.name] = (folder.version, summary)
                return summary
        when = max((one[0] for one in folder.version if one), default=0) / 1e9
        summary = read_summary(
            folder.path, folder.name, state, when or _modified_ns(folder.path) / 1e9
        )
        self._summaries[folder.name] = (folder.version, summary)
        return summary

    def _scan(self) -> None:
        with self._lock:
            started = time.monotonic()
            self._links = self._unreadable = 0
            folders: dict[Path, int] = {}
            run_folders = {one.name: one for one in self._walk(self.root, (), folders)}
            self._run_folders, self._folders = run_folders, folders
            for removed in set(self._summaries) - set(run_folders):
                del self._summaries[removed]
            self._scanned_at = time.monotonic()
            self._scan_seconds = self._scanned_at - started

    def _walk(
        self, folder: Path, parts: Sequence[str], folders: dict[Path, int]
    ) -> Iterator[ListedRun]:
        stamp = _modified_ns(folder)
        try:
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError:
            self._unreadable += 1
            return
        names = frozenset(one.name for one in inside)
        if names & MARKS:
            name = "/".join(map(_printable_name, parts or (folder.name,)))
            yield ListedRun(name, folder, names, run_version(folder))
            return
        folders[folder] = stamp
        if len(parts) >= MAX_DEPTH:
            return
        for entry in inside:
            with contextlib.suppress(OSError):
                if entry.is_symlink():
                    self._links += 1
                elif entry.is_dir() and not entry.name.startswith("."):
                    yield from self._walk(Path(entry.path), (*parts, entry.name), folders)


def _printable_name(part: str) -> str:
    """A folder's name, printable for addresses and pages; invalid bytes are escaped."""
    return printable(part.encode("utf-8", "backslashreplace").decode())


def _names(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(one.name for one in entries)
    except OSError:
        return frozenset()


def run_version(run: Path) -> FileVersions:
    """The times, sizes and inodes of the files that a summary is made from."""
    return tuple(file_version(run / name) for name in WATCHED)


def file_version(path: Path) -> tuple[int, int, int] | None:
    """A file's modification time [ns], size and inode; ``None`` where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _modified_ns(path: Path) -> int:
    return (file_version(path) or (0,))[0]


PAGE = 50
MAX_QUERY_LENGTH = 200
WIDE, HIGH = 120.0, 14.0


@dataclass(frozen=True, slots=True)
class Query:
    """A search. ``words`` must all occur in a run's name, task, model, data, verdict or state;
    ``sort`` is a column, descending with a minus."""

    words: str = ""
    task: str = ""
    state: str = ""
    verdict: str = ""
    sort: str = "-when"
    page: int = 1

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Query:
        """The query of an address; unknown values are ignored."""
        page = given.get("page", "1")
        sort = given.get("sort", "-when")
        return cls(
            words=given.get("q", "")[:MAX_QUERY_LENGTH].strip(),
            task=given.get("task", "")[:MAX_QUERY_LENGTH],
            state=given.get("state", "")[:MAX_QUERY_LENGTH],
            verdict=given.get("verdict", "")[:MAX_QUERY_LENGTH],
            sort=sort if sort.removeprefix("-") in COLUMNS else "-when",
            page=max(1, int(page)) if page.isascii() and page.isdecimal() and len(page) < 7 else 1,
        )

    def address(self, **changes: object) -> str:
        """The address of this query with some values changed; the page restarts at 1."""
        query = replace(self, **{"page": 1, **changes})  # type: ignore[arg-type]
        values = {
            "q": query.words,
            "task": query.task,
            "state": query.state,
            "verdict": query.verdict,
            "sort": "" if query.sort == "-when" else query.sort,
            "page": "" if query.page == 1 else str(query.page),
        }
        non_empty = {name: value for name, value in values.items() if value}
        return "/?" + urlencode(non_empty) if non_empty else "/"


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of the list: ``total`` of ``total_runs`` runs were found; ``columns`` are headings,
    their links, and the current order; ``choices`` are the values of the filters."""

    query: Query
    runs: tuple[Summary, ...]
    total: int
    total_runs: int
    pages: int
    columns: tuple[tuple[str, str, str], ...]
    choices: Mapping[str, tuple[str, ...]]

    @property
    def first(self) -> int:
        """The place of the first run shown, from 1."""
        return (self.query.page - 1) * PAGE + 1


def list_page(summaries: Sequence[Summary], query: Query) -> ListPage:
    """The page of the list for ``query``; a page beyond the last is the last."""
    words = query.words.casefold().split()
    matching = [
        one
        for one in summaries
        if all(word in one.searched for word in words)
        and query.task in ("", one.task)
        and query.state in ("", one.state)
        and query.verdict in ("", one.verdict)
    ]
    value = COLUMNS[query.sort.removeprefix("-")][1]
    matching.sort(key=lambda one: one.name)
    # Runs without a value are last, in either order.
    with_value = [one for one in matching if value(one) is not None]
    with_value.sort(key=value, reverse=query.sort.startswith("-"))
    matching = with_value + [one for one in matching if value(one) is None]
    pages = max(1, math.ceil(len(matching) / PAGE))
    query = replace(query, page=min(query.page, pages))
    start = (query.page - 1) * PAGE
    return ListPage(
        query,
        tuple(matching[start : start + PAGE]),
        len(matching),
        len(summaries),
        pages,
        tuple(_column(query, one) for one in COLUMNS),
        {
            "task": tuple(sorted({one.task for one in summaries} - {""})),
            "state": tuple(x for x in STATES if any(one.state == x for one in summaries)),
            "verdict": tuple(sorted({one.verdict for one in summaries} - {""})),
        },
    )


def score_text(summary: Summary) -> tuple[str, str, str]:
    """The score, its interval and its name: ``91.2 %``, ``87.6–93.8``, ``Accuracy``."""
    score, metric = summary.score, summary.metric
    title = metric_name(metric) if metric else ""
    span = interval(score, metric) if score.value is not None else ""
    return number(score.value, metric), span, title


def score_bar(score: Estimate, metric: str) -> Markup:
    """A share with its interval on a line from 0 to 100 %; empty for other numbers."""
    if score.value is None or not is_rate(metric) or not 0 <= score.value <= 1:
        return Markup("")

    def x(value: float) -> float:
        return 4 + min(1.0, max(0.0, value)) * (WIDE - 8)

    middle = HIGH / 2
    parts = [element("line", x1=4, x2=WIDE - 4, y1=middle, y2=middle, class_="grid")]
    if score.low is not None and score.high is not None:
        ends = {"x1": x(score.low), "x2": x(score.high)}
        parts.append(element("line", y1=middle, y2=middle, class_="whisker", **ends))
    parts.append(element("circle", cx=x(score.value), cy=middle, r=3.5, class_="dot"))
    return element(
        "svg",
        element("g", *parts, class_="main"),
        class_="mini",
        viewBox=f"0 0 {WIDE:g} {HIGH:g}",
        width=WIDE,
        height=HIGH,
        aria_hidden="true",
    )


def _column(query: Query, name: str) -> tuple[str, str, str]:
    title, _, falls = COLUMNS[name]
    now = {name: "ascending", f"-{name}": "descending"}.get(query.sort, "")
    first, other = (f"-{name}", name) if falls else (name, f"-{name}")
    return title, query.address(sort=other if query.sort == first else first), now


def _better(summary: Summary) -> tuple[str, float] | None:
    """Scores grouped by metric, and signed so that larger is better."""
    value = summary.score.value
    if value is None:
        return None
    return summary.metric, -value if summary.metric in LOWER_IS_BETTER else value


COLUMNS: Mapping[str, tuple[str, Callable[[Summary], Any], bool]] = {
    "name": ("Run", lambda one: one.name.casefold(), False),
    "score": ("Score", _better, True),
    "verdict": ("Verdict", lambda one: one.verdict or None, False),
    "state": ("State", lambda one: STATES.index(one.state), False),
    "when": ("Last update", lambda one: one.when, True),
}
"""Each column's title, its sort key, and whether the largest comes first."""
