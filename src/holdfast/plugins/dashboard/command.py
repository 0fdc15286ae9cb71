"""``holdfast dashboard``: runs and a service as web pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[
        Path, typer.Argument(metavar="[RUNS]", help="A folder of runs, or one run.")
    ] = Path("runs"),
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Listen on this local port; 0: a free one.")
    ] = 8081,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Store of a service: an SQLite file or a URL.")
    ] = None,
) -> None:
    """Follow runs during training, compare them, try their models, monitor a service and label its
    rows.

    Only this machine can open the dashboard. It writes nothing into a run.
    """
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
    run_dashboard(
        runs, port, store, lambda url: typer.echo(f"Open this address (valid once): {url}")
    )
