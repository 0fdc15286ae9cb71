"""``holdfast``: the commands, and what an error looks like."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
import sys
import threading
from typing import Annotated, Any

import typer

from holdfast._version import __version__
from holdfast.cli.commands import Group
from holdfast.core.errors import (
    DataError,
    HoldfastError,
    InputError,
    Interrupted,
    MachineError,
    ModelError,
    RecipeError,
    RunError,
)
from holdfast.core.input_errors import PANIC, reason, resource_error
from holdfast.core.machine import check_launch, check_thread_variables
from holdfast.core.printable import printable
from holdfast.terminal.layout import width, wrap
from holdfast.terminal.streams import discard_output, flush_output, prepare_streams
from holdfast.training.machine.signals import terminate_like_interrupt

# Whose message would send a person to mend a file that is whole.
FILE_ERRORS = (DataError, ModelError, RunError)
# The system's refusals that name no file and that no program can help.
MACHINE_ERRNOS = (
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

app = typer.Typer(
    name="holdfast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=Group,
    # Help drawn with Rich takes twice the time to start.
    rich_markup_mode=None,
    help="Fine-tune pretrained models so that they hold up on data they have never seen.",
    epilog="\b\nExit codes:\n"
    "  0    done\n"
    "  1    a defect in Holdfast\n"
    "  2    the input is at fault\n"
    "  3    the files are complete, and what was asked for is not reached: a\n"
    "       --fail-on verdict, drift, an update that is rejected or\n"
    "       inconclusive, a threshold that cannot be promised\n"
    "  130  interrupted; --resume continues",
)


def _version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune pretrained models so that they hold up on data they have never seen."""


def main() -> None:
    """The console script: ``run``, and an end that no thread can spoil."""
    status: int | str | None = 1

    def end() -> None:
        # A daemon thread in PyTorch's code (a server is told to end while it loads another model)
        # would abort the process where Python takes its interpreter down.
        if any(thread.daemon for thread in threading.enumerate()):
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status if isinstance(status, int) else status is not None)

    # Registered first, so called last, after all that libraries do at the end.
    atexit.register(end)
    try:
        run()
    except SystemExit as leaving:
        status = leaving.code
        raise
    except KeyboardInterrupt:
        status = Interrupted.exit_code
        raise


def run() -> None:
    """Run the command of ``sys.argv``; every error becomes its message and exit code."""
    prepare_streams()
    # Bars are ours, on a terminal; that of datasets would stand in every log.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    code = _run()
    unwritten = flush_output()
    if unwritten is not None and code == 0:
        code = _exit_unexpected(unwritten)
    sys.exit(code)


@functools.cache
def _command() -> Any:
    """The program, whose commands are found when they are asked for."""
    return typer.main.get_command(app)


def _run() -> int | str | None:
    try:
        with terminate_like_interrupt():
            check_arguments(sys.argv[1:])
            check_folder()
            # Bars of a library about its own files, on what may be no terminal.
            os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
            check_thread_variables(os.environ)
            if sys.platform == "darwin":
                # Read by PyTorch when it is loaded: what Apple's GPUs lack runs on the processor.
                os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
            check_launch()
            _command()()
    except HoldfastError as error:
        return _refuse(_as_machine_error(error))
    except SystemExit as leaving:
        return _exit_code(leaving)
    except Exception as error:
        return _exit_unexpected(error)
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        return _report_defect(error)
    return 0


def _as_machine_error(error: HoldfastError) -> HoldfastError:
    """A file that could not be read for lack of memory is not at fault."""
    memory_error = resource_error(error) if type(error) in FILE_ERRORS else None
    if memory_error is None:
        return error
    memory_error.__cause__ = error
    return memory_error


def _exit_unexpected(error: Exception) -> int:
    """The input's or the machine's fault where it can be nobody else's; else a defect."""
    if isinstance(error, BrokenPipeError):
        discard_output()
        return 0
    fault = resource_error(error) or as_input_error(error)
    if fault is None:
        return _report_defect(error)
    fault.__cause__ = error
    return _refuse(fault)


def _exit_code(leaving: SystemExit) -> int | str | None:
    """Typer has already turned an interrupt and a broken pipe into exits without a word."""
    if _is_caused_by(leaving, KeyboardInterrupt):
        _print_error("\nholdfast: interrupted")
    if _is_caused_by(leaving, BrokenPipeError):
        # The reader of the pipe had enough; Python would complain again when it flushes at exit.
        discard_output()
        return 0
    return leaving.code


def _is_caused_by(error: BaseException | None, error_type: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, error_type):
        error = error.__cause__ or error.__context__
    return error is not None


def _refuse(error: HoldfastError) -> int:
    if os.environ.get("HOLDFAST_TRACEBACK") == "1":
        raise error
    _print_error(_wrap_on_terminal(f"holdfast: {error}"))
    return error.exit_code


def _print_error(text: str) -> None:
    """On standard error, where anybody still listens: a closed terminal changes no exit code."""
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


def _wrap_on_terminal(text: str) -> str:
    """Broken between words on a terminal; in a file a line stays whole, so that it can be found."""
    if not sys.stderr.isatty():
        return text
    lines = (wrap(line, width(), "", "  ", long_words=False) for line in text.splitlines())
    return "\n".join("\n".join(line) for line in lines)


def _report_defect(error: BaseException) -> int:
    if os.environ.get("HOLDFAST_TRACEBACK") == "1":
        raise error
    _print_error(
        "holdfast: a defect in Holdfast, not in your input: "
        f"{type(error).__name__}: {printable(str(error), 1000)}\n"
        "  Set HOLDFAST_TRACEBACK=1 to see where, and please report it."
    )
    return 1


def as_input_error(error: BaseException) -> InputError | None:
    """The error for the person, where the input or the machine is at fault; else ``None``.

    Every door has a net of its own (``core.input_errors``); this is the outermost one, below which
    a defect is a defect. Here only what can never be a fault of Holdfast's is taken for the input's
    or the machine's: a file that the system refuses, memory that ran out, a stream that cannot be
    written.
    """
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
    if error.errno in MACHINE_ERRNOS:
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
