"""Who is at fault for an exception: the input, the machine or Holdfast.

``reading_errors`` wraps every place that reads foreign bytes: a data file, a recipe, a model's
folder, a log, a run's folder. ``resource_error`` recognises a lack of memory or threads, and names
the limit. Anything else is a defect, which may cost a detail but never a trained model: after
training, a part that fails is left out and named (``surviving_defects``).
``HOLDFAST_DEFECTS=raise`` lets every defect end the program, as in the tests.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
from collections.abc import Iterator

from holdfast.core.errors import HoldfastError, InputError, MachineError
from holdfast.core.machine import memory_limits
from holdfast.core.printable import printable

# EFBIG too: a limit on the size of files (``ulimit -f``) leaves as little room.
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST_REASON = 200
# What a library in Rust raises where it gives up. It is no ``Exception``, and its class cannot be
# imported.
PANIC = "PanicException"
REPORT_IT = "a bug in Holdfast, please report it"


@contextlib.contextmanager
def reading_errors(
    source: str, error_class: type[InputError], rule: str = "cannot be read", remedy: str = ""
) -> Iterator[None]:
    """Turn any error from reading ``source`` into one error of ``error_class``, which exits with 2.

    Wrap only the reading, never the computation after it: an unexpected error there is a defect,
    and must look like one. Holdfast's own errors pass unchanged, and so do an interrupt and an
    exit. The cause stays attached to the error (``HOLDFAST_TRACEBACK=1``).

    Raises ``error_class``, or ``MachineError`` where memory ran out.
    """
    try:
        yield
    except HoldfastError:
        raise
    except MemoryError as error:
        raise MachineError(
            source,
            "needs more memory to be read than is available",
            None,
            "Split it into smaller files, or give the process more memory.",
        ) from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        raise error_class(source, f"{rule}: {reason(error)}", None, remedy) from error


def reason(error: BaseException) -> str:
    """What went wrong, in one short line of printable characters."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    name, first = type(error).__name__, first_line(error)
    return printable(name if first == name else f"{name}: {first}", LONGEST_REASON)


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's message, else its class's name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


# What libraries in C and C++ say; none has a class of error of its own for it.
THREAD_MESSAGE = re.compile(
    r"can't start new thread|thread creation failed|pthread_create|temporarily unavailable", re.I
)
MEMORY_MESSAGE = re.compile(
    r"out of memory|not enough memory|(cannot|can't|unable to) allocate|std::bad_alloc"
    r"|failed to map segment|cannot apply additional memory protection",
    re.I,
)


def resource_error(error: BaseException) -> MachineError | None:
    """The error to report if ``error``, or its cause, is a lack of memory or threads; ``None`` for
    any other. The message names the limits that are set."""
    shortages = [*filter(None, map(_shortage, _chain(error)))]
    if not shortages:
        return None
    # The first cause says it without what libraries put round it.
    resource_kind, message = shortages[-1]
    limits = [limit.description for limit in memory_limits()]
    process_limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if resource_kind == "thread" and process_limit != resource.RLIM_INFINITY:
        limits.append(f"ulimit -u of {process_limit:,} processes and threads")
    remedy = (
        f"Set for this process: {'; '.join(limits)}. Raise what is too small."
        if limits
        else "Close other programs, or use a smaller model or a larger machine."
    )
    shortage = "no further thread" if resource_kind == "thread" else "no more memory"
    return MachineError("this process", f"was given {shortage} ({message})", None, remedy)


def _shortage(error: BaseException) -> tuple[str, str] | None:
    text = str(error)
    if THREAD_MESSAGE.search(text):
        return "thread", reason(error)
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or MEMORY_MESSAGE.search(text):
        return "memory", reason(error)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, each once."""
    visited: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in visited:
        visited.add(id(current))
        yield current
        # ``raise … from None`` says that what was being handled is not the cause.
        context = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or context


def raises_defects() -> bool:
    """Whether a defect ends the program instead of being reported."""
    return os.environ.get("HOLDFAST_DEFECTS") == "raise"


def defect_line(error: BaseException) -> str:
    """One line about a defect that did not end the program."""
    return f"{REPORT_IT}: {type(error).__name__}: {error}"


@contextlib.contextmanager
def surviving_defects(detail: str, kept_note: str) -> Iterator[None]:
    """A defect inside ends only the block: the decision log says that ``detail`` is not written,
    why, and what is kept (``kept_note``). Errors of the input or the machine, and an interrupt, are
    raised."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if raises_defects() or resource_error(error):
            raise
        # These load NumPy, which this module must not: it is asked why NumPy could not be loaded.
        from holdfast.core.decisions import notify
        from holdfast.core.records import Decision

        because = f"{defect_line(error)}; {kept_note}"
        notify(Decision(detail, "not written", because, prominent=True))
