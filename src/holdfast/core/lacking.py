"""Whether an error means that the system gave no memory, or no thread, and which limit says so."""

from __future__ import annotations

import errno
import re
import resource
from collections.abc import Iterator

from holdfast.core.door import reason
from holdfast.core.errors import MachineError
from holdfast.core.machine import memory_limits

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
