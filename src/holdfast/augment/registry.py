"""Enrichments by name: what ``enrich: {NAME: {SETTING: …}}`` of a recipe switches on.

An enrichment is a frozen dataclass whose fields are its settings (``setting``) and which knows how
to be applied, and the line above it that adds it to ``ENRICHMENTS`` (``enrichment``). It is given
rows of the training part alone (``TrainSplit``), and what it makes of a row is a function of the
row and a seed, so that a run gives the same forms wherever it is continued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from holdfast.core.discovery import Registry, modules_of, nearest
from holdfast.core.errors import RecipeError
from holdfast.core.tasks import OF_PICTURES

S = TypeVar("S")
Of = Literal["text", "pictures"]
MOST = 1_000_000
# What a setting may be, and the type of its default.
KINDS: Mapping[str, type[Any]] = {
    "number": float,
    "whole": int,
    "words": str,
    "several": tuple,
    "truth": bool,
}


@dataclass(frozen=True, slots=True)
class SettingRule:
    """What the values of a setting may be: a ``number`` or a ``whole`` one above ``above`` (where
    that is ``None`` at least ``least``) and at most ``most``; one text (``words``, of ``choices``
    where there are some); ``several`` texts; or a ``truth``."""

    kind: str
    above: float | None = None
    least: float = 0
    most: float = MOST
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == "truth":
            return "must be true or false"
        if self.kind == "several":
            return "must be a list of texts"
        if self.kind == "words":
            among = f", one of {', '.join(self.choices)}" if self.choices else ""
            return f"must be a text{among}"
        low = f"above {self.above:g}" if self.above is not None else f"at least {self.least:g}"
        number = "a whole number" if self.kind == "whole" else "a number"
        return f"must be {number} {low} and at most {self.most:,g}"

    def hold(self, value: Any) -> bool:
        """Whether ``value`` is within it; true and false are no numbers."""
        if self.kind == "truth":
            return isinstance(value, bool)
        if self.kind == "words":
            known = not self.choices or value in self.choices
            return isinstance(value, str) and bool(value.strip()) and known
        if self.kind == "several":
            listed = isinstance(value, (list, tuple))
            return listed and all(isinstance(one, str) and one.strip() for one in value)
        if type(value) not in (int, float):
            return False
        low = value > self.above if self.above is not None else value >= self.least
        return low and value <= self.most and (self.kind == "number" or float(value).is_integer())


class Bounds(TypedDict, total=False):
    """The fields of ``SettingRule`` that a setting states."""

    above: float
    least: float
    most: float
    choices: tuple[str, ...]


def setting(default: Any = MISSING, **bounds: Unpack[Bounds]) -> Any:
    """A field of an enrichment, of the kind of its ``default``: a number (float), a whole one
    (int), a text, a list of texts (tuple), or true or false; one without a default is a text that
    must be set."""
    held = str if default is MISSING else type(default)
    kind = next(name for name, one in KINDS.items() if one is held)
    return field(default=default, metadata={"rule": SettingRule(kind, **bounds)})


@dataclass(frozen=True, slots=True)
class Enrichment:
    """One entry: the frozen ``settings`` that apply it, what it is ``of``, and in ``known`` what
    is known of its worth, with the source."""

    settings: type[Any]
    of: Of
    known: str


ENRICHMENTS: Registry[Enrichment] = Registry("enrichment", "enrich")


def enrichment(name: str, of: Of, known: str) -> Callable[[type[S]], type[S]]:
    """Adds the settings that stand below it to ``ENRICHMENTS``."""

    def add(settings: type[S]) -> type[S]:
        ENRICHMENTS.add(name, Enrichment(settings, of, known))
        return settings

    return add


def all_enrichments() -> Registry[Enrichment]:
    """The registry after every file of this package has been imported."""
    modules_of(__name__.rpartition(".")[0])
    return ENRICHMENTS


def kind_of_rows(task: str | None) -> Of | None:
    """What the rows of a task are; ``None`` where the task is not known yet."""
    if task is None:
        return None
    return "pictures" if task in OF_PICTURES else "text"


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
    """Every setting of those that are on, in its order, as given or by default, in plain values.

    Raises ``RecipeError`` for an enrichment that does not exist, or not for rows like these, and
    for a setting that it does not have, one out of its bounds and one that must be set.
    """
    known = all_enrichments()
    for name in enrich:
        if name not in known:
            rule = "names an unknown enrichment"
            raise RecipeError("enrich", rule, name, nearest(name, [*known]))
    found = {}
    for name, given in asked_for(enrich).items():
        if of is not None and known[name].of != of:
            others = [one for one in known if known[one].of == of]
            remedy = f"For these rows there are: {', '.join(sorted(others))}."
            raise RecipeError(f"enrich.{name}", f"is made for {known[name].of}", None, remedy)
        found[name] = _settled(name, known[name].settings, given)
    return found


def _settled(name: str, settings: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    rules = {one.name: one.metadata["rule"] for one in fields(settings)}
    for key in given:
        if key not in rules:
            rule = f"is not a setting of {name}"
            raise RecipeError(f"enrich.{name}.{key}", rule, None, nearest(key, list(rules)))
    found = {}
    for one in fields(settings):
        where, rule = f"enrich.{name}.{one.name}", rules[one.name]
        value = given.get(one.name, one.default)
        if value is MISSING:
            remedy = f"Set {where}: it {rule}."
            raise RecipeError(f"enrich.{name}", f"needs {one.name}", None, remedy)
        if not rule.hold(value):
            raise RecipeError(where, str(rule), value, "Leave it out.")
        found[one.name] = list(value) if isinstance(value, tuple) else value
    return found


def make_all(asked: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The enrichments of settled settings, ready to be applied, in the order of their names."""
    known, made = all_enrichments(), {}
    for name in sorted(asked):
        settings = known[name].settings
        types = {one.name: KINDS[one.metadata["rule"].kind] for one in fields(settings)}
        made[name] = settings(**{key: types[key](value) for key, value in asked[name].items()})
    return made


def names_of(one: object, names: Sequence[str]) -> str:
    """Some settings of an enrichment as one reads them: ``share 0.5, strength 0.1``."""
    return ", ".join(f"{name} {getattr(one, name):g}" for name in names if hasattr(one, name))
