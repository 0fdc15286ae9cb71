"""The options of ``holdfast serve``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


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
