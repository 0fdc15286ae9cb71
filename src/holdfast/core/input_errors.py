"""Whose fault an exception is: the input's, the machine's, or Holdfast's own.

``door`` is the net round every place where a stranger's bytes come in: a file of rows, a recipe, a
model's folder, a log, a run's folder. ``lacking`` tells whether the system gave no memory, or no
thread, and which limit says so. Anything else is a defect, which may cost a detail and never a
trained model: where training is over, or is somebody else's, a part that fails is left out and
named (``survived``). ``HOLDFAST_DEFECTS=raise`` lets every defect end the program, as the tests
have it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
from collections.abc import Iterator

from holdfast.core.errors import HoldfastError, InputError, Interrupted, MachineError
from holdfast.core.machine import memory_limits
from holdfast.core.printable import printable

LONGEST_REASON = 200
# What a library in Rust raises where it gives up. It is no ``Exception``, and its class cannot be
# imported.
PANIC = "PanicException"
REPORT_IT = "a defect in Holdfast, please report it"


@contextlib.contextmanager
def door(
    what: str, kind: type[InputError], rule: str = "cannot be read", remedy: str = ""
) -> Iterator[None]:
    """Turn whatever reading ``what`` raises into one error of ``kind``, which exits with 2.

    It belongs round the reading alone, never round what is then computed: there an unexpected
    error is a defect, and must look like one. Errors of Holdfast's own pass as they are, and so do
    an interrupt and an exit. The cause stays behind the error (``HOLDFAST_TRACEBACK=1``).

    Raises ``kind``, or ``MachineError`` where memory ran out.
    """
    try:
        yield
    except HoldfastError:
        raise
    except MemoryError as error:
        raise MachineError(
            what,
            "needs more memory to be read than there is",
            None,
            "Give it in smaller parts, or give the process more memory.",
        ) from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        raise kind(what, f"{rule}: {reason(error)}", None, remedy) from error


def reason(error: BaseException) -> str:
    """What went wrong, in one short line of printable characters."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    name, first = type(error).__name__, first_line(error)
    return printable(name if first == name else f"{name}: {first}", LONGEST_REASON)


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says anything, else its class's name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


# What libraries in C and C++ say; none has a class of error of its own for it.
THREAD = re.compile(
    r"can't start new thread|thread creation failed|pthread_create|temporarily unavailable", re.I
)
MEMORY = re.compile(
    r"out of memory|not enough memory|(cannot|can't|unable to) allocate|std::bad_alloc"
    r"|failed to map segment|cannot apply additional memory protection",
    re.I,
)


def lacking(error: BaseException) -> MachineError | None:
    """What to tell where ``error``, or what it was raised from, is a lack of memory or of threads;
    ``None`` for any other. The message names the limits that are set."""
    found = [*filter(None, map(_what, _chain(error)))]
    if not found:
        return None
    # The first cause says it without what libraries put round it.
    what, message = found[-1]
    limits = [limit.words for limit in memory_limits()]
    most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if what == "thread" and most != resource.RLIM_INFINITY:
        limits.append(f"ulimit -u of {most:,} processes and threads")
    remedy = (
        f"Set for this process: {'; '.join(limits)}. Raise what is too small."
        if limits
        else "Close other programs, or take a smaller model or a larger machine."
    )
    thing = "no further thread" if what == "thread" else "no more memory"
    return MachineError("this process", f"was given {thing} ({message})", None, remedy)


def _what(error: BaseException) -> tuple[str, str] | None:
    text = str(error)
    if THREAD.search(text):
        return "thread", reason(error)
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or MEMORY.search(text):
        return "memory", reason(error)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, each once."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        # ``raise … from None`` says that what was being handled is not the cause.
        context = None if following.__suppress_context__ else following.__context__
        following = following.__cause__ or context


def raises_defects() -> bool:
    """Whether a defect is to end the program instead of being named."""
    return os.environ.get("HOLDFAST_DEFECTS") == "raise"


def defect_line(error: BaseException) -> str:
    """What is told of a defect that is survived, in one line."""
    return f"{REPORT_IT}: {type(error).__name__}: {error}"


@contextlib.contextmanager
def survived(what: str, left: str) -> Iterator[None]:
    """A defect inside ends the block and no more: the decision log says that ``what`` is
    not written, why, and what is ``left``. What the input or the machine is at fault for, and an
    interrupt, is raised."""
    try:
        yield
    except (InputError, Interrupted):
        raise
    except Exception as error:
        if raises_defects() or lacking(error):
            raise
        # These load NumPy, which this module must not: it is asked why NumPy could not be loaded.
        from holdfast.core.decisions import notify
        from holdfast.core.records import Decision

        because = f"{defect_line(error)}; {left}"
        notify(Decision(what, "not written", because, prominent=True))
