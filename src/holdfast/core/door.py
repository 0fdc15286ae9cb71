"""The net round every place where a stranger's bytes come in: a file of rows, a recipe, a model's
folder, a log, a run's folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from holdfast.core.errors import HoldfastError, InputError, MachineError
from holdfast.core.shown import printable

LONGEST_REASON = 200
# What a library in Rust raises where it gives up. It is no ``Exception``, and its class cannot be
# imported.
PANIC = "PanicException"


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
