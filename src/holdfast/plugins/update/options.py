"""One update: what a person asks at whichever door → a recipe, its rows and the procedure, how long
it trains, and its run with a person watching.

An update takes the recipe of its run for other rows, as a rule more. Whatever a recipe counts in
passes or as a share grows with them by itself (``train.epochs``, ``train.warmup``, schedules, the
``train.evaluations`` over the course, ``train.patience`` among these). Three settings do not:

- ``train.max_steps`` bounds the updates: for n times the rows it leaves 1/n of the passes. It is
  scaled with the rows, since the run was judged with so many passes;
- ``methods.contrast.steps``, a stage before the fine-tuning. It stays: ``train.epochs`` bounds all
  phases together, and what the stage does not take is left to the fine-tuning;
- ``train.max_minutes`` bounds the time that a person is willing to wait. It stays.

Each is said, with what would change it. What is set for the update itself is taken as it is.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.contract.request import Request
from holdfast.contract.run_folder import RECIPE, check_place, default_folder, is_finished, open_run
from holdfast.core.errors import MachineError, RecipeError, RunError, StoreError
from holdfast.core.printable import printable
from holdfast.core.records import Decision, to_json
from holdfast.core.run_files import read_result
from holdfast.core.wording import counted
from holdfast.plugins.update.candidates import against_warm, check_start
from holdfast.plugins.update.feedback import tell_store
from holdfast.plugins.update.gate import check_margin
from holdfast.plugins.update.merge import OWN_SHARE, join
from holdfast.plugins.update.procedure import Renewal
from holdfast.recipe import Recipe, anchored, as_settings, override, read_recipe
from holdfast.runs.finished_run import OPENINGS
from holdfast.runs.procedure import read_search_start
from holdfast.terminal.watch import train_watched


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


def begin(asking: UpdateOptions) -> UpdateStart:
    """Read and join the rows.

    Raises ``RunError``, ``RecipeError``, ``DataError`` or ``StoreError`` for what cannot be.
    """
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


def _continued(run: Path, out: Path) -> UpdateStart:
    """The update of ``run`` that was begun in ``out``, of which no row is read again."""
    begun = read_search_start(out)
    if begun is None or begun.get("command") != "update":
        raise _no_update(out)
    done = out / RECIPE
    recipe = read_recipe(done if done.exists() else run / RECIPE)
    return UpdateStart(recipe, Renewal.of(begun))


def _no_update(folder: Path) -> RunError:
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


STEPS, STAGE, MINUTES = "train.max_steps", "methods.contrast.steps", "train.max_minutes"


def for_rows(
    recipe: Recipe, before: int, after: int, given: Iterable[str] = ()
) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe of a run of ``before`` training rows for ``after`` rows, and what is to be said of
    it; ``given`` are the settings of the update (``KEY=VALUE``), of which none is changed.

    ``train.max_steps`` becomes ⌈steps · after ÷ before⌉, so that a row is passed as often as it
    was. Nothing is changed or said for as many rows as before.
    """
    named = {setting.partition("=")[0].strip() for setting in given}
    if before == after or before < 1:
        return recipe, ()
    rows = f"{counted(after, 'training row')} in the place of {before:,}"
    told = []
    steps, minutes = recipe.train.max_steps, recipe.train.max_minutes
    if steps is not None and STEPS not in named:
        scaled = math.ceil(steps * after / before)
        because = (
            f"{rows}: as many passes over them as the {steps:,} updates of the served run were; "
            f"--set {STEPS}={steps} keeps the number"
        )
        told.append(Decision(STEPS, f"{scaled:,}", because, prominent=True))
        recipe = recipe.changed(train={"max_steps": scaled})
    stage = (recipe.methods.get("contrast") or {}) if recipe.methods else {}
    if isinstance(stage, dict) and stage.get("steps") and not named & {STAGE, "methods.contrast"}:
        because = (
            f"{rows}: the number of steps stays, and the remaining epochs of train.epochs are used "
            f"for fine-tuning; --set {STAGE}=N changes it"
        )
        told.append(Decision(STAGE, f"{stage['steps']:,}", because, prominent=True))
    if minutes is not None and MINUTES not in named:
        because = (
            f"{rows} in no more time, which may end the training before its passes are done; "
            f"--set {MINUTES}=M changes it"
        )
        told.append(Decision(MINUTES, f"{minutes:g}", because, prominent=True))
    return recipe, tuple(told)


def updated(
    asking: UpdateOptions,
    out: Path | None,
    *,
    resume: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Do what ``holdfast update`` does once: the result, and the new run's folder."""
    # What a default folder is called after.
    source = f"{asking.run.resolve().name}-updated"
    if resume:
        out = out or default_folder(source, True)
        if is_finished(out):
            result = read_result(out)
            if "update" not in result:
                raise _no_update(out)
            _tell(asking.feedback, result, out)
            return result, out
        begun = _continued(asking.run, out)
    else:
        if out is not None:
            # Before the rows are read and joined.
            check_place(out, False)
        begun = begin(asking)
    request = Request(source, out=out, resume=resume, held=begun.held)
    result, folder = train_watched(
        request, begun.recipe, quiet=quiet, verbose=verbose, procedure=begun.procedure
    )
    _tell(asking.feedback, result, folder)
    return result, folder


def _tell(where: str | None, result: Mapping[str, Any], folder: Path) -> None:
    """The gate's decision joins the events of the store that the feedback came of, once."""
    block = result["update"]
    body = {"run": str(folder), "from": block["from"]}
    body |= {key: block["gate"][key] for key in ("decision", "because")}
    try:
        tell_store(where, "gate", body, time.time(), once=True)
    except StoreError as error:
        told = f"the gate's decision was not written into the store: {error.what} {error.rule}"
        sys.stderr.write(printable(f"holdfast update: {told}") + "\n")
