"""``holdfast serve``: serve a finished run over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import set_option
from holdfast.core.packages import need_packages
from holdfast.core.printable import printable
from holdfast.plugins.service.options import ServeOptions

if TYPE_CHECKING:
    from holdfast.plugins.service.records import ServiceEngine

PACKAGES = ("starlette", "uvicorn", "httptools", "prometheus_client", "sqlalchemy")


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    given: ServeOptions,
    set_: Annotated[list[str] | None, set_option("Set serve.log_texts, serve.max_rows, …")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only warnings and errors.")] = False,
) -> None:
    """Serve predictions of RUN's model over HTTP: POST /predict, /feedback, /explain; GET /metrics,
    /health.

    One line is printed when the service is ready. SIGTERM (or Ctrl-C) stops it after all accepted
    requests are answered and stored.
    """
    need_packages("holdfast serve", *PACKAGES, install="'holdfast[serve]'")
    from holdfast.contract.run_folder import need_run
    from holdfast.plugins.service.settings import serving

    # Before modules that take seconds are imported.
    for one in filter(None, (run, given.challenger)):
        need_run(one)
    settings = serving(set_ or [])
    from holdfast.plugins.service.compose import compose
    from holdfast.terminal.messages import MessagePrinter
    from holdfast.terminal.streams import notify

    def log(line: str) -> None:
        notify(f"holdfast: {printable(line)}\n")

    def on_ready(engine: ServiceEngine) -> None:
        facts = engine.facts
        store = running.service.store
        store_name = "no store" if store is None else store.name
        line = f"{facts.model} ({facts.task}), {facts.precision} ({facts.because})"
        typer.echo(printable(f"{running.address.url} is ready: {line}; store: {store_name}"))

    teller = MessagePrinter(quiet)
    teller.title(f"holdfast serve {run}")
    running = compose(run, given, settings, on_ready, log, teller)
    teller.line(f"loading the model; until it is ready, {running.address.url} responds with 503")
    if code := running.run():
        raise typer.Exit(code)
