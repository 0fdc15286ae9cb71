"""``holdfast train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cli.options import EndOptions, RunOptions, RunOutput, SourceOptions
from holdfast.core.machine import refuse_too_little

if TYPE_CHECKING:
    from holdfast.contract.request import Request
    from holdfast.recipe import Recipe


def command(rows: SourceOptions, run: RunOptions, end: EndOptions, output: RunOutput) -> None:
    """Fine-tune on SOURCE: audit, divide, train under watch, score once, report."""
    refuse_too_little("torch")
    request = rows.request(seed=run.seed, settings=run.set_ or [], out=run.out, resume=end.resume)
    recipe = request.recipe()
    if end.dry_run:
        _dry_run(request, recipe, output)
        return
    from holdfast.contract.run_folder import is_main_process
    from holdfast.terminal.watch import train_watched

    result, folder = train_watched(request, recipe, quiet=output.quiet, verbose=output.verbose)
    if is_main_process():
        output.show(result, lambda columns: _summary(result, folder, columns))
    end.leave([result["verdict"]["label"]], "the", output.quiet)


def _summary(result: dict[str, Any], run: Path, columns: int) -> str:
    from holdfast.cli.text.result import summary

    return "\n".join(summary(result, run, columns))


def _dry_run(request: Request, recipe: Recipe, output: RunOutput) -> None:
    from holdfast.cli.cv import show_folds
    from holdfast.cli.text.plan import show_plan
    from holdfast.contract.run_folder import check_place
    from holdfast.pipeline.preview import preview
    from holdfast.terminal.watch import folds_of

    if request.out is not None:
        # A plan for a folder that the run would be refused is no plan.
        check_place(request.out, request.resume)
    if (procedure := folds_of(recipe)) is not None:
        show_folds(procedure, recipe, output)
        return
    with output.heard(verbose=True):
        plan = preview(recipe)
    output.show(plan, lambda _: show_plan(plan))
