"""What a long stretch of work is doing, and how much of it is done, for whoever watches it.

``with watched(show): …`` names the watcher; inside, ``with stage("scoring the test rows"): …`` says
what goes on and ``tick(done, total)`` how far it is. Without a watcher, or outside of a stage, a
tick says nothing: the training loop has listeners of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Watcher = Callable[[str, int | None, int | None], None]

_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_STAGE: ContextVar[str | None] = ContextVar("stage", default=None)


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Every stage and tick inside is reported to ``watcher(what, done, total)``."""
    before = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(before)


@contextlib.contextmanager
def stage(what: str) -> Iterator[None]:
    """Work that is called ``what``; a stage inside another stands in its place until it ends."""
    before = _STAGE.set(what)
    try:
        _report(None, None)
        yield
    finally:
        _STAGE.reset(before)


def tick(done: int, total: int) -> None:
    """``done`` of ``total`` pieces of the present stage are finished."""
    _report(done, total)


def _report(done: int | None, total: int | None) -> None:
    watcher, what = _WATCHER.get(), _STAGE.get()
    if watcher is not None and what is not None:
        watcher(what, done, total)
