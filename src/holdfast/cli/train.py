"""``holdfast train``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from holdfast.cli.options import EndOptions, RunOptions, RunOutput, SourceOptions

if TYPE_CHECKING:
    from holdfast.contract.request import TrainingRequest
    from holdfast.recipe import Recipe


def command(rows: SourceOptions, run: RunOptions, end: EndOptions, output: RunOutput) -> None:
    """Fine-tune a model on SOURCE.

    Holdfast audits the rows, splits them so that duplicates and groups stay together, trains under
    a guard against overfitting, scores the best checkpoint once on the test rows, and writes a
    report.
    """
    request = rows.request(seed=run.seed, settings=run.set_ or [], out=run.out, resume=end.resume)
    recipe = request.recipe()
    if end.dry_run:
        _dry_run(request, recipe, output)
        return
    from holdfast.contract.run_folder import is_main_process
    from holdfast.terminal.summary import summary
    from holdfast.terminal.watch import train_with_progress

    result, folder = train_with_progress(
        request, recipe, quiet=output.quiet, verbose=output.verbose
    )
    if is_main_process():
        output.show(result, partial(summary, result, folder, verbose=output.verbose))
    end.leave([result["verdict"]["label"]], "the", output.quiet)


def _dry_run(request: TrainingRequest, recipe: Recipe, output: RunOutput) -> None:
    from holdfast.cli.cv import show_folds
    from holdfast.contract.run_folder import check_place
    from holdfast.pipeline.preview import preview
    from holdfast.terminal.results.plan import plan_text
    from holdfast.terminal.watch import recipe_cross_validation

    if request.out is not None:
        # No plan is printed for a folder in which the run would be refused.
        check_place(request.out, request.resume)
    if (procedure := recipe_cross_validation(recipe)) is not None:
        show_folds(procedure, recipe, output, verbose=False)
        return
    with output.heard(verbose=True):
        plan = preview(recipe)
    output.show(plan, lambda columns: plan_text(plan, columns, quiet=output.quiet))
