"""What an error that nobody foresaw means: the outermost net, below which a defect is a defect.

Every door has a net of its own (``core.input_errors``). Here only what can never be a fault of
Holdfast's is taken for the input's or the machine's: a file that the system refuses, memory that
ran out, a stream that cannot be written.
"""

from __future__ import annotations

import errno
import os

from holdfast.core.errors import DataError, InputError, MachineError, RecipeError
from holdfast.core.input_errors import reason

# The system's refusals that name no file and that no program can help.
MACHINE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EROFS,
    errno.EBADF,
    errno.EAGAIN,
)
REMEDIES = {
    errno.ENAMETOOLONG: "Give it a shorter name.",
    errno.EACCES: "Ask for the right to use it, or name another one.",
    errno.EPERM: "Ask for the right to use it, or name another one.",
    errno.ELOOP: "It is a link that leads to itself: name the file itself.",
    errno.ENOENT: "Check the name.",
    errno.EISDIR: "Name a file in it.",
    errno.ENOTDIR: "Part of this name is a file where a folder is meant: check the name.",
    errno.ENOSPC: "Free some space, then run the same command again.",
    errno.EROFS: "Choose a folder that you may write to.",
}
# How PyTorch says that the processor's memory ran out, as an error without a class of its own.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory")


def fault_of(error: BaseException) -> InputError | None:
    """The error for the person, where the input or the machine is at fault; else ``None``."""
    if isinstance(error, MemoryError) or _says_memory(error):
        return MachineError(
            "memory",
            "ran out",
            None,
            "Give smaller parts, a smaller train.batch_size or model, or more memory.",
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.filename is not None:
        remedy = REMEDIES.get(error.errno, "Name a file or folder that can be used.")
        filename = error.filename
        name = os.fsdecode(filename) if isinstance(filename, (str, bytes)) else str(filename)
        return DataError(name, f"cannot be used: {reason(error)}", None, remedy)
    if error.errno in MACHINE:
        return MachineError(
            "the machine",
            f"refused to read or write: {reason(error)}",
            None,
            "Look at the disk, at the limits of open files, and at where output is sent.",
        )
    return None


def check_arguments(arguments: list[str]) -> None:
    """Refuse what no file and no column can be called, before anything is done with it."""
    for argument in arguments:
        if "\0" in argument:
            raise RecipeError(
                "an argument", "holds the character NUL", argument, "Leave that character out."
            )
        if any("\ud800" <= c <= "\udfff" for c in argument):
            raise RecipeError(
                "an argument",
                "holds bytes that are not UTF-8",
                argument,
                "Rename the file (`mv`), or use a UTF-8 locale: LC_ALL=C.UTF-8.",
            )


def check_folder() -> None:
    """Refuse to work in a folder that is gone, to which no relative path leads."""
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd() says the same
    except OSError as error:
        raise DataError(
            "the current folder",
            "no longer exists, or may not be entered",
            None,
            "cd to a folder that does.",
        ) from error


def _says_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in OUT_OF_MEMORY)
