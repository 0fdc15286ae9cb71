"""``holdfast tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.asked import (
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
)
from holdfast.core.machine import refuse_too_little
from holdfast.core.shown import printable
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping


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
            "--set",
            metavar="KEY=VALUE",
            help="Any key of a recipe; a range searches it, e.g. "
            "'train.learning_rate={range: [1e-5, 5e-4], log: true}'.",
        ),
    ] = None,
    seed: Seed = None,
    trials: Annotated[int | None, typer.Option(min=1, help="At most so many trials.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="At most so many minutes of trials.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="Where the trials lie: an Optuna journal, or a database such as postgresql://…",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where the trials are carried out.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The result alone: no plan, no progress.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Search settings for SOURCE, keep the model that won, score it once, report."""
    refuse_too_little("torch")
    check_how(quiet, verbose, task)
    from holdfast.pipeline.request import Request
    from holdfast.search.request import tune_request
    from holdfast.terminal.watch import train_watched

    request, recipe, procedure = tune_request(
        Request(
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
        ),
        trials=trials,
        minutes=minutes,
        study=study,
        engine=engine,
        address=address,
    )
    result, run = train_watched(request, recipe, quiet=quiet, verbose=verbose, procedure=procedure)
    _print(result, run, as_json)


def _print(result: Mapping[str, Any], run: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json_text(result))
        return
    from holdfast.cli.ending import summary
    from holdfast.cli.sizes import size_lines
    from holdfast.cli.trials import study_lines
    from holdfast.terminal.say import width

    told = [*study_lines(result, width()), *size_lines(result, width())]
    lines = [*told, *summary(result, run, width())]
    typer.echo(printable("\n".join(lines)))
