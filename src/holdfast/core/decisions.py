"""What work tells whoever listens, written where it happens: the decision log, and how far a long
stretch of it is.

``notify(Decision(…))`` hands what was decided or found to whoever listens: ``with
decisions_to(listener): …``, the terminal for a person, a list in a test, nobody for a trial among
many (``decisions_to(None)``). ``with watched(show): …`` names who watches progress; inside, ``with
stage("scoring the test rows"): …`` says what goes on and ``tick(done, total)`` how far it is.
Without a watcher, or outside of a stage, a tick says nothing: the training loop has listeners of
its own.

Both go with the context, as warnings and logging do, so no function between the two has to know of
it. A thread that is begun inside, or another process, has nobody who listens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Imported later: NumPy, which it brings, would slow the help of every command.
    from holdfast.core.records import Decision, Finding

DecisionListener = Callable[["Decision | Finding"], None]
Watcher = Callable[[str, int | None, int | None], None]

_LISTENER: ContextVar[DecisionListener | None] = ContextVar("listener", default=None)
_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_STAGE: ContextVar[str | None] = ContextVar("stage", default=None)


@contextlib.contextmanager
def decisions_to(listener: DecisionListener | None) -> Iterator[None]:
    """Whatever is decided inside goes to ``listener`` alone; ``None`` listens to nothing."""
    previous = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(previous)


def current_listener() -> DecisionListener:
    """Whoever listens, for one that passes on what it hears."""
    return _LISTENER.get() or (lambda _: None)


def notify(*entries: Decision | Finding) -> None:
    """Write them into the log, in order."""
    listen = current_listener()
    for one in entries:
        listen(one)


@contextlib.contextmanager
def record_decisions(*, also_notify: bool = False) -> Iterator[list[Decision | Finding]]:
    """What is decided inside, for a record that keeps it and hands it on; nobody else hears it,
    unless it is said ``also_notify``."""
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
def stage(name: str) -> Iterator[None]:
    """Work that is called ``name``; a stage inside another stands in its place until it ends."""
    before = _STAGE.set(name)
    try:
        tick(None, None)
        yield
    finally:
        _STAGE.reset(before)


def tick(done: int | None, total: int | None) -> None:
    """``done`` of ``total`` pieces of the present stage are finished."""
    watcher, stage_name = _WATCHER.get(), _STAGE.get()
    if watcher is not None and stage_name is not None:
        watcher(stage_name, done, total)


def decisions_and_findings(
    log: Iterable[Decision | Finding],
) -> tuple[tuple[Decision, ...], tuple[Finding, ...]]:
    """The decisions and the findings of a log, each in their order."""
    from holdfast.core.records import Decision, Finding

    entries = tuple(log)
    return (
        tuple(one for one in entries if isinstance(one, Decision)),
        tuple(one for one in entries if isinstance(one, Finding)),
    )
