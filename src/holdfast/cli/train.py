"""``holdfast train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import (
    Group,
    Label,
    Model,
    Seed,
    Source,
    Task,
    Test,
    Text,
    Verbose,
    check_how,
    check_known,
)
from holdfast.cli.words import VERDICTS, complete_verdicts
from holdfast.core.machine import refuse_too_little
from holdfast.core.printable import printable
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from holdfast.contract.request import Request
    from holdfast.recipe import Recipe


def command(
    source: Source,
    model: Model = None,
    task: Task = None,
    text: Text = None,
    label: Label = None,
    group: Group = None,
    test: Test = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any key of a recipe, e.g. train.epochs=5."
        ),
    ] = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, write nothing.")
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERDICT",
            autocompletion=complete_verdicts,
            help=f"Exit 3 on this verdict, once each: {', '.join(VERDICTS)}.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The result alone: no plan, no progress.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune on SOURCE: audit, divide, train under watch, score once, report."""
    refuse_too_little("torch")
    check_how(quiet, verbose, task)
    feared = check_known(fail_on or [], "--fail-on", "verdict", VERDICTS)
    from holdfast.contract.request import Request

    request = Request(
        source,
        model=model,
        task=task,
        text=text,
        label=label,
        group=group,
        test=test,
        seed=seed,
        settings=set_ or [],
        out=out,
        resume=resume,
    )
    recipe = request.recipe()
    if dry_run:
        _dry_run(request, recipe, as_json, quiet)
        return
    from holdfast.contract.run_folder import is_main_process
    from holdfast.core.records import is_asked
    from holdfast.terminal.watch import train_watched

    result, run = train_watched(request, recipe, quiet=quiet, verbose=verbose)
    if is_main_process():
        _print(result, run, as_json)
    found = result["verdict"]["label"]
    if is_asked(found, feared):
        if not quiet:
            typer.echo(
                f"holdfast: the verdict is {found} (--fail-on), so the exit code is 3", err=True
            )
        raise typer.Exit(3)


def _print(result: dict[str, object], run: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json_text(result))
    else:
        from holdfast.cli.text.result import summary
        from holdfast.terminal.say import width

        typer.echo(printable("\n".join(summary(result, run, width()))))


def _dry_run(request: Request, recipe: Recipe, as_json: bool, quiet: bool) -> None:
    from holdfast.cli.cv import show_folds
    from holdfast.cli.text.plan import show_plan
    from holdfast.contract.run_folder import check_place
    from holdfast.pipeline.preview import preview
    from holdfast.terminal.say import Teller
    from holdfast.terminal.watch import folds_of

    if request.out is not None:
        # A plan for a folder that the run would be refused is no plan.
        check_place(request.out, request.resume)
    if (procedure := folds_of(recipe)) is not None:
        show_folds(procedure, recipe, as_json, quiet)
        return
    plan = preview(recipe, Teller(quiet))
    typer.echo(json_text(plan) if as_json else printable(show_plan(plan)))
