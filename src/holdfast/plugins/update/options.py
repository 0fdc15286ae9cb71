"""One update: from the options to a recipe, its rows and the procedure; how long it trains; and its
run with progress.

An update uses the recipe of its run for other rows, usually more. Settings that count passes or
shares grow with the rows by themselves (``train.epochs``, ``train.warmup``, schedules,
``train.evaluations``, ``train.patience`` among these). Three settings do not:

- ``train.max_steps`` bounds the updates: for n times the rows it leaves 1/n of the passes. It is
  scaled with the rows, since the run was evaluated with that many passes;
- ``methods.contrast.steps``, a stage before the fine-tuning. It stays: ``train.epochs`` bounds all
  phases together, and the fine-tuning uses what the stage leaves;
- ``train.max_minutes`` bounds the time that the user is willing to wait. It stays.

Each is reported with the setting that would change it. Settings of the update itself are used
unchanged.
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

from holdfast.analyses.compare.verdict import check_margin
from holdfast.contract.inference import run_recipe
from holdfast.contract.request import TrainingRequest
from holdfast.contract.run_folder import RECIPE, check_place, default_folder, is_finished, open_run
from holdfast.core.errors import MachineError, RecipeError, RunError, StoreError
from holdfast.core.printable import printable
from holdfast.core.records import Decision, to_json
from holdfast.core.run_files import read_result
from holdfast.core.wording import count_phrase
from holdfast.plugins.update.feedback import append_event
from holdfast.plugins.update.merge import MAX_MODEL_SHARE, join_feedback
from holdfast.plugins.update.procedure import UpdateProcedure
from holdfast.plugins.update.start import choose_start, warm_start_obstacle
from holdfast.recipe import Recipe, as_settings, override, resolve_paths
from holdfast.recipe.plain_names import stored_key
from holdfast.runs.finished_run import OPENINGS
from holdfast.runs.procedure import read_search_start
from holdfast.terminal.watch import train_with_progress


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """The options of an update; ``None`` and empty mean not given. ``hold`` is the share held out
    for the gate, ``own`` the largest share of training rows that a model may have labelled,
    ``margin`` is in points."""

    run: Path
    feedback: str | None = None
    margin: float | None = None
    start: str = "anew"
    hold: float | None = None
    own: float = MAX_MODEL_SHARE
    seed: int | None = None
    settings: Sequence[str] | Mapping[str, Any] = ()


@dataclass(frozen=True, slots=True)
class UpdateStart:
    """The recipe of the update, the tables that are stored in its folder, and the procedure."""

    recipe: Recipe
    procedure: UpdateProcedure
    tables: Mapping[str, Any] = field(default_factory=dict)


def start_update(options: UpdateOptions) -> UpdateStart:
    """Read and join the rows.

    Raises ``RunError``, ``RecipeError``, ``DataError`` or ``StoreError`` for invalid input.
    """
    if options.feedback is None:
        rule = "is missing: an update needs rows that were labelled after training"
        remedy = "Name a file of labelled rows, or the store of the service (its URL or file)."
        raise RecipeError("--feedback", rule, None, remedy)
    if options.margin is not None:
        check_margin(options.margin)
    _check_share("--hold", options.hold, 0.9)
    _check_share("--own", options.own, 0.5)
    choose_start(options.start, None)
    open_run(options.run)
    _check_writable(options.run)
    joined = join_feedback(options.run, options.feedback, options.hold, options.own)
    settings = as_settings(options.settings)
    recipe, lengths = scale_for_rows(override(joined.recipe, settings), *joined.rows, settings)
    if options.seed is not None:
        recipe = recipe.model_copy(update={"seed": options.seed})
    choose_start(options.start, warm_start_obstacle(options.run, recipe, joined.deleted))
    procedure = UpdateProcedure(
        str(options.run.resolve()),
        options.margin,
        options.start,
        joined.deleted,
        joined.block,
        tuple(to_json(joined.findings)),
        tuple(to_json((*joined.decisions, *lengths))),
    )
    return UpdateStart(resolve_paths(recipe, Path()), procedure, joined.tables)


def _continue_update(run: Path, out: Path) -> UpdateStart:
    """The update of ``run`` that was started in ``out``; no row is read again."""
    saved = read_search_start(out)
    if saved is None or saved.get("command") != "update":
        raise _not_an_update_error(out)
    recipe = run_recipe(out if (out / RECIPE).exists() else run)
    return UpdateStart(recipe, UpdateProcedure.of(saved))


def _not_an_update_error(folder: Path) -> RunError:
    """The error for a folder that ``--resume`` names and that holds no update."""
    rule = "is not an update that can be continued"
    remedy = "Name the folder of the update with --out, or leave out --resume."
    return RunError(str(folder), rule, None, remedy)


def _check_writable(run: Path) -> None:
    """Check before training that the served run's folder is writable: each use of its test set is
    recorded there."""
    openings = run / OPENINGS
    if not os.access(openings if openings.exists() else run, os.W_OK):
        rule = "cannot be written: each further use of its test set is recorded there"
        raise MachineError(str(run), rule, None, "Make it writable, or update a copy of the run.")


def _check_share(where: str, value: float | None, limit: float) -> None:
    if value is not None and not 0 < value <= limit:
        rule = f"must be a share above 0 and at most {limit:g}"
        raise RecipeError(where, rule, value, f"E.g. {where} {limit / 3:.1g}.")


MAX_STEPS, CONTRAST_STEPS, MAX_MINUTES = (
    "train.max_steps",
    "methods.contrast.steps",
    "train.max_minutes",
)


def scale_for_rows(
    recipe: Recipe, before: int, after: int, settings: Iterable[str] = ()
) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe of a run with ``before`` training rows, adapted to ``after`` rows, and the
    decisions to report. ``settings`` are the settings of the update (``KEY=VALUE``), of which none
    is changed.

    ``train.max_steps`` becomes ⌈steps · after ÷ before⌉, so that the number of passes stays the
    same. With an equal number of rows nothing changes.
    """
    set_keys = {stored_key(setting.partition("=")[0].strip()) for setting in settings}
    if before == after or before < 1:
        return recipe, ()
    rows = f"{count_phrase(after, 'training row')} instead of {before:,}"
    decisions = []
    steps, minutes = recipe.train.max_steps, recipe.train.max_minutes
    if steps is not None and MAX_STEPS not in set_keys:
        scaled = math.ceil(steps * after / before)
        because = (
            f"{rows}: scaled from {steps:,} updates to keep the number of passes over the rows; "
            f"--set {MAX_STEPS}={steps} keeps {steps:,}"
        )
        decisions.append(Decision(MAX_STEPS, f"{scaled:,}", because, prominent=True))
        recipe = recipe.with_changes(train={"max_steps": scaled})
    stage = (recipe.methods.get("contrast") or {}) if recipe.methods else {}
    if (
        isinstance(stage, dict)
        and stage.get("steps")
        and not set_keys & {CONTRAST_STEPS, "methods.contrast"}
    ):
        because = (
            f"{rows}: the number of steps stays, and the remaining epochs of train.epochs are used "
            f"for fine-tuning; --set {CONTRAST_STEPS}=N changes it"
        )
        decisions.append(Decision(CONTRAST_STEPS, f"{stage['steps']:,}", because, prominent=True))
    if minutes is not None and MAX_MINUTES not in set_keys:
        because = (
            f"{rows} in the same time, which may stop training before all passes are done; "
            f"--set {MAX_MINUTES}=M changes it"
        )
        decisions.append(Decision(MAX_MINUTES, f"{minutes:g}", because, prominent=True))
    return recipe, tuple(decisions)


