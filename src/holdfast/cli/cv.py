"""``holdfast cv``."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import Address, EndOptions, Helps, RunOptions, RunOutput, SourceOptions
from holdfast.core.labels import VERDICTS

if TYPE_CHECKING:
    from holdfast.recipe import Recipe
    from holdfast.search.folds.cross_validation import CrossValidation


@dataclass(frozen=True, slots=True)
class FoldOptions:
    """The folds, and the engine that runs them."""

    folds: Annotated[
        int | None, typer.Option(min=2, max=100, help="The number of folds. Default: 5.")
    ] = None
    repeats: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="How often, each time with other folds. Default: 1."),
    ] = None
    nested: Annotated[
        bool, typer.Option("--nested", help="Choose the checkpoint of each fold by inner folds.")
    ] = False
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Also train on a quarter and half of the rows; estimate the gain of more rows.",
        ),
    ] = False
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Run the folds on this machine or on Ray.")
    ] = "local"
    address: Address = None


ROWS = Helps(test="A file of test rows, on which the saved model is scored once. Default: none.")
ENDS = Helps(
    dry_run="Print the folds; train and write nothing.",
    fail_on=f"Exit 3 if a fold has this verdict; repeatable: {', '.join(VERDICTS)}.",
)


def command(
    rows: Annotated[SourceOptions, ROWS],
    folds: FoldOptions,
    run: RunOptions,
    end: Annotated[EndOptions, ENDS],
    output: RunOutput,
) -> None:
    """Cross-validate on SOURCE: each row is predicted by a model that was not trained on it. Then
    train the saved model on all rows."""
    request = rows.request(seed=run.seed, settings=run.set_ or [], out=run.out, resume=end.resume)
    recipe = request.recipe()
    from holdfast.search.folds.cross_validation import cross_validation_of
    from holdfast.terminal.summary import summary
    from holdfast.terminal.watch import train_with_progress

    procedure = cross_validation_of(recipe, *astuple(folds))
    if end.dry_run:
        show_folds(procedure, recipe, output)
        return
    result, folder = train_with_progress(
        request, recipe, quiet=output.quiet, verbose=output.verbose, procedure=procedure
    )
    output.show(result, partial(summary, result, folder))
    end.leave(result["cv"]["verdicts"]["labels"], "a fold's", output.quiet)


def show_folds(
    procedure: CrossValidation, recipe: Recipe, output: RunOutput, verbose: bool | None = None
) -> None:
    """Print the plan of ``--dry-run``."""
    from holdfast.search.learner import dry_run_plan
    from holdfast.terminal.results.plan import folds_text

    with output.heard(verbose=verbose):
        plan = dry_run_plan(procedure, recipe)
    output.show(plan, lambda columns: folds_text(plan, columns))
