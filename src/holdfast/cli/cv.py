"""``holdfast cv``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from holdfast.recipe import Recipe
    from holdfast.search.folds.cross_validation import CrossValidation

# Scores that are printed; the others are in the report.
MOST = 4


def command(
    source: Source,
    model: Model = None,
    task: Task = None,
    text: Text = None,
    label: Label = None,
    group: Group = None,
    test: Test = None,
    folds: Annotated[
        int | None, typer.Option(min=2, max=100, help="Parts that are held out in turn: 5.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, max=100, help="Deal the folds so often anew: 1.")
    ] = None,
    nested: Annotated[
        bool, typer.Option("--nested", help="Folds within each fold choose steps and state.")
    ] = False,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where the folds are carried out.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster.")] = None,
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
        bool, typer.Option("--dry-run", help="Show the folds, train and write nothing.")
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERDICT",
            autocompletion=complete_verdicts,
            help=f"Exit 3 where a fold has this verdict: {', '.join(VERDICTS)}.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The result alone: no plan, no progress.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Cross-validate SOURCE: every row is answered by a model to which it was unknown, and a model
    of all rows comes out."""
    refuse_too_little("torch")
    check_how(quiet, verbose, task)
    feared = check_known(fail_on or [], "--fail-on", "verdict", VERDICTS)
    from holdfast.contract.request import Request
    from holdfast.core.records import is_asked
    from holdfast.search.folds.cross_validation import asked_for
    from holdfast.terminal.say import width
    from holdfast.terminal.watch import train_watched

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
    procedure = asked_for(recipe, folds, repeats, nested, engine, address)
    if dry_run:
        show_folds(procedure, recipe, as_json, quiet, verbose)
        return
    result, run = train_watched(request, recipe, quiet=quiet, verbose=verbose, procedure=procedure)
    if as_json:
        typer.echo(json_text(result))
    else:
        typer.echo(printable("\n".join(shown(result, run, width()))))
    found = [name for name in result["cv"]["verdicts"]["labels"] if is_asked(name, feared)]
    if found:
        if not quiet:
            told = f"a fold's verdict is {found[0]} (--fail-on), so the exit code is 3"
            typer.echo(f"holdfast: {told}", err=True)
        raise typer.Exit(3)


def show_folds(
    procedure: CrossValidation, recipe: Recipe, as_json: bool, quiet: bool, verbose: bool = False
) -> None:
    """The plan of ``--dry-run``."""
    from holdfast.search.folds.cross_validation import planned
    from holdfast.terminal.say import Teller, width

    plan = planned(procedure, recipe, Teller(quiet, verbose))
    typer.echo(json_text(plan) if as_json else printable("\n".join(_plan(plan, width()))))


def shown(result: Mapping[str, Any], run: Path, columns: int) -> list[str]:
    """The answer first, at the width of a terminal."""
    import textwrap

    from holdfast.report.answer.folds import answer_words
    from holdfast.terminal.say import COLUMN, entry

    cv = result["cv"]
    lines = ["", *textwrap.wrap(answer_words(cv), columns, break_on_hyphens=False), ""]
    lines += [line for name, value in _entries(result) for line in entry(name, value, columns)]
    lines.append(f"  {'Model':<{COLUMN - 2}}{run / 'model'}")
    lines.append(f"  {'Report':<{COLUMN - 2}}{run / 'report.html'}")
    return lines


def _plan(plan: Mapping[str, Any], columns: int) -> Iterator[str]:
    from holdfast.core.wording import counted
    from holdfast.terminal.say import entry

    yield "The plan (nothing was written):"
    yield from entry("Folds", f"{plan['how']}", columns)
    yield from entry("Fits", f"{plan['fits']}, the last of all {plan['rows']:,} rows", columns)
    for one in plan["folds"]:
        repeat = f", repeat {one['repeat'] + 1}" if one["repeat"] else ""
        text = (
            f"{counted(one['train'], 'row')} teach, {one['valid']:,} judge, {one['held']:,} score"
        )
        yield from entry(f"{one['fold'] + 1}{repeat}", text, columns)


def _entries(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from holdfast.core.wording import counted
    from holdfast.report.numbers import estimate, interval, metric_name, number

    cv, name = result["cv"], result["cv"]["metric"]
    values = [
        "–" if (value := fold["metrics"][name]["value"]) is None else number(value, name)
        for fold in cv["per_fold"]
    ]
    yield "Folds", f"{metric_name(name)} {', '.join(values)}"
    yield "Verdicts", cv["verdicts"]["sentence"]
    others = [other for other in cv["metrics"] if other != name][:MOST]
    found = {other: estimate(cv["metrics"][other]) for other in others}
    told = [
        f"{metric_name(other)} {number(one.value, other)} ({interval(one, other)})"
        for other, one in found.items()
        if one.value is not None
    ]
    if told:
        yield "Also", "; ".join(told).replace("\u00a0", " ")
    final = cv["final"]
    rows = counted(final["rows"], "row")
    yield "Kept", f"a model of all {rows}, step {final['step']} of {final['planned']}"
    yield "Because", final["because"]
    if result["test"]["n"]:
        one = estimate(result["test"]["metrics"].get(name))
        if one.value is not None:
            given = counted(result["test"]["n"], "given test row")
            yield "Test", f"{metric_name(name)} {number(one.value, name)} on {given}"
