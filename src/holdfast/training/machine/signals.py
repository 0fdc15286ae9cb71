"""Ctrl-C, SIGTERM and SIGHUP stop the loop after the current step; a second one stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

HANGUP = getattr(signal, "SIGHUP", None)


def ending_signals() -> tuple[int, ...]:
    """The signals that end this process from outside: SIGTERM of a batch system or ``kill``, SIGHUP
    of a closed terminal. An ignored SIGHUP is not one of them and stays ignored, as ``nohup``
    requires."""
    if HANGUP is None or signal.getsignal(HANGUP) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, HANGUP)


# A handler as Python has it; a number is one of Python's two own, ``None`` one set elsewhere.
SignalHandler = Callable[[int, FrameType | None], object] | int | None


class StopSignals:
    """A context in which ``stop_requested`` says whether the user wants to stop.

    Outside the main thread signals cannot be caught, and this does nothing.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self._before: dict[int, SignalHandler] = {}

    def __enter__(self) -> StopSignals:
        self._before = _set_handlers((signal.SIGINT, *ending_signals()), self._request_stop)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _restore_handlers(self._before)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        _leave_terminal(number)
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True


@contextlib.contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise ``KeyboardInterrupt`` like Ctrl-C, where the loop is not
    running."""
    before = _set_handlers(ending_signals(), _interrupt)
    try:
        yield
    finally:
        _restore_handlers(before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _leave_terminal(number)
    raise KeyboardInterrupt


def _set_handlers(numbers: tuple[int, ...], handler: SignalHandler) -> dict[int, SignalHandler]:
    """Set the handler; return the previous handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    previous = {number: signal.getsignal(number) for number in numbers}
    for number in previous:
        signal.signal(number, handler)
    return previous


def _restore_handlers(before: dict[int, SignalHandler]) -> None:
    for number, handler in before.items():
        # ``None``: a program that embeds Python set it, and only that program can restore it.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _leave_terminal(number: int) -> None:
    """After SIGHUP the terminal may be closed, and printing to it would end the run with an error
    before it is saved: discard all output from here on."""
    if number != HANGUP:
        return
    for descriptor in (1, 2):
        if not _writable(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _writable(descriptor: int) -> bool:
    try:
        os.write(descriptor, b"")
    except OSError:
        return False
    return True
