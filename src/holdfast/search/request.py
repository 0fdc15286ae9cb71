"""What a person asks ``holdfast tune``, by whichever API: a request of ``train``, its ranges taken
out, and how to search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.contract.request import RECIPES, Request
from holdfast.contract.run_folder import default_folder
from holdfast.core.errors import RecipeError, RunError
from holdfast.data.database_url import masked
from holdfast.recipe import Recipe
from holdfast.runs.procedure import COMMAND, begun_search
from holdfast.search.capacity.capacity import Sizing
from holdfast.search.space_request import read_asked, space_of, split_settings
from holdfast.search.trial_plan import search_part
from holdfast.search.tune import Tune


def tune_request(
    request: Request,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    study: str | None = None,
    engine: str = "local",
    address: str | None = None,
) -> tuple[Request, Recipe, Tune | Sizing]:
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
            raise RecipeError("--study", rule, masked(study), "Leave one of the two out.")
        if ranges:
            rule = f"is {how}, which searches no settings, and one has a range"
            raise RecipeError("search", rule, next(iter(ranges)), "Leave one of the two out.")
        return request, recipe, Sizing(engine, address)
    if study is not None and "://" not in study:
        study = str(Path(study).expanduser().absolute())
    if begun is None:
        space_of(ranges, recipe)
    return request, recipe, Tune(ranges, how, study, engine, address)


def _begun(request: Request) -> Mapping[str, Any] | None:
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
