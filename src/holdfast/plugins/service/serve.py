"""``holdfast serve``: serve a finished run over HTTP."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import set_option
from holdfast.core.errors import MachineError
from holdfast.core.machine import refuse_low_memory
from holdfast.core.printable import printable

if TYPE_CHECKING:
    from holdfast.plugins.service.records import ServiceEngine

PACKAGES = ("starlette", "uvicorn", "httptools", "prometheus_client", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The address to listen on, what is stored, and how the model computes."""

    host: Annotated[str, typer.Option(help="Listen on this address; 0.0.0.0 needs a token.")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Listen on this port; 0: a free one.")
    ] = 8080
    store: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Store requests and labels here (default RUN.store.db; none: nowhere).",
        ),
    ] = None
    challenger: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Compare this run with the served one.")
    ] = None
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Require the token in this file.")
    ] = None
    precision: Annotated[
        str, typer.Option(help="float32, as in predict, or auto: the fastest that export measured.")
    ] = "float32"
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the model (default: all cores but one).")
    ] = None


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    given: ServeOptions,
    set_: Annotated[list[str] | None, set_option("Set serve.log_texts, serve.max_rows, …")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only warnings and errors.")] = False,
) -> None:
    """Serve predictions of RUN's model over HTTP: POST /predict, /feedback, /explain; GET /metrics,
    /health.

    One line is printed when the service is ready. SIGTERM (or Ctrl-C) stops it after all accepted
    requests are answered and stored.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        rule = f"needs packages that are missing: {', '.join(missing).replace('_', '-')}"
        raise MachineError("holdfast serve", rule, None, "pip install 'holdfast[serve]'")
    from holdfast.contract.run_folder import need_run
    from holdfast.plugins.service.settings import serving

    # Before modules that take seconds are imported.
    for one in filter(None, (run, given.challenger)):
        need_run(one)
    settings = serving(set_ or [])
    refuse_low_memory("torch")
    from holdfast.plugins.service.compose import ServeRequest, compose
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
    request = ServeRequest(run, **asdict(given), settings=settings)
    running = compose(request, on_ready, log, teller)
    teller.line(f"loading the model; until it is ready, {running.address.url} responds with 503")
    if code := running.run():
        raise typer.Exit(code)
