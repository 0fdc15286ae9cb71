"""``holdfast report``: write a run's report again, or a page of its recorded predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.options import Output
from holdfast.core.errors import RecipeError


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write instead one offline page (.html) to browse the recorded predictions and to "
            "send to a colleague. It contains texts of your data.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Write RUN/report.html again from the run's files, and print its path.

    With --page: write the recorded predictions for the test rows to FILE; no model is loaded.
    """
    if page is None and force:
        raise RecipeError("--force", "needs --page FILE", None, "Leave --force out.")
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
