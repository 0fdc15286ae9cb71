"""``holdfast report``: draw a run's report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.core.machine import refuse_too_little


def command(run: Annotated[Path, typer.Argument(help="The folder of a finished run.")]) -> None:
    """Write RUN/report.html again from the run's files, and print its path."""
    refuse_too_little("numpy")
    from holdfast.core.lock import locked
    from holdfast.pipeline.folder import need_run, unsealed
    from holdfast.report.page import write_report
    from holdfast.terminal.say import Teller

    need_run(run)
    with locked(run):
        report = write_report(run)
    for decision in unsealed([run]):
        Teller(False)(decision)
    typer.echo(report)
