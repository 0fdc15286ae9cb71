"""A run whose model comes about by more than one fit: by folds, by trials, from a teacher.

The sentence of ``pipeline/main.py`` stays what it is; a procedure takes the place of "fit". Its
fits happen before the last one, which is an ordinary fit into the run's folder, and what it found
joins ``result.json``.
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

# What a procedure's own finished fits lie in, below ``checkpoints/``.
SEARCH_FITS = "search"
COMMAND = "command"


class Learner(Protocol):
    """What a run learns from, and by which way: ``fits.row_roles.LearningRows``, or what a
    procedure makes of it. ``divided`` is the split as it is then used."""

    @property
    def divided(self) -> Divided: ...

    def fit(self, into: RunFolder | None, listeners: Sequence[Listener]) -> FittedModel:
        """Everything up to the fitted model. Whatever comes before the last fit keeps what is
        finished below ``into.checkpoints / FITS``, so that a killed run does not repeat it."""
        ...

    def blocks(self) -> Mapping[str, Any]:
        """What joins ``result.json``, by its place there; called after ``fit``."""
        ...


@runtime_checkable
class UsesScore(Protocol):
    """A learner that needs the score for its blocks: it is called in the place of
    ``blocks``."""

    def score_blocks(self, scored: ScoringResult) -> Mapping[str, Any]: ...


def blocks_of(learner: Learner, scored: ScoringResult) -> Mapping[str, Any]:
    """What joins ``result.json`` of what a learner found."""
    return learner.score_blocks(scored) if isinstance(learner, UsesScore) else learner.blocks()


class Procedure(Protocol):
    """``name`` is the command that a person types. A procedure is a value: what it remembers, its
    learner does."""

    @property
    def name(self) -> str: ...

    def checked_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe by which the rows are read and split."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What was requested in addition to the recipe, in plain values: it is kept in
        ``search.yaml``."""
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
    """A run goes on by the ``settings`` file that it began with."""
    because = f"every setting is that of its {settings}; what is given now is not used"
    notify(Decision("resumed", str(run), because, prominent=True))


def read_search_start(run: Path) -> Mapping[str, Any] | None:
    """What the search in this folder began with: its ``command``, its ``recipe``, and what was
    requested in addition to it; ``None`` where a run began without one, or none did."""
    for path in (run / CHECKPOINTS / SEARCH, run / SEARCH):
        if path.exists():
            with reading_errors(
                str(path), RunError, remedy="Restore it, or start anew with another --out."
            ):
                recorded = read_yaml(path)
                if not isinstance(recorded, dict) or COMMAND not in recorded:
                    raise ValueError("it does not hold what a search begins with")
                return recorded
    return None


def begin_search(run: Path, procedure: Procedure | None, recipe: Recipe, resume: bool) -> Recipe:
    """The recipe that the rows are read by: of a run that is continued the one it began with.

    The request is written down before the first row is read. Raises ``RunError`` where another
    command began what is to be continued, or where several processes were started.
    """
    recorded = read_search_start(run) if resume else None
    _refuse_other(run, procedure, recorded, resume)
    if procedure is None:
        return recipe
    if process_count() > 1:
        rule = "runs in one process, and a launcher started several"
        remedy = "Start it without the launcher; --engine ray spreads fits over processes."
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
        raise RunError(
            str(run),
            f"was begun by `holdfast {before}`, and `holdfast {command}` cannot finish it",
            None,
            f"Continue it with `holdfast {before} … --resume`.",
        )


def forget_search(run: Path) -> None:
    """Where the input was at fault before a fit was done, nothing is left of the request."""
    checkpoints = run / CHECKPOINTS
    if (run / RECIPE).exists() or (checkpoints / SEARCH_FITS).exists():
        return
    (checkpoints / SEARCH).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        checkpoints.rmdir()


def keep_search(run: Path) -> None:
    """The request of a search joins the finished run's files."""
    path = run / CHECKPOINTS / SEARCH
    if path.exists():
        write_text(run / SEARCH, path.read_text("utf-8"))