def run_update(
    options: UpdateOptions,
    out: Path | None,
    *,
    resume: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Run ``holdfast update`` once: the result, and the new run's folder."""
    # The default folder is named after it.
    source = f"{options.run.resolve().name}-updated"
    if resume:
        out = out or default_folder(source, True)
        if is_finished(out):
            result = read_result(out)
            if "update" not in result:
                raise _not_an_update_error(out)
            _record_gate_decision(options.feedback, result, out)
            return result, out
        update_start = _continue_update(options.run, out)
    else:
        if out is not None:
            # Before the rows are read and joined.
            check_place(out, False)
        update_start = start_update(options)
    request = TrainingRequest(source, out=out, resume=resume, in_memory=update_start.tables)
    result, folder = train_with_progress(
        request, update_start.recipe, quiet=quiet, verbose=verbose, procedure=update_start.procedure
    )
    _record_gate_decision(options.feedback, result, folder)
    return result, folder


def _record_gate_decision(where: str | None, result: Mapping[str, Any], folder: Path) -> None:
    """Append the gate's decision once to the events of the store that the feedback comes from."""
    block = result["update"]
    body = {"run": str(folder), "from": block["from"]}
    body |= {key: block["gate"][key] for key in ("decision", "because")}
    try:
        append_event(where, "gate", body, time.time(), once=True)
    except StoreError as error:
        notice = f"the gate's decision was not written to the store: {error.what} {error.rule}"
        sys.stderr.write(printable(f"holdfast update: {notice}") + "\n")
