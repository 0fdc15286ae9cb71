"""A run whose model takes more than one fit: with folds, trials, or a teacher.

The steps of ``pipeline/main.py`` stay the same; a procedure replaces the fit. Its other fits come
before the last one, which is an ordinary fit into the run's folder, and its results are added to
``result.json``.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import yaml

from holdfast.contract.run_folder import CHECKPOINTS, RECIPE, SEARCH
from holdfast.core.decisions import notify
from holdfast.core.errors import RunError
from holdfast.core.files import write_text
from holdfast.core.input_errors import reading_errors
from holdfast.core.machine import process_count
from holdfast.core.records import Decision
from holdfast.core.yaml_values import from_yaml, read_yaml
from holdfast.recipe import Recipe, resolve_paths
from holdfast.recipe.recipe import parse

if TYPE_CHECKING:
    from holdfast.contract.fit import FittedModel, ScoringResult
    from holdfast.core.events import Listener
    from holdfast.prepare.rows import Divided
    from holdfast.runs.start import RunFolder

# The folder of a procedure's own finished fits, below ``checkpoints/``.
SEARCH_FITS = "search"
COMMAND = "command"


class Learner(Protocol):
    """The rows that a run learns from, and how: ``fits.row_use.LearningRows``, or a procedure's own
    learner. ``divided`` is the split as it is then used."""

    @property
    def divided(self) -> Divided: ...

    def fit(self, into: RunFolder | None, listeners: Sequence[Listener]) -> FittedModel:
        """Everything up to the fitted model. Fits before the last one store their results below
        ``into.checkpoints / FITS``, so that a killed run does not repeat them."""
        ...

    def blocks(self) -> Mapping[str, Any]:
        """The blocks to add to ``result.json``, by their key; called after ``fit``."""
        ...


@runtime_checkable
class UsesScore(Protocol):
    """A learner that needs the score for its blocks: this method is called in place of
    ``blocks``."""

    def score_blocks(self, scored: ScoringResult) -> Mapping[str, Any]: ...


def blocks_of(learner: Learner, scored: ScoringResult) -> Mapping[str, Any]:
    """The blocks of a learner for ``result.json``."""
    return learner.score_blocks(scored) if isinstance(learner, UsesScore) else learner.blocks()


class Procedure(Protocol):
    """``name`` is the command that the user types. A procedure is an immutable value; its learner
    holds the state."""

    @property
    def name(self) -> str: ...

    def checked_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe by which the rows are read and split."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """The options in addition to the recipe, in plain values, stored in ``search.yaml``."""
        ...

    def learn(self, recipe: Recipe, divided: Divided) -> Learner:
        """Prepare the rows of a split."""
        ...


@runtime_checkable
class ScoresByFolds(Protocol):
    """A procedure that needs no test rows: its folds score every row."""

    @property
    def folds(self) -> int: ...


def notify_resumed(run: Path, settings: str) -> None:
    """Log that a run is resumed with the ``settings`` file that it began with."""
    because = f"all settings are those in its {settings}; settings given now are ignored"
    notify(Decision("resumed", str(run), because, prominent=True))


def read_search_start(run: Path) -> Mapping[str, Any] | None:
    """The record of the search that began in this folder: its ``command``, its ``recipe``, and the
    other options; ``None`` where no search began here."""
    for path in (run / CHECKPOINTS / SEARCH, run / SEARCH):
        if path.exists():
            with reading_errors(
                str(path), RunError, remedy="Restore it, or start again with another --out."
            ):
                recorded = read_yaml(path)
                if not isinstance(recorded, dict) or COMMAND not in recorded:
                    raise ValueError("it is not the record of a search")
                return recorded
    return None


def begin_search(run: Path, procedure: Procedure | None, recipe: Recipe, resume: bool) -> Recipe:
    """The recipe by which the rows are read; for a resumed run the one that it began with.

    The request is recorded before the first row is read. Raises ``RunError`` where another command
    began the run to resume, or where several processes were started.
    """
    recorded = read_search_start(run) if resume else None
    _refuse_other(run, procedure, recorded, resume)
    if procedure is None:
        return recipe
    if process_count() > 1:
        rule = "runs in one process, but a launcher started several"
        remedy = "Start it without the launcher; --engine ray distributes fits over processes."
        raise RunError(f"holdfast {procedure.name}", rule, process_count(), remedy)
    if recorded is not None:
        if not (run / RECIPE).exists():
            notify_resumed(run, SEARCH)
        return procedure.checked_recipe(parse(recorded["recipe"], str(run / SEARCH)))
    checked = procedure.checked_recipe(recipe)
    checkpoints = run / CHECKPOINTS
    shutil.rmtree(checkpoints / SEARCH_FITS, ignore_errors=True)
    checkpoints.mkdir(parents=True, exist_ok=True)
    recipe_values = from_yaml(resolve_paths(recipe, Path()).to_yaml())
    plain = {COMMAND: procedure.name, "recipe": recipe_values, **procedure.describe()}
    write_text(checkpoints / SEARCH, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    return checked


def _refuse_other(
    run: Path, procedure: Procedure | None, recorded: Mapping[str, object] | None, resume: bool
) -> None:
    if not resume or (recorded is None and not (run / RECIPE).exists()):
        return
    before = recorded[COMMAND] if recorded else "train"
    command = procedure.name if procedure else "train"
    if before != command:
        rule = f"was begun by `holdfast {before}`, so `holdfast {command}` cannot finish it"
        raise RunError(str(run), rule, None, f"Continue it with `holdfast {before} … --resume`.")


def forget_search(run: Path) -> None:
    """Remove the request where the input was invalid before any fit finished."""
    checkpoints = run / CHECKPOINTS
    if (run / RECIPE).exists() or (checkpoints / SEARCH_FITS).exists():
        return
    (checkpoints / SEARCH).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        checkpoints.rmdir()


def keep_search(run: Path) -> None:
    """Add the request of a search to the finished run's files, without the command of an alert,
    which may hold a secret and stands in the run's recipe."""
    path = run / CHECKPOINTS / SEARCH
    if path.exists():
        kept = yaml.safe_load(path.read_text("utf-8"))
        kept["recipe"].pop("alert", None)
        write_text(run / SEARCH, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))
