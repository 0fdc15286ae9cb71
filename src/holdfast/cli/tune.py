"""``holdfast tune``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import Address, EndOptions, RunOptions, RunOutput, SourceOptions
from holdfast.cli.words import complete_verdicts
from holdfast.core.machine import refuse_too_little

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast.recipe import Recipe
    from holdfast.search.learner import SearchProcedure


@dataclass(frozen=True, slots=True)
class SearchedRunOptions(RunOptions):
    """The same, with ranges among the settings."""

    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of a recipe; a range searches it, e.g. "
            "'train.learning_rate={range: [1e-5, 5e-4], log: true}'.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How long is searched, and where."""

    trials: Annotated[int | None, typer.Option(min=1, help="At most so many trials.")] = None
    minutes: Annotated[float | None, typer.Option(help="At most so many minutes of trials.")] = None
    study: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="Where the trials lie: an Optuna journal, or a database such as postgresql://…",
        ),
    ] = None
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where the trials are carried out.")
    ] = "local"
    address: Address = None


@dataclass(frozen=True, slots=True)
class SearchEndOptions(EndOptions):
    """The same of a search."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be tried, train and write nothing.")
    ] = False
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERDICT",
            autocompletion=complete_verdicts,
            help="Exit 3 where the model that is kept has this verdict.",
        ),
    ] = None


def command(
    rows: SourceOptions,
    run: SearchedRunOptions,
    search: SearchOptions,
    end: SearchEndOptions,
    output: RunOutput,
) -> None:
    """Search settings for SOURCE, keep the model that won, score it once, report."""
    refuse_too_little("torch")
    from holdfast.search.request import tune_request
    from holdfast.terminal.watch import train_watched

    request, recipe, procedure = tune_request(
        rows.request(seed=run.seed, settings=run.set_ or [], out=run.out, resume=end.resume),
        **asdict(search),
    )
    if end.dry_run:
        _foresee(procedure, recipe, output)
        return
    result, folder = train_watched(
        request, recipe, quiet=output.quiet, verbose=output.verbose, procedure=procedure
    )
    output.show(result, lambda columns: _shown(result, folder, columns))
    end.leave([result["verdict"]["label"]], "the", output.quiet)


def _foresee(procedure: SearchProcedure, recipe: Recipe, output: RunOutput) -> None:
    """The plan of ``--dry-run``."""
    from holdfast.search.learner import foreseen

    with output.heard():
        plan = foreseen(procedure, recipe)
    output.show(plan, lambda columns: "\n".join(_plan(plan, columns)))


def _plan(plan: Mapping[str, Any], columns: int) -> Iterator[str]:
    from holdfast.core.wording import counted
    from holdfast.report.view.study import searched
    from holdfast.terminal.say import entry

    sides, judged = plan["division"], plan["judged_by"]
    yield "The plan (nothing was written):"
    rows = f"train {sides['train']:,}, validation {sides['valid']:,}, test {sides['test']:,}"
    yield from entry("Rows", rows, columns)
    how = f", out of {judged['folds']} folds" if judged["folds"] > 1 else ""
    yield from entry("Judged by", f"{counted(judged['rows'], 'row')}{how}", columns)
    if "sizes" in plan:
        yield from entry("Sizes", "; ".join(plan["sizes"]), columns)
        return
    bounds = [] if plan["trials"] is None else [f"{counted(plan['trials'], 'trial')}"]
    bounds += [] if plan["minutes"] is None else [f"{plan['minutes']:g} minutes"]
    most = f"at most {' or '.join(bounds)}; the first is what `train` takes"
    yield from entry("Trials", most, columns)
    for name in ("sampler", "pruner"):
        one = plan[name]
        yield from entry(name.capitalize(), f"{one['chosen']}: {one['because']}", columns)
    yield "  Space"
    for key, values, _ in searched(plan):
        yield from entry("", f"{key}: {values}", columns)


def _shown(result: Mapping[str, object], run: Path, columns: int) -> str:
    from holdfast.cli.text.result import summary
    from holdfast.cli.text.trials import size_lines, study_lines

    told = [*study_lines(result, columns), *size_lines(result, columns)]
    return "\n".join([*told, *summary(result, run, columns)])
