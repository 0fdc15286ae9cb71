"""``holdfast tune``: what a person asks of it, by whichever API, and settings by search, of which
the model that is kept is made by an ordinary fit.

space → the default, then a sampler ⇄ fits judged by validation rows → the
winner, by its scores row by row → one fit with its settings into the run's folder
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
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.files import write_text
from holdfast.core.records import Decision
from holdfast.core.wording import count_phrase
from holdfast.data.database_url import mask_password
from holdfast.fits.row_use import against_dealing
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.runs.procedure import COMMAND, FITS, begun_search
from holdfast.search.bench import Bench, judged_by, units_of
from holdfast.search.capacity import Sizing
from holdfast.search.learner import Fits, SearchLearner, SearchOutcome, engine_of, need_test_rows
from holdfast.search.search_loop import SearchLoop
from holdfast.search.space import shown
from holdfast.search.space_request import read_asked, space_of, split_settings
from holdfast.search.storage import check_study, need_optuna, open_storage
from holdfast.search.study import Proposals, Trials
from holdfast.search.study_block import block
from holdfast.search.study_verdict import behind_leader, ends_of, judged
from holdfast.search.trial_plan import (
    Pruning,
    SearchPart,
    TrialPlan,
    make_pruner,
    make_sampler,
    planned,
    search_part,
)

OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Tune:
    """What ``holdfast tune`` is asked beside its recipe: ``ranges`` as they were written, by key;
    ``study`` is a file or URL (``None``: a file in the run's folder)."""

    ranges: Mapping[str, Any] = field(default_factory=dict)
    search: SearchPart = field(default_factory=SearchPart)
    study: str | None = None
    engine: str = "local"
    address: str | None = None
    name: str = "tune"

    def asked(self, recipe: Recipe) -> Recipe:
        """See ``Procedure.asked``."""
        need_test_rows(recipe)
        if self.search.folds and recipe.train.folds:
            rule = "divides each trial into folds, and train.folds does so too"
            raise RecipeError("search.folds", rule, self.search.folds, "Leave one of them out.")
        # What is missing, or wrong with the space, is said before a row is read.
        need_optuna()
        space_of(self.ranges, recipe)
        if self.study is not None:
            check_study(self.study)
        return recipe

    def described(self) -> Mapping[str, Any]:
        """See ``Procedure.described``."""
        return {
            "space": dict(self.ranges),
            "search": self.search.model_dump(mode="json"),
            "study": None if self.study is None else mask_password(self.study),
            "engine": self.engine,
        }

    def learn(self, recipe: Recipe, divided: Divided) -> SearchLearner:
        """See ``Procedure.learn``."""
        engine = engine_of(self.engine, self.address)
        if self.search.folds and (against := against_dealing(recipe, divided)):
            remedy = "Leave it out: validation rows then judge."
            raise RecipeError("search.folds", against, self.search.folds, remedy)
        search = SettingsSearch(self, len(divided.splits.test))
        return SearchLearner(recipe, divided, engine, search)


@dataclass(frozen=True, slots=True)
class SettingsSearch:
    """Trials of settings, kept in a study; the winner is expected to score on ``test_rows``."""

    asked: Tune
    test_rows: int

    def run(self, bench: Bench, fits: Fits, kept_in: Path) -> SearchOutcome:
        """See ``Search.run``."""
        start, part = time.perf_counter(), self.asked.search
        how = planned(self.asked.ranges, part, bench)
        notify(*how.told)
        owned = kept_in / FITS / OWNER
        where = self.asked.study
        if where is None:
            owned.parent.mkdir(parents=True, exist_ok=True)
            where = str(owned.with_name(STUDY))
        # This run's name among others that share a study.
        owner = owned.read_text("utf-8").strip() if owned.exists() else uuid.uuid4().hex
        trials = self._trials(bench, how, where, owner)
        # Not before the study is known to be of this search: a refused one leaves no run behind.
        owned.parent.mkdir(parents=True, exist_ok=True)
        write_text(owned, owner)
        seconds = None if part.minutes is None else 60 * part.minutes
        until = None if seconds is None else time.monotonic() + seconds
        search = SearchLoop(
            trials,
            how,
            Pruning(how.pruner.chosen, how.passed, until),
            seconds,
            # When the search ends before its last trial, and who is dropped between folds.
            ends=ends_of if part.end else None,
            behind=behind_leader if how.pruner.chosen == "race" else None,
        )
        if search.tried:
            there = f"{count_phrase(len(search.tried), 'finished trial')} in it are not repeated"
            notify(Decision("study", mask_password(where), there, prominent=True))
        for done in fits(search.jobs(), search.pruning):
            search.take(done)
        found = judged(search.tried, how.metric, self.test_rows, units_of(bench, how.folds))
        settings = found.winner.settings
        chosen = Decision("settings", shown(settings), found.because, prominent=True)
        notify(chosen)
        study = block(search, found, bench, mask_password(where))
        study["search_s"] = round(time.perf_counter() - start, 3)
        trials.close()
        if self.asked.study is None:
            shutil.copyfile(where, kept_in.parent / STUDY)
        return SearchOutcome(settings, (*how.told, chosen), {"study": study})

    def _trials(self, bench: Bench, how: TrialPlan, where: str, owner: str) -> Trials:
        about = {
            "rows": bench.study_mark,
            "space": how.space.to_json(),
            "folds": self.asked.search.folds,
            "metric": how.metric,
            "seed": how.seed,
        }
        sampler = make_sampler(how.sampler.chosen, how.seed, how.most)
        proposals = Proposals(how.space, how.default, sampler, make_pruner(how.pruner.chosen))
        alone = self.asked.study is None
        return Trials(open_storage(where), where, about, owner, proposals, alone)

    def foreseen(self, bench: Bench) -> Mapping[str, Any]:
        """See ``Search.foreseen``."""
        how = planned(self.asked.ranges, self.asked.search, bench)
        return {
            "trials": how.most,
            "minutes": self.asked.search.minutes,
            "judged_by": judged_by(how.folds),
            "sampler": how.sampler.to_json(),
            "pruner": how.pruner.to_json(),
            "space": how.space.to_json(),
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
    """The request without its ranges, the recipe that it says, and the procedure that searches.

    Raises ``RecipeError`` for a space or a way to search that is none.
    """
    left, ranges, said = split_settings(request.settings)
    request = replace(request, settings=left)
    of_file: dict[str, Any] = {}
    part: Any = None
    if Path(request.source).suffix.lower() in RECIPES:

        def read(path: Path) -> Recipe:
            nonlocal of_file, part
            recipe, of_file, part = read_asked(path)
            return recipe

        recipe = request.recipe(read)
    else:
        recipe = request.recipe()
    # What is set to one value on the command line is searched no more.
    fixed = {setting.partition("=")[0].strip() for setting in left}
    ranges = {**{key: one for key, one in of_file.items() if key not in fixed}, **ranges}
    options = {"trials": trials, "minutes": minutes}
    said |= {name: value for name, value in options.items() if value is not None}
    how = search_part(part, said)
    begun = _begun(request)
    if begun is not None:
        # The same search: in its space, by its way.
        ranges, how = begun.get("space") or {}, search_part(begun.get("search"), {})
        study = study if isinstance(how, str) else _study_of(begun, study)
    if isinstance(how, str):
        if begun is None and study is not None:
            rule = f"is of settings that are searched, and the search is that of {how}"
            raise RecipeError("--study", rule, mask_password(study), "Leave one of the two out.")
        if ranges:
            rule = f"is {how}, which searches no settings, and one has a range"
            raise RecipeError("search", rule, next(iter(ranges)), "Leave one of the two out.")
        return request, recipe, Sizing(engine, address)
    if study is not None and "://" not in study:
        study = str(Path(study).expanduser().absolute())
    if begun is None:
        space_of(ranges, recipe)
    return request, recipe, Tune(ranges, how, study, engine, address)


def _begun(request: TrainingRequest) -> Mapping[str, Any] | None:
    """What the search that is to be continued began with."""
    if not request.resume:
        return None
    folder = request.out or default_folder(request.source, True)
    begun = begun_search(folder) if folder.is_dir() else None
    return begun if begun is not None and begun[COMMAND] == "tune" else None


def _study_of(begun: Mapping[str, Any], study: str | None) -> str | None:
    """Where the trials lie: as the command says, else where they lay. A password was not stored, so
    that the URL of a study is that of the command."""
    kept: str | None = begun.get("study")
    if study is None and kept is not None and "***" in kept:
        rule = "lies in a database whose password is not stored"
        raise RunError("the study", rule, kept, "Name it again with --study.")
    return kept if study is None else study
