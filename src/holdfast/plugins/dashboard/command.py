"""``holdfast dashboard``: runs and a service, as pages in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.core.machine import refuse_low_memory


def command(
    runs: Annotated[
        Path, typer.Argument(metavar="[RUNS]", help="The folder of runs, or one run.")
    ] = Path("runs"),
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Of this machine; 0 takes any that is free.")
    ] = 8081,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The store of a service: a file of SQLite, or a URL."),
    ] = None,
) -> None:
    """Look at runs while they go on, compare them, try their models, watch a service and label.

    Only this machine can open it. Nothing is written into a run.
    """
    refuse_low_memory("numpy")
    from holdfast.core.errors import MachineError
    from holdfast.terminal.messages import MessagePrinter

    try:
        from holdfast.plugins.dashboard.app import run_dashboard
    except ModuleNotFoundError as error:
        rule = f"needs {error.name}, which is not installed"
        raise MachineError(
            "holdfast dashboard", rule, None, "pip install 'holdfast[serve]'"
        ) from None

    MessagePrinter(quiet=False).title(f"holdfast dashboard {runs}")
    run_dashboard(runs, port, store, lambda url: typer.echo(f"Open once: {url}"))
