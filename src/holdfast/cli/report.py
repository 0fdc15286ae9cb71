"""``holdfast report``: draw a run's report again, or a page of its recorded answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.options import Output
from holdfast.core.errors import RecipeError
from holdfast.core.machine import refuse_low_memory


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write one offline page (.html) to look through the recorded answers instead, to "
            "send to a colleague. It holds texts of your data.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over FILE.")] = False,
) -> None:
    """Write RUN/report.html again from the run's files, and print its path.

    With --page: write what the model answered to its test rows to FILE; no model is asked.
    """
    if page is None and force:
        raise RecipeError("--force", "is for --page FILE", None, "Leave it out.")
    refuse_low_memory("numpy")
    if page is not None:
        from holdfast.analyses.prediction_page import write_page

        with Output().heard():
            write_page(run, page, force=force)
        typer.echo(page)
        return
    from holdfast.contract.run_folder import is_guarded, need_run, unsealed_decisions
    from holdfast.core.decisions import notify
    from holdfast.core.lock import locked
    from holdfast.report.page import write_report

    guarded = is_guarded(run)
    if not guarded:
        need_run(run)
    with locked(run):
        report = write_report(run)
    if not guarded:
        with Output().heard():
            notify(*unsealed_decisions([run]))
    typer.echo(report)
