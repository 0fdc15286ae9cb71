"""``holdfast tune``: hyperparameter search, whose final model is an ordinary fit with the best
configuration.

space → the default, then a sampler ⇄ fits scored on validation rows → the winner, by its scores row
by row → one fit with its settings into the run's folder
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holdfast.contract.request import RECIPES, TrainingRequest
from holdfast.contract.run_folder import STUDY, default_folder
from holdfast.core.decisions import notify
from holdfast.core.discovery import user_path
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.files import write_text
from holdfast.core.records import Decision
from holdfast.core.wording import count_phrase
from holdfast.data.database_url import mask_password
from holdfast.fits.row_use import dealing_conflict
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.runs.procedure import COMMAND, SEARCH_FITS, read_search_start
from holdfast.search.capacity import Sizing
from holdfast.search.context import SearchContext, judging_counts, units_of
from holdfast.search.learner import (
    JobRunner,
    SearchLearner,
    SearchOutcome,
    make_engine,
    require_test_rows,
)
from holdfast.search.search_loop import SearchLoop
from holdfast.search.space import format_settings
from holdfast.search.space_request import parse_space, read_search_recipe, split_settings
from holdfast.search.storage import check_study, open_storage, require_optuna
from holdfast.search.study import Proposals, Trials
from holdfast.search.study_block import study_block
from holdfast.search.study_verdict import judge_trials, search_stop_reason, trial_stop_reason
from holdfast.search.trial_plan import (
    Pruning,
    SearchPart,
    TrialPlan,
    make_pruner,
    make_sampler,
    plan_trials,
    search_part,
)

OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Tune:
    """The options of ``holdfast tune`` in addition to its recipe: ``ranges`` as they were written,
    by key; ``study`` is a file or URL (``None``: a file in the run's folder)."""

    ranges: Mapping[str, Any] = field(default_factory=dict)
    search: SearchPart = field(default_factory=SearchPart)
    study: str | None = None
    engine: str = "local"
    address: str | None = None
    name: str = "tune"

    def checked_recipe(self, recipe: Recipe) -> Recipe:
        """See ``Procedure.checked_recipe``."""
        require_test_rows(recipe)
        if self.search.folds and recipe.train.folds:
            rule = "splits each trial into folds, and so does train.folds"
            raise RecipeError("search.folds", rule, self.search.folds, "Remove one of them.")
        # What is missing, or wrong with the space, is said before a row is read.
        require_optuna()
        parse_space(self.ranges, recipe)
        if self.study is not None:
            check_study(self.study)
        return recipe

    def describe(self) -> Mapping[str, Any]:
        """See ``Procedure.describe``."""
        return {
            "space": dict(self.ranges),
            "search": self.search.model_dump(mode="json"),
            "study": None if self.study is None else mask_password(self.study),
            "engine": self.engine,
        }

    def learn(self, recipe: Recipe, divided: Divided) -> SearchLearner:
        """See ``Procedure.learn``."""
        engine = make_engine(self.engine, self.address)
        if self.search.folds and (against := dealing_conflict(recipe, divided)):
            remedy = "Remove it: trials are then scored on validation rows."
            raise RecipeError("search.folds", against, self.search.folds, remedy)
        search = SettingsSearch(self, len(divided.splits.test))
        return SearchLearner(recipe, divided, engine, search)


@dataclass(frozen=True, slots=True)
class SettingsSearch:
    """Trials of settings, stored in a study; the winner's expected score is for ``test_rows``."""

    procedure: Tune
    test_rows: int

    def run(self, context: SearchContext, fits: JobRunner, checkpoints: Path) -> SearchOutcome:
        """See ``Search.run``."""
        start, options = time.perf_counter(), self.procedure.search
        plan = plan_trials(self.procedure.ranges, options, context)
        notify(*plan.decisions)
        owner_file = checkpoints / SEARCH_FITS / OWNER
        storage_path = self.procedure.study
        if storage_path is None:
            owner_file.parent.mkdir(parents=True, exist_ok=True)
            storage_path = str(owner_file.with_name(STUDY))
        # This run's name among others that share a study.
        owner = owner_file.read_text("utf-8").strip() if owner_file.exists() else uuid.uuid4().hex
        trials = self._trials(context, plan, storage_path, owner)
        # Not before the study is known to be of this search: a refused one leaves no run behind.
        owner_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(owner_file, owner)
        seconds = None if options.minutes is None else 60 * options.minutes
        until = None if seconds is None else time.monotonic() + seconds
        search = SearchLoop(
            trials,
            plan,
            Pruning(plan.pruner.chosen, plan.rows_passed, until),
            seconds,
            # When the search ends before its last trial, and who is dropped between folds.
            search_stop_rule=search_stop_reason if options.end else None,
            trial_stop_rule=trial_stop_reason if plan.pruner.chosen == "race" else None,
        )
        if search.results:
            existing_text = (
                f"{count_phrase(len(search.results), 'finished trial')} in it, not repeated"
            )
            notify(Decision("study", mask_password(storage_path), existing_text, prominent=True))
        for result in fits(search.jobs(), search.pruning):
            search.add(result)
        search_verdict = judge_trials(
            search.results, plan.metric, self.test_rows, units_of(context, plan.folds)
        )
        settings = search_verdict.winner.settings
        decision = Decision(
            "settings", format_settings(settings), search_verdict.because, prominent=True
        )
        notify(decision)
        study = study_block(search, search_verdict, context, mask_password(storage_path))
        study["search_s"] = round(time.perf_counter() - start, 3)
        trials.close()
        if self.procedure.study is None:
            shutil.copyfile(storage_path, checkpoints.parent / STUDY)
        return SearchOutcome(settings, (*plan.decisions, decision), {"study": study})

    def _trials(self, context: SearchContext, plan: TrialPlan, where: str, owner: str) -> Trials:
        about = {
            "rows": context.study_fingerprint,
            "space": plan.space.to_json(),
            "folds": self.procedure.search.folds,
            "metric": plan.metric,
            "seed": plan.seed,
        }
        sampler = make_sampler(plan.sampler.chosen, plan.seed, plan.max_trials)
        proposals = Proposals(plan.space, plan.default, sampler, make_pruner(plan.pruner.chosen))
        is_private = self.procedure.study is None
        return Trials(open_storage(where), where, about, owner, proposals, is_private)

    def plan(self, context: SearchContext) -> Mapping[str, Any]:
        """See ``Search.plan``."""
        trial_plan = plan_trials(self.procedure.ranges, self.procedure.search, context)
        return {
            "trials": trial_plan.max_trials,
            "minutes": self.procedure.search.minutes,
            "judged_by": judging_counts(trial_plan.folds),
            "sampler": trial_plan.sampler.to_json(),
            "pruner": trial_plan.pruner.to_json(),
            "space": trial_plan.space.to_json(),
        }


def tune_request(
    request: TrainingRequest,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    study: str | None = None,
    engine: str = "local",
    address: str | None = None,
) -> tuple[TrainingRequest, Recipe, Tune | Sizing]:
    """The request without its ranges, its recipe, and the procedure that searches.

    Raises ``RecipeError`` for an invalid space or kind of search.
    """
    recipe_settings, ranges, search_settings = split_settings(request.settings)
    request = replace(request, settings=recipe_settings)
    of_file: dict[str, Any] = {}
    part: Any = None
    if Path(request.source).suffix.lower() in RECIPES:

        def read(path: Path) -> Recipe:
            nonlocal of_file, part
            recipe, of_file, part = read_search_recipe(path)
            return recipe

        recipe = request.recipe(read)
    else:
        recipe = request.recipe()
    # A key that the command line sets to one value is not searched.
    fixed = {setting.partition("=")[0].strip() for setting in recipe_settings}
    ranges = {**{key: one for key, one in of_file.items() if key not in fixed}, **ranges}
    options = {"trials": trials, "minutes": minutes}
    search_settings |= {name: value for name, value in options.items() if value is not None}
    search_options = search_part(part, search_settings)
    started = _started_search(request)
    if started is not None:
        # The same search: in its space, by its way.
        ranges, search_options = started.get("space") or {}, search_part(started.get("search"), {})
        study = study if isinstance(search_options, str) else _study_location(started, study)
    if isinstance(search_options, str):
        if started is None and study is not None:
            rule = f"belongs to a hyperparameter search, but the search is {search_options}"
            raise RecipeError("--study", rule, mask_password(study), "Remove one of the two.")
        if ranges:
            rule = f"is {search_options}, which searches no settings, but one has a range"
            raise RecipeError("search", rule, next(iter(ranges)), "Remove one of the two.")
        return request, recipe, Sizing(engine, address)
    if study is not None and "://" not in study:
        study = str(user_path(study).absolute())
    if started is None:
        parse_space(ranges, recipe)
    return request, recipe, Tune(ranges, search_options, study, engine, address)


def _started_search(request: TrainingRequest) -> Mapping[str, Any] | None:
    """The start of the search that is to be resumed."""
    if not request.resume:
        return None
    folder = request.out or default_folder(request.source, True)
    started = read_search_start(folder) if folder.is_dir() else None
    return started if started is not None and started[COMMAND] == "tune" else None


def _study_location(started: Mapping[str, Any], study: str | None) -> str | None:
    """The location of the trials: from the command, else where they were. A password is not stored,
    so the URL of a database study must come from the command."""
    recorded: str | None = started.get("study")
    if study is None and recorded is not None and "***" in recorded:
        rule = "is in a database whose password is not stored"
        raise RunError("the study", rule, recorded, "Give its URL again with --study.")
    return recorded if study is None else study
