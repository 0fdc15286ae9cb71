"""The one thread that asks models: turns of engines in the order of their ranks, and between two
turns whatever else needs a model alone."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from holdfast.training.machine.machine import flushed_subnormals

T = TypeVar("T")
Work = Callable[[], None]


class ModelThread:
    """A thread with work of several sources. A source gives its next turn when it is asked; one of
    a higher rank waits until all of lower ranks have none."""

    def __init__(self, name: str = "model") -> None:
        self._wake = threading.Condition()
        self._sources: list[tuple[int, Callable[[], Work | None]]] = []
        self._jobs: deque[Work] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, source: Callable[[], Work | None], rank: int = 0) -> None:
        """Ask ``source`` for work from now on."""
        with self._wake:
            self._sources = sorted([*self._sources, (rank, source)], key=lambda one: one[0])
            self._wake.notify()

    def remove(self, source: Callable[[], Work | None]) -> None:
        """Ask it no more; the thread ends with its last source."""
        with self._wake:
            self._sources = [one for one in self._sources if one[1] != source]
            last = not self._sources
        if last:
            self.close()

    def wake(self) -> None:
        """A source has work."""
        with self._wake:
            self._wake.notify()

    def run(self, job: Callable[[], T]) -> Future[T]:
        """Do ``job`` between two turns, one job at a time."""
        future: Future[T] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)

        with self._wake:
            if self._closed:
                future.cancel()
                return future
            self._jobs.append(do)
            self._wake.notify()
        return future

    def close(self) -> None:
        """End the thread when its turn is over; what waits is left. May be called twice."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        with flushed_subnormals():
            while True:
                with self._wake:
                    works = self._next()
                    while not works and not self._closed:
                        self._wake.wait()
                        works = self._next()
                    if self._closed:
                        return
                for work in works:
                    # Each settles its own errors; one that does not must not end the thread.
                    with contextlib.suppress(Exception):
                        work()

    def _next(self) -> list[Work]:
        works: list[Any] = [self._jobs.popleft()] if self._jobs else []
        for _, source in self._sources:
            turn = source()
            if turn is not None:
                return [*works, turn]
        return works
