"""What a person asks of an update, at whichever door → a recipe, its rows and the procedure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.contract.run_folder import RECIPE, open_run
from holdfast.core.errors import MachineError, RecipeError, RunError
from holdfast.core.records import to_json
from holdfast.plugins.update.candidates import against_warm, check_start
from holdfast.plugins.update.gate import check_margin
from holdfast.plugins.update.length import for_rows
from holdfast.plugins.update.merge import OWN_SHARE, join
from holdfast.plugins.update.procedure import Renewal
from holdfast.recipe import Recipe, anchored, as_settings, override, read_recipe
from holdfast.runs.finished_run import OPENINGS
from holdfast.runs.procedure import begun_search


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """What was asked; ``None`` and empty is what was not said. ``hold`` is the share set aside for
    the gate, ``own`` the largest share of training rows that a model may have labelled, ``margin``
    in points."""

    run: Path
    feedback: str | None = None
    margin: float | None = None
    start: str = "auto"
    hold: float | None = None
    own: float = OWN_SHARE
    seed: int | None = None
    settings: Sequence[str] | Mapping[str, Any] = ()


@dataclass(frozen=True, slots=True)
class UpdateStart:
    """The recipe of the update, the tables that are stored in its folder, and the procedure."""

    recipe: Recipe
    procedure: Renewal
    held: Mapping[str, Any] = field(default_factory=dict)


def begin(asking: UpdateOptions, out: Path | None = None, *, resume: bool = False) -> UpdateStart:
    """Read and join the rows; of an update that is continued nothing is read again.

    Raises ``RunError``, ``RecipeError``, ``DataError`` or ``StoreError`` for what cannot be.
    """
    if resume:
        begun = None if out is None else begun_search(out)
        if out is None or begun is None or begun.get("command") != "update":
            raise no_update(out or asking.run)
        done = out / RECIPE
        recipe = read_recipe(done) if done.exists() else read_recipe(asking.run / RECIPE)
        return UpdateStart(recipe, Renewal.of(begun))
    if asking.feedback is None:
        rule = "is missing: an update learns from rows that people labelled since"
        remedy = "Name a file of rows with labels, or the store of the service (its URL or file)."
        raise RecipeError("--feedback", rule, None, remedy)
    if asking.margin is not None:
        check_margin(asking.margin)
    _check_share("--hold", asking.hold, 0.9)
    _check_share("--own", asking.own, 0.5)
    check_start(asking.start, None)
    open_run(asking.run)
    _check_writable(asking.run)
    joined = join(asking.run, asking.feedback, asking.hold, asking.own)
    settings = as_settings(asking.settings)
    recipe, lengths = for_rows(override(joined.recipe, settings), *joined.rows, settings)
    if asking.seed is not None:
        recipe = recipe.model_copy(update={"seed": asking.seed})
    check_start(asking.start, against_warm(asking.run, recipe, joined.deleted))
    procedure = Renewal(
        str(asking.run.resolve()),
        asking.margin,
        asking.start,
        joined.deleted,
        joined.block,
        tuple(to_json(joined.findings)),
        tuple(to_json((*joined.decisions, *lengths))),
    )
    return UpdateStart(anchored(recipe, Path()), procedure, joined.held)


def no_update(folder: Path) -> RunError:
    """What is said of a folder that ``--resume`` names and that holds no update."""
    rule = "is not an update that could be continued"
    remedy = "Name the folder of the update with --out, or leave --resume out."
    return RunError(str(folder), rule, None, remedy)


def _check_writable(run: Path) -> None:
    """That the test rows are opened is written into the served run's folder: where that cannot be,
    it is said before hours of training."""
    openings = run / OPENINGS
    if not os.access(openings if openings.exists() else run, os.W_OK):
        rule = "cannot be written, and that its test rows are opened again must be noted there"
        raise MachineError(str(run), rule, None, "Make it writable, or update a copy of the run.")


def _check_share(where: str, value: float | None, most: float) -> None:
    if value is not None and not 0 < value <= most:
        rule = f"must be a share above 0 and at most {most:g}"
        raise RecipeError(where, rule, value, f"E.g. {where} {most / 3:.1g}.")
