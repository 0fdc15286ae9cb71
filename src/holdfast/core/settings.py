"""Settings: the fields of a registered dataclass (a method, an augmentation), each with the values
that it allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypedDict, TypeVar, Unpack

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError

S = TypeVar("S")
MOST = 1_000_000
# The kinds of settings, and the types of their defaults.
KINDS: Mapping[str, type[Any]] = {
    "number": float,
    "whole": int,
    "words": str,
    "several": tuple,
    "truth": bool,
}


@dataclass(frozen=True, slots=True)
class SettingRule:
    """The allowed values of a setting: a ``number`` or an integer (``whole``) above ``above`` (or,
    if that is ``None``, at least ``least``) and at most ``most``; one text (``words``, one of
    ``choices`` if given), or with ``or_number`` such a number, or with ``shares`` a number above 0
    for each class; ``several`` texts; or true or false (``truth``)."""

    kind: str
    above: float | None = None
    least: float = 0
    most: float = MOST
    choices: tuple[str, ...] = ()
    or_number: bool = False
    shares: bool = False

    def __str__(self) -> str:
        if self.kind == "truth":
            return "must be true or false"
        if self.kind == "several":
            return "must be a list of texts"
        low = f"above {self.above:g}" if self.above is not None else f"at least {self.least:g}"
        number = "a whole number" if self.kind == "whole" else "a number"
        within = f"{number} {low} and at most {self.most:,g}"
        if self.kind != "words":
            return f"must be {within}"
        one_of = "one of " if len(self.choices) > 1 else ""
        words = f"must be {one_of}{', '.join(self.choices)}" if self.choices else "must be a text"
        table = ", or a number above 0 for each class" if self.shares else ""
        return f"{words}{table}{f', or {within}' if self.or_number else ''}"

    def hold(self, value: Any) -> bool:
        """Whether ``value`` is allowed; true and false are not numbers."""
        if self.kind == "truth":
            return isinstance(value, bool)
        if self.kind == "several":
            listed = isinstance(value, (list, tuple))
            return listed and all(isinstance(one, str) and one.strip() for one in value)
        if self.shares and isinstance(value, Mapping):
            share = SettingRule("number", above=0)
            return bool(value) and all(map(share.hold, value.values()))
        if self.kind == "words" and (isinstance(value, str) or not self.or_number):
            known = not self.choices or value in self.choices
            return isinstance(value, str) and bool(value.strip()) and known
        if type(value) not in (int, float):
            return False
        low = value > self.above if self.above is not None else value >= self.least
        return low and value <= self.most and (self.kind != "whole" or float(value).is_integer())


class RuleFields(TypedDict, total=False):
    """The fields of ``SettingRule`` that a setting states."""

    above: float
    least: float
    most: float
    choices: tuple[str, ...]
    or_number: bool
    shares: bool


def setting(default: Any = MISSING, *, whole: bool = False, **bounds: Unpack[RuleFields]) -> Any:
    """A field of settings, of the kind of its ``default``: a number (float), an integer, a text, a
    list of texts (tuple), or true or false. ``None``: a number (with ``whole`` an integer) that is
    computed from the run. A field without a default is a text that must be set."""
    value_type = str if default is MISSING else type(default)
    if default is None:
        value_type = int if whole else float
    kind = next(name for name, one in KINDS.items() if one is value_type)
    return field(default=default, metadata={"rule": SettingRule(kind, **bounds)})


def checked_settings(
    where: str, settings: type[Any], given: Mapping[str, Any], computed: Mapping[str, Any]
) -> dict[str, Any]:
    """Every setting of the dataclass ``settings``, in order, as plain values: as ``given``,
    else ``computed``, else by default (``None`` for one that the run has yet to compute).

    Raises ``RecipeError`` for a setting that is unknown, out of bounds or missing.
    """
    rules = {one.name: one.metadata["rule"] for one in fields(settings)}
    for key in given:
        if key not in rules:
            rule = f"is not a setting of {where.rpartition('.')[2]}"
            remedy = suggest_name(key, list(rules)) if rules else "It has none: set it to true."
            raise RecipeError(f"{where}.{key}", rule, None, remedy)
    found = {}
    for one in fields(settings):
        rule = rules[one.name]
        value = given.get(one.name, computed.get(one.name, one.default))
        if value is MISSING:
            remedy = f"Set {where}.{one.name}: it {rule}."
            raise RecipeError(where, f"needs {one.name}", None, remedy)
        is_open = value is None and one.name not in given
        if not is_open and not rule.hold(value):
            remedy = f"Set {where}.{one.name}."
            if one.name in given and one.default is not MISSING:
                remedy = "Remove it to use the default."
            raise RecipeError(f"{where}.{one.name}", str(rule), value, remedy)
        found[one.name] = list(value) if isinstance(value, tuple) else value
    return found


def make_settings(settings: type[S], values: Mapping[str, Any]) -> S:
    """The dataclass ``settings`` with these complete ``values``."""
    types = {
        one.name: KINDS[one.metadata["rule"].kind]
        for one in fields(settings)  # type: ignore[arg-type]
        if one.metadata["rule"].kind != "words"
    }
    return settings(**{key: types.get(key, lambda x: x)(one) for key, one in values.items()})
