"""A run or an audit with progress on the terminal: decisions, findings, a bar, and each change of
the verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.request import TrainingRequest
from holdfast.core.decisions import decisions_to
from holdfast.recipe import Recipe
from holdfast.runs.procedure import Procedure
from holdfast.terminal.messages import MessagePrinter
from holdfast.terminal.progress import ProgressLine, RunDisplay

if TYPE_CHECKING:
    from holdfast.analyses.audit.audit import Audit, AuditRequest
    from holdfast.search.folds.cross_validation import CrossValidation


def train_with_progress(
    request: TrainingRequest,
    recipe: Recipe,
    *,
    quiet: bool = False,
    verbose: bool = False,
    procedure: Procedure | None = None,
    command: str = "train",
) -> tuple[dict[str, Any], Path]:
    """Train as ``request`` says, with the ``recipe`` made from it; the result and the run's folder.
    A ``procedure`` replaces the single fit; ``command`` is the command that was typed."""
    from holdfast.prepare.missing_files import refuse_missing_sources

    if not request.in_memory:
        refuse_missing_sources(recipe)
    from holdfast.contract.run_folder import is_main_process, reserve_folder
    from holdfast.pipeline.main import train

    procedure = procedure or recipe_cross_validation(recipe)
    quiet = quiet or not is_main_process()
    with (
        reserve_folder(request.source, request.out, request.resume) as folder,
        showing_progress(quiet, verbose, procedure is None) as (printer, display),
    ):
        printer.title(f"holdfast {procedure.name if procedure else command} → {folder}")
        result = train(
            recipe,
            folder,
            resume=request.resume,
            listeners=(display,),
            in_memory=request.in_memory,
            procedure=procedure,
        )
        return result, folder


@contextlib.contextmanager
def showing_progress(
    quiet: bool, verbose: bool = False, verdicts: bool = True
) -> Iterator[tuple[MessagePrinter, RunDisplay]]:
    """Print the messages of fits on standard error, and their evaluations through the listener."""
    from holdfast.core.decisions import report_progress_to
    from holdfast.runs.start import outlines_to

    printer, display = MessagePrinter(quiet, verbose), RunDisplay(quiet, verbose, verdicts)
    line = ProgressLine(quiet)
    try:
        with (
            report_progress_to(line),
            decisions_to(line.before(printer)),
            outlines_to(printer.outline),
        ):
            yield printer, display
    finally:
        display.close()
        line.close()


def recipe_cross_validation(recipe: Recipe) -> CrossValidation | None:
    """The cross-validation that a recipe sets (``cv.folds``), as the recipe of a ``holdfast cv``
    run does; ``None`` where it sets none."""
    cv = recipe.cv
    if cv.folds is None:
        return None
    from holdfast.search.folds.cross_validation import CrossValidation

    return CrossValidation(cv.folds, cv.repeats, cv.nested, cv.learning_curve)


def audit_with_progress(request: AuditRequest, *, quiet: bool = False) -> Audit:
    """Run the audit of ``request``."""
    from holdfast.analyses.audit.audit import audit

    printer, line = MessagePrinter(quiet), ProgressLine(quiet)
    printer.title(f"holdfast audit {request.names.get(request.data, request.data)}")
    try:
        recipe = request.recipe()
        with decisions_to(line.before(printer)):
            return audit(recipe, request.against, progress=line, names=request.names)
    finally:
        line.close()
