"""The decision log: what was decided and found, written where it happens.

``notify(Decision(…))`` hands it to whoever listens: ``with decisions_to(listener): …``, the
terminal for a person, a list in a test, nobody for a trial among many (``decisions_to(None)``). It
goes with the context, as warnings and logging do, so no function between the two has to know of it.
A thread that is begun inside, or another process, has nobody who listens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from holdfast.core.records import Decision, Finding

DecisionListener = Callable[[Decision | Finding], None]

_LISTENER: ContextVar[DecisionListener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def decisions_to(listener: DecisionListener | None) -> Iterator[None]:
    """Whatever is decided inside goes to ``listener`` alone; ``None`` listens to nothing."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def listener() -> DecisionListener:
    """Whoever listens, for one that passes on what it hears."""
    return _LISTENER.get() or (lambda _: None)


def notify(*made: Decision | Finding) -> None:
    """Write them into the log, in order."""
    hear = listener()
    for one in made:
        hear(one)


@contextlib.contextmanager
def recorded() -> Iterator[list[Decision | Finding]]:
    """What is decided inside, for a record that keeps it and hands it on; nobody else hears it."""
    log: list[Decision | Finding] = []
    with decisions_to(log.append):
        yield log
