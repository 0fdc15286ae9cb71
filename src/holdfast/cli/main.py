"""The program ``holdfast``: its commands, and how an error becomes a message and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
import sys
import threading
import traceback
from typing import Annotated, Any

import typer

from holdfast._version import __version__
from holdfast.cli.commands import Group
from holdfast.core.errors import (
    DataError,
    ErrorMessage,
    HoldfastError,
    InputError,
    Interrupted,
    MachineError,
    ModelError,
    RecipeError,
    RunError,
)
from holdfast.core.input_errors import DISK_FULL_ERRNOS, PANIC, reason, resource_error
from holdfast.core.machine import check_launch, check_thread_variables
from holdfast.core.printable import printable
from holdfast.terminal.colour import coloured
from holdfast.terminal.layout import width, wrap
from holdfast.terminal.streams import discard_output, flush_output, prepare_streams
from holdfast.training.machine.signals import terminate_like_interrupt

# Their messages would send the user to repair a file that is intact.
FILE_ERRORS = (DataError, ModelError, RunError)
# Errors of the operating system that name no file and that no program can prevent.
MACHINE_ERRNOS = (
    *DISK_FULL_ERRNOS,
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
    errno.EACCES: "Change its permissions, or name another one.",
    errno.EPERM: "Change its permissions, or name another one.",
    errno.ELOOP: "The link points to itself: name the file.",
    errno.ENOENT: "Check the name.",
    errno.EISDIR: "Name a file in this folder.",
    errno.ENOTDIR: "Check the path: part of it is a file, not a folder.",
    errno.ENOSPC: "Free some disk space, then run the same command again.",
    errno.EROFS: "Choose a folder that you can write to.",
}
# PyTorch reports exhausted main memory with these words, in a plain RuntimeError.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory")

app = typer.Typer(
    name="holdfast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=Group,
    # Help rendered with Rich takes twice as long to start.
    rich_markup_mode=None,
    help="Fine-tune pretrained models so that they hold up on data they have never seen.",
    epilog="\b\nExit codes:\n"
    "  0    done\n"
    "  1    a bug in Holdfast\n"
    "  2    an error in the input, or a promotion not supported by the evidence\n"
    "  3    done, with a result that needs attention: a verdict or finding of\n"
    "       --fail-on, a shift found by drift, an update that is rejected or\n"
    "       inconclusive, or a threshold that cannot be guaranteed\n"
    "  130  interrupted; continue with --resume",
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
    """The console script: ``run``, and an exit that no background thread can disturb."""
    status: int | str | None = 1

    def end() -> None:
        # A daemon thread inside PyTorch (a server is stopped while it loads another model) would
        # abort the process while Python shuts its interpreter down.
        if any(thread.daemon for thread in threading.enumerate()):
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status if isinstance(status, int) else status is not None)

    # Registered first, so it is called last, after the exit handlers of libraries.
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
    # Holdfast draws its own progress bars; the one of datasets would appear in every log.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    code = _run()
    unwritten = flush_output()
    if unwritten is not None and code == 0:
        code = _exit_unexpected(unwritten)
    sys.exit(code)


@functools.cache
def _command() -> Any:
    """The program; a command is imported when it is called."""
    return typer.main.get_command(app)


def _run() -> int | str | None:
    try:
        with terminate_like_interrupt():
            check_arguments(sys.argv[1:])
            check_folder()
            check_thread_variables(os.environ)
            if sys.platform == "darwin":
                # PyTorch reads it when it is imported: operations that Apple's GPUs lack run on
                # the processor.
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
    """Report a file that could not be read for lack of memory as a memory error."""
    memory_error = resource_error(error) if type(error) in FILE_ERRORS else None
    if memory_error is None:
        return error
    memory_error.__cause__ = error
    return memory_error


def _exit_unexpected(error: Exception) -> int:
    """Report an error of the input or the machine where it is certainly one; else a bug."""
    if isinstance(error, BrokenPipeError):
        discard_output()
        return 0
    fault = resource_error(error) or as_input_error(error)
    if fault is None:
        return _report_defect(error)
    fault.__cause__ = error
    return _refuse(fault)


def _exit_code(leaving: SystemExit) -> int | str | None:
    """Typer has already turned an interrupt and a broken pipe into silent exits."""
    interrupt = _cause(leaving, KeyboardInterrupt)
    if isinstance(interrupt, Interrupted):
        return _refuse(interrupt)
    if interrupt is not None:
        _print_error("\nholdfast: interrupted")
    if _cause(leaving, BrokenPipeError) is not None:
        # The reader of the pipe has gone; Python would complain again when it flushes at exit.
        discard_output()
        return 0
    return leaving.code


def _cause(error: BaseException | None, error_type: type[BaseException]) -> BaseException | None:
    """The first error of that type among ``error`` and its causes."""
    while error is not None and not isinstance(error, error_type):
        error = error.__cause__ or error.__context__
    return error


def _refuse(error: ErrorMessage) -> int:
    _print_traceback(error)
    _print_error(_wrap_on_terminal(f"holdfast: {error}"))
    return error.exit_code


def _print_traceback(error: BaseException) -> None:
    """Print the traceback if it was asked for; the exit code stays as it is without."""
    if os.environ.get("HOLDFAST_TRACEBACK") == "1":
        _print_error("".join(traceback.format_exception(error)))


def _print_error(text: str) -> None:
    """Print on standard error. A closed terminal does not change the exit code."""
    with contextlib.suppress(OSError):
        typer.echo(coloured(text, sys.stderr), err=True)


def _wrap_on_terminal(text: str) -> str:
    """Wrap lines on a terminal. In a file they stay whole, so that a search finds them."""
    if not sys.stderr.isatty():
        return text
    lines = (wrap(line, width(), "", "  ", long_words=False) for line in text.splitlines())
    return "\n".join("\n".join(line) for line in lines)


def _report_defect(error: BaseException) -> int:
    _print_traceback(error)
    _print_error(
        "holdfast: a bug in Holdfast, not in your input: "
        f"{type(error).__name__}: {printable(str(error), 1000)}\n"
        "  Set HOLDFAST_TRACEBACK=1 to see the traceback, and please report it."
    )
    return 1


# Of the packages that Holdfast requires, those that people leave out or remove for their size.
REQUIRED_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "scipy")


def as_input_error(error: BaseException) -> InputError | None:
    """The input error that ``error`` stands for; ``None`` where it is a bug in Holdfast.

    Each entry point translates the errors of its own input (``core.input_errors``); this is the
    outermost translation. It takes only what can never be a bug in Holdfast: a file that the system
    refuses, exhausted memory, a stream that cannot be written, a package that was removed.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing in REQUIRED_PACKAGES:
        rule = f"needs the package {missing}, which is not installed"
        return MachineError("this command", rule, None, f"pip install {missing}")
    if isinstance(error, MemoryError) or _says_memory(error):
        return MachineError(
            "memory",
            "ran out",
            None,
            "Use smaller files, a smaller train.batch_size or model, or more memory.",
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.filename is not None:
        remedy = REMEDIES.get(error.errno, "Name another file or folder.")
        filename = error.filename
        name = os.fsdecode(filename) if isinstance(filename, (str, bytes)) else str(filename)
        return DataError(name, f"cannot be used: {reason(error)}", None, remedy)
    if error.errno in MACHINE_ERRNOS:
        return MachineError(
            "the machine",
            f"cannot read or write: {reason(error)}",
            None,
            "Check the disk, the limit of open files, and where the output is redirected to.",
        )
    return None


def check_arguments(arguments: list[str]) -> None:
    """Refuse arguments that cannot be the name of a file or a column."""
    for argument in arguments:
        if "\0" in argument:
            raise RecipeError(
                "an argument", "contains the character NUL", argument, "Remove that character."
            )
        if any("\ud800" <= c <= "\udfff" for c in argument):
            remedy = "Rename the file (`mv`), or use a UTF-8 locale: LC_ALL=C.UTF-8."
            raise RecipeError("an argument", "contains bytes that are not UTF-8", argument, remedy)


def check_folder() -> None:
    """Refuse to work in a folder that was deleted: no relative path works there."""
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd() says the same
    except OSError as error:
        rule = "no longer exists, or cannot be entered"
        remedy = "Change to another folder with cd."
        raise DataError("the current folder", rule, None, remedy) from error


def _says_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in OUT_OF_MEMORY)
