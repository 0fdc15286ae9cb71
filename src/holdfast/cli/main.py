"""``holdfast``: the commands, and what an error looks like."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from holdfast._version import __version__
from holdfast.cli import demo, diagnose, evaluate, predict, report, train
from holdfast.core.errors import HoldfastError

app = typer.Typer(
    name="holdfast", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    # Help drawn with Rich takes twice the time to start.
    rich_markup_mode=None,
    help="Fine-tune pretrained models so that they hold up on data they have never seen.",
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune pretrained models so that they hold up on data they have never seen."""


app.command("train")(train.command)
app.command("diagnose")(diagnose.command)
app.command("evaluate")(evaluate.command)
app.command("predict")(predict.command)
app.command("report")(report.command)
app.command("demo")(demo.command)


def run() -> None:
    """The console script: run a command and turn every error into its message and exit code."""
    try:
        app()
    except HoldfastError as error:
        sys.exit(_refuse(error))
    except SystemExit as leaving:
        sys.exit(_leave(leaving))
    except Exception as error:
        sys.exit(_defect(error))


def _leave(leaving: SystemExit) -> int | str | None:
    """Typer has already turned an interrupt and a broken pipe into exits without a word."""
    if _because_of(leaving, KeyboardInterrupt):
        typer.echo("\nholdfast: interrupted", err=True)
    if _because_of(leaving, BrokenPipeError):
        # The reader of the pipe had enough; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return leaving.code


def _because_of(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def _refuse(error: HoldfastError) -> int:
    if os.environ.get("HOLDFAST_TRACEBACK") == "1":
        raise error
    typer.echo(f"holdfast: {error}", err=True)
    return error.exit_code


def _defect(error: Exception) -> int:
    if os.environ.get("HOLDFAST_TRACEBACK") == "1":
        raise error
    typer.echo(
        f"holdfast: a defect in Holdfast, not in your input: {type(error).__name__}: {error}\n"
        "  Set HOLDFAST_TRACEBACK=1 to see where, and please report it.",
        err=True,
    )
    return 1
