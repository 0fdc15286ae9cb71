"""Enrichments by name: what ``enrich: {NAME: {SETTING: …}}`` of a recipe switches on.

An enrichment is one file: a pure function of a text (or of pictures) and chance, a frozen dataclass
whose fields are its settings and which knows how to be applied, and one line that adds it to
``ENRICHMENTS``. It is given rows of the training part alone (``TrainSplit``), and what it makes of
a row is a function of the row and a seed, so that a run gives the same forms wherever it is
continued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.augment.settings import made, settled
from holdfast.core.discovery import Registry, modules_of, nearest
from holdfast.core.errors import RecipeError

Of = Literal["text", "pictures"]


@dataclass(frozen=True, slots=True)
class Enrichment:
    """One entry: the frozen ``settings`` that apply it, what it is ``of``, and in ``known`` what
    is known of its worth, with the source."""

    settings: type[Any]
    of: Of
    known: str


ENRICHMENTS: Registry[Enrichment] = Registry("enrichment", "enrich")


def all_enrichments() -> Registry[Enrichment]:
    """The registry after every file of this room has been imported."""
    modules_of(__name__.rpartition(".")[0])
    return ENRICHMENTS


def kind_of_rows(task: str | None) -> Of | None:
    """What the rows of a task are; ``None`` where the task is not known yet."""
    if task is None:
        return None
    return "pictures" if task == "image-classification" else "text"


def asked_for(enrich: Mapping[str, object]) -> dict[str, Mapping[str, Any]]:
    """The settings of those that are switched on; ``enrich.own`` may be its function alone."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, given in enrich.items():
        if isinstance(given, str) and name == "own":
            found[name] = {"function": given}
        elif isinstance(given, Mapping):
            found[name] = given
        elif given is True:
            found[name] = {}
        elif given is not False:
            rule = "is neither true nor false nor a table of settings"
            raise RecipeError(f"enrich.{name}", rule, given, f"Set enrich.{name}=true.")
    return found


def check_enrich(enrich: Mapping[str, object], of: Of | None = None) -> dict[str, dict[str, Any]]:
    """Every setting of those that are on. Raises ``RecipeError`` for an enrichment that does not
    exist, or not for rows like these, and for a setting that it does not have or that is out of
    its bounds."""
    known = all_enrichments()
    for name in enrich:
        if name not in known:
            raise RecipeError(
                "enrich", "names an unknown enrichment", name, nearest(name, [*known])
            )
    found = {}
    for name, given in asked_for(enrich).items():
        if of is not None and known[name].of != of:
            others = [one for one in known if known[one].of == of]
            remedy = f"For these rows there are: {', '.join(sorted(others))}."
            raise RecipeError(f"enrich.{name}", f"is made for {known[name].of}", None, remedy)
        found[name] = settled(f"enrich.{name}", known[name].settings, given)
    return found


def make_all(asked: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """The enrichments of settled settings, ready to be applied, in the order of their names."""
    known = all_enrichments()
    return {name: made(known[name].settings, asked[name]) for name in sorted(asked)}
