"""``holdfast tune``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import Address, EndOptions, Helps, RunOptions, RunOutput, SourceOptions
from holdfast.core.wording import count_phrase
from holdfast.terminal.layout import entries

if TYPE_CHECKING:
    from holdfast.recipe import Recipe
    from holdfast.search.learner import SearchProcedure


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The budget of the search, its storage, and the engine that runs the trials."""

    trials: Annotated[int | None, typer.Option(min=1, help="The largest number of trials.")] = None
    minutes: Annotated[
        float | None, typer.Option(help="The longest time of all trials, in minutes.")
    ] = None
    study: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="Store the trials in an Optuna journal file, or a database: postgresql://…",
        ),
    ] = None
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Run the trials on this machine or on Ray.")
    ] = "local"
    address: Address = None


RUN = Helps(
    set_="Set a key of the recipe, or a range to search, e.g. "
    "'train.learning_rate={range: [1e-5, 5e-4], log: true}'."
)
ENDS = Helps(
    dry_run="Print the search space; train and write nothing.",
    fail_on="Exit 3 if the saved model has this verdict; repeatable.",
)


def command(
    rows: SourceOptions,
    run: Annotated[RunOptions, RUN],
    search: SearchOptions,
    end: Annotated[EndOptions, ENDS],
    output: RunOutput,
) -> None:
    """Search hyperparameters for SOURCE, keep the chosen model, score it once on the test rows, and
    write a report."""
    given = rows.request(seed=run.seed, settings=run.set_ or [], out=run.out, resume=end.resume)
    from holdfast.search.tune import tune_request
    from holdfast.terminal.summary import summary
    from holdfast.terminal.watch import train_with_progress

    request, recipe, procedure = tune_request(given, **asdict(search))
    if end.dry_run:
        _show_plan(procedure, recipe, output)
        return
    result, folder = train_with_progress(
        request, recipe, quiet=output.quiet, verbose=output.verbose, procedure=procedure
    )
    output.show(result, partial(summary, result, folder, verbose=output.verbose))
    end.leave([result["verdict"]["label"]], "the", output.quiet)


def _show_plan(procedure: SearchProcedure, recipe: Recipe, output: RunOutput) -> None:
    """Print the plan of ``--dry-run``."""
    from holdfast.search.learner import dry_run_plan

    with output.heard():
        plan = dry_run_plan(procedure, recipe)
    output.show(plan, lambda columns: "\n".join(_plan(plan, columns)))


def _plan(plan: Mapping[str, Any], columns: int) -> Iterator[str]:
    from holdfast.report.view.study import search_space

    split, judged = plan["division"], plan["judged_by"]
    yield "Plan (nothing was written):"
    rows = f"training {split['train']:,}, validation {split['valid']:,}, test {split['test']:,}"
    how = f" in {judged['folds']} folds" if judged["folds"] > 1 else ""
    lines = [("Rows", rows), ("Judged by", f"{count_phrase(judged['rows'], 'row')}{how}")]
    if "sizes" in plan:
        yield from entries([*lines, ("Sizes", "; ".join(plan["sizes"]))], columns)
        return
    bounds = [] if plan["trials"] is None else [f"{count_phrase(plan['trials'], 'trial')}"]
    bounds += [] if plan["minutes"] is None else [f"{plan['minutes']:g} minutes"]
    lines.append(("Trials", f"at most {' or '.join(bounds)}; the first is the default of `train`"))
    for name in ("sampler", "pruner"):
        lines.append((name.capitalize(), f"{plan[name]['chosen']}: {plan[name]['because']}"))
    yield from entries(lines, columns)
    yield "  Search space"
    yield from entries((("", f"{key}: {values}") for key, values, _ in search_space(plan)), columns)
