"""A run, or an audit, with a person watching: what was chosen and found, a bar, the verdict as it
changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.request import Request
from holdfast.core.decisions import decisions_to
from holdfast.recipe import Recipe
from holdfast.runs.procedure import Procedure
from holdfast.terminal.progress import ProgressLine, Show
from holdfast.terminal.say import Teller

if TYPE_CHECKING:
    from holdfast.analyses.audit.audit import Audit, AuditRequest
    from holdfast.search.folds.cross_validation import CrossValidation


def train_watched(
    request: Request,
    recipe: Recipe,
    *,
    quiet: bool = False,
    verbose: bool = False,
    procedure: Procedure | None = None,
    command: str = "train",
) -> tuple[dict[str, Any], Path]:
    """Do the job that ``request`` asks for, of which ``recipe`` was made; the result and the run's
    folder. A ``procedure`` takes the place of the one fit; ``command`` is what a person typed."""
    from holdfast.contract.run_folder import chosen_folder, is_main_process
    from holdfast.core.decisions import watched
    from holdfast.pipeline.main import train
    from holdfast.runs.start import outlines_to

    procedure = procedure or folds_of(recipe)
    quiet = quiet or not is_main_process()
    teller, show = Teller(quiet, verbose), Show(quiet, verbose, procedure is None)
    line = ProgressLine(quiet)
    with chosen_folder(request.source, request.out, request.resume) as folder:
        teller.title(f"holdfast {procedure.name if procedure else command} → {folder}")
        try:
            with watched(line), decisions_to(line.then(teller)), outlines_to(teller.outline):
                result = train(
                    recipe,
                    folder,
                    resume=request.resume,
                    listeners=(show,),
                    in_memory=request.held,
                    procedure=procedure,
                )
            return result, folder
        finally:
            show.close()
            line.close()


def folds_of(recipe: Recipe) -> CrossValidation | None:
    """The cross-validation that a recipe asks for by itself (``cv.folds``), as that of a run of
    ``holdfast cv`` does; ``None`` where it asks for none."""
    if recipe.cv.folds is None:
        return None
    from holdfast.search.folds.cross_validation import CrossValidation

    return CrossValidation(recipe.cv.folds, recipe.cv.repeats, recipe.cv.nested)


def audit_watched(asked: AuditRequest, *, quiet: bool = False) -> Audit:
    """Do what ``asked`` says."""
    from holdfast.analyses.audit.audit import audit

    teller, line = Teller(quiet), ProgressLine(quiet)
    teller.title(f"holdfast audit {asked.names.get(asked.data, asked.data)}")
    try:
        recipe = asked.recipe()
        with decisions_to(line.then(teller)):
            return audit(recipe, asked.against, progress=line, names=asked.names)
    finally:
        line.close()
