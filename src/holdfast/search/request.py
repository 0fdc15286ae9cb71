"""What a person asks ``holdfast tune``, at whichever door: a request of ``train``, its ranges taken
out, and how to search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.request import RECIPES, Request
from holdfast.contract.run_folder import default_folder
from holdfast.core.errors import RecipeError, RunError
from holdfast.data.database_url import masked
from holdfast.recipe import Recipe
from holdfast.runs.procedure import COMMAND, Procedure, begun_search
from holdfast.search.searches import SEARCHES, procedure_of
from holdfast.search.settings import SearchPart, search_part
from holdfast.search.space_request import read_asked, space_of, split_settings
from holdfast.search.tune import Tune

if TYPE_CHECKING:
    from collections.abc import Mapping


def tune_request(
    request: Request,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    study: str | None = None,
    engine: str = "local",
    address: str | None = None,
) -> tuple[Request, Recipe, Procedure]:
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
    how = search_part(part, said, sorted(SEARCHES))
    begun = _begun(request)
    if begun is not None and isinstance(begun.get("search"), str):
        return request, recipe, procedure_of(begun["search"], engine, address)
    if begun is not None:
        return request, recipe, _again(begun, study, engine, address)
    if isinstance(how, str):
        if ranges or study is not None:
            what, name = ("--study", study) if study is not None else ("search", next(iter(ranges)))
            rule = f"is of settings that are searched, and the search is that of {how}"
            if study is None:
                rule = f"is {how}, which searches no settings, and one has a range"
            raise RecipeError(what, rule, masked(str(name)), "Leave one of the two out.")
        return request, recipe, procedure_of(how, engine, address)
    if study is not None and "://" not in study:
        study = str(Path(study).expanduser().absolute())
    space_of(ranges, recipe)
    return request, recipe, Tune(ranges, how, study, engine, address)


def _begun(request: Request) -> Any:
    """What the search that is to be continued began with."""
    if not request.resume:
        return None
    folder = request.out or default_folder(request.source, True)
    begun = begun_search(folder) if folder.is_dir() else None
    return begun if begun is not None and begun[COMMAND] == "tune" else None


def _again(begun: Mapping[str, Any], study: str | None, engine: str, address: str | None) -> Tune:
    """The same search: in its space, by its way. A password was not stored, so that the URL of a
    study is that of the command."""
    part, kept = search_part(begun.get("search"), {}, []), begun.get("study")
    if kept is not None and study is None:
        if "***" in kept:
            rule = "lies in a database whose password is not stored"
            raise RunError("the study", rule, kept, "Name it again with --study.")
        study = kept
    elif study is not None and "://" not in study:
        study = str(Path(study).expanduser().absolute())
    assert isinstance(part, SearchPart)
    return Tune(begun["space"] or {}, part, study, engine, address)
