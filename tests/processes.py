"""What tests inherit, and what they leave: no signal of the shell that started them, no process.

A process that outlives its test holds what it inherited: a port, a lock, the pipe to whoever waits
for the end of the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

# How long one that was told to end may take, on a machine with other work.
END_S = 30.0
# Of Python itself: they end with the process that uses them, whose pipe they read.
KNOWN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
BECOME_SUBREAPER = 36
TASKS = Path("/proc/self/task")
# Some kernels do not list the children of a thread.
LISTED = (TASKS / str(os.getpid()) / "children").exists()
# Started by fixtures of more than one test, which end them.
SHARED: set[int] = set()


def inherit_no_signals() -> None:
    """Begin as in a shell: a process in the background, or below ``nohup``, has signals ignored or
    blocked, and so has whatever it starts. A hangup still ends no test run that ignored it, but
    what the tests start has the default, since handlers are not inherited."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number, handler in (
        (signal.SIGHUP, lambda *_: None),
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGALRM, signal.SIG_DFL),
        (signal.SIGCHLD, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def take_in_orphans() -> None:
    """Make this process the parent of every descendant that loses its own, so that one that a test
    started in two steps is found too (Linux; elsewhere only direct children are)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(BECOME_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """The processes directly below this one."""
    with contextlib.suppress(AttributeError):
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            # The commonest case, and to look through all processes takes milliseconds.
            return set()
    if not LISTED:
        return {one.pid for one in psutil.Process().children()}
    found: set[int] = set()
    for task in TASKS.iterdir():
        # A thread may end meanwhile.
        with contextlib.suppress(OSError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


# What an ``exec`` of a shell's handed over is not ours.
INHERITED = children()


def left_over(started: Iterable[int], end_s: float = END_S) -> list[str]:
    """The command lines of those that do not end by themselves in time; they are killed, with all
    that they started."""
    found = [one for pid in started if (one := _living(pid)) is not None]
    _, left = psutil.wait_procs(found, timeout=end_s)
    told = []
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            told.append(f"{one.pid}: {' '.join(one.cmdline())}")
            for each in [*one.children(recursive=True), one]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
    psutil.wait_procs(left, timeout=end_s)
    return told


def _living(pid: int) -> psutil.Process | None:
    try:
        one = psutil.Process(pid)
        known = any(name in part for part in one.cmdline() for name in KNOWN)
        return None if known or one.status() == psutil.STATUS_ZOMBIE else one
    except psutil.NoSuchProcess:
        return None


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Iterator[Any]:
    if fixturedef.scope == "function":
        return (yield)
    before = children()
    try:
        return (yield)
    finally:
        SHARED.update(children() - before)


# Set up before every other fixture of a test, so that it comes after they have ended theirs.
@pytest.fixture(autouse=True)
def no_process_outlives_its_test() -> Iterator[None]:
    before = children()
    yield
    if (new := children() - before - SHARED) and (told := left_over(new)):
        pytest.fail("outlives the test that started it: " + "; ".join(told))


@pytest.fixture(scope="session", autouse=True)
def no_process_outlives_the_tests() -> Iterator[None]:
    yield
    if told := left_over(children() - INHERITED):
        pytest.fail("outlives the tests: " + "; ".join(told))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Whatever a worker that crashed has left ends here, before whoever reads our output waits for
    it."""
    yield
    if told := left_over(children() - INHERITED):
        sys.stderr.write(f"outlives the tests: {'; '.join(told)}\n")
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
