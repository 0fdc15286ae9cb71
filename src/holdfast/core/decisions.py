"""The decision log, and the progress of long stages.

``notify(Decision(…))`` passes a decision or finding to the current listener: ``with
decisions_to(listener): …``. The listener is the terminal in a command, a list in a test, and nobody
for one trial among many (``decisions_to(None)``). ``with report_progress_to(show): …`` names who
watches progress; inside, ``with stage("scoring the test rows"): …`` names the work and ``tick(done,
total)`` its progress. Without a watcher, or outside of a stage, a tick without a name of its own
does nothing: the training loop has its own listeners.

Both belong to the context, as for warnings and logging, so no function in between needs to know of
them. A new thread or process has no listener.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Imported later: NumPy, which it brings, would slow the help of every command.
    from holdfast.core.records import Decision, Finding

# The decision on a run that begins with an adapter.
STARTING_ADAPTER = "starting adapter"
DecisionListener = Callable[["Decision | Finding"], None]
Watcher = Callable[[str, int | None, int | None], None]

_LISTENER: ContextVar[DecisionListener | None] = ContextVar("listener", default=None)
_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_STAGE: ContextVar[str | None] = ContextVar("stage", default=None)


@contextlib.contextmanager
def decisions_to(listener: DecisionListener | None) -> Iterator[None]:
    """Pass all decisions inside to ``listener`` only; ``None`` drops them."""
    previous = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(previous)


def current_listener() -> DecisionListener:
    """The current listener, for a listener that passes on what it receives."""
    return _LISTENER.get() or (lambda _: None)


def notify(*entries: Decision | Finding) -> None:
    """Write entries into the log, in order."""
    listen = current_listener()
    for one in entries:
        listen(one)


@contextlib.contextmanager
def record_decisions(*, also_notify: bool = False) -> Iterator[list[Decision | Finding]]:
    """Collect the decisions inside, for a record that stores and passes them on. The outer listener
    does not receive them, unless ``also_notify``."""
    log: list[Decision | Finding] = []
    outer_listener = current_listener() if also_notify else None

    def record(entry: Decision | Finding) -> None:
        log.append(entry)
        if outer_listener is not None:
            outer_listener(entry)

    with decisions_to(record):
        yield log


@contextlib.contextmanager
def report_progress_to(watcher: Watcher) -> Iterator[None]:
    """Every stage and tick inside is reported to ``watcher(what, done, total)``."""
    before = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(before)


@contextlib.contextmanager
def stage(name: str | None) -> Iterator[None]:
    """Work named ``name``. A stage inside another replaces it until it ends; ``None`` hides the
    progress inside."""
    before = _STAGE.set(name)
    try:
        tick(None, None)
        yield
    finally:
        _STAGE.reset(before)


def tick(done: int | None, total: int | None, what: str | None = None) -> None:
    """``done`` of ``total`` pieces of ``what`` (default: the current stage) are finished."""
    watcher, stage_name = _WATCHER.get(), what or _STAGE.get()
    if watcher is not None and stage_name is not None:
        watcher(stage_name, done, total)


def decisions_in(*logs: Iterable[Decision | Finding]) -> tuple[Decision, ...]:
    """The decisions of some logs, in order."""
    from holdfast.core.records import Decision

    return tuple(one for log in logs for one in log if isinstance(one, Decision))


def findings_in(*logs: Iterable[Decision | Finding]) -> tuple[Finding, ...]:
    """The findings of some logs, in order."""
    from holdfast.core.records import Finding

    return tuple(one for log in logs for one in log if isinstance(one, Finding))


def decisions_and_findings(
    log: Iterable[Decision | Finding],
) -> tuple[tuple[Decision, ...], tuple[Finding, ...]]:
    """The decisions and the findings of a log, each in order."""
    entries = tuple(log)
    return decisions_in(entries), findings_in(entries)
