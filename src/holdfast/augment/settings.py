"""What a setting of an enrichment may be, and how a recipe's are held to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from holdfast.core.discovery import nearest
from holdfast.core.errors import RecipeError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MOST = 1_000_000


class NumberBounds(TypedDict, total=False):
    """The bounds of a ``SettingRule`` for numbers."""

    least: float
    above: float | None
    most: float


@dataclass(frozen=True, slots=True)
class SettingRule:
    """What the values of a setting may be: a ``number`` or a ``whole`` one above ``above`` (where
    that is ``None`` at least ``least``) and at most ``most``; one text (``words``, of ``choices``
    where there are some); ``several`` texts; or a ``truth``."""

    kind: Literal["number", "whole", "words", "several", "truth"]
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

    def hold(self, value: object) -> bool:
        """Whether ``value`` is within it; true and false are no numbers."""
        if self.kind == "truth":
            return isinstance(value, bool)
        if self.kind == "words":
            known = not self.choices or value in self.choices
            return isinstance(value, str) and bool(value.strip()) and known
        if self.kind == "several":
            listed = isinstance(value, (list, tuple))
            return listed and all(isinstance(v, str) and v.strip() for v in value)  # type: ignore[attr-defined]
        if type(value) not in (int, float):
            return False
        number = float(value)  # type: ignore[arg-type]
        low = number > self.above if self.above is not None else number >= self.least
        return low and number <= self.most and (self.kind == "number" or number.is_integer())

    def plain(self, value: Any) -> Any:
        """The value as its dataclass holds it."""
        if self.kind == "several":
            return tuple(value)
        return {"whole": int, "number": float}.get(self.kind, lambda same: same)(value)


def number(default: float, **bounds: Unpack[NumberBounds]) -> Any:
    """A field that holds a number."""
    return field(default=float(default), metadata={"rule": SettingRule("number", **bounds)})


def whole(default: int, **bounds: Unpack[NumberBounds]) -> Any:
    """A field that holds a whole number."""
    return field(default=default, metadata={"rule": SettingRule("whole", **bounds)})


def words(default: str | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A field that holds a text; one without a default must be set."""
    held = MISSING if default is None else default
    return field(default=held, metadata={"rule": SettingRule("words", choices=choices)})


def several() -> Any:
    """A field that holds a list of texts, none by default."""
    return field(default=(), metadata={"rule": SettingRule("several")})


def truth(default: bool) -> Any:
    """A field that holds true or false."""
    return field(default=default, metadata={"rule": SettingRule("truth")})


def settled(
    where: str, settings: type[DataclassInstance], given: Mapping[str, object]
) -> dict[str, Any]:
    """Every setting in its order, as given or by default, in plain values. Raises ``RecipeError``
    for one that ``settings`` does not have, one out of its bounds and one that must be set."""
    rules = {one.name: one.metadata["rule"] for one in fields(settings)}
    for key in given:
        if key not in rules:
            rule = f"is not a setting of {where.rpartition('.')[2]}"
            raise RecipeError(f"{where}.{key}", rule, None, nearest(key, list(rules)))
    found = {}
    for one in fields(settings):
        if one.name not in given and one.default is MISSING:
            raise RecipeError(
                where, f"needs {one.name}", None, f"Set {where}.{one.name}: it {rules[one.name]}."
            )
        value = given.get(one.name, one.default)
        if not rules[one.name].hold(value):
            raise RecipeError(f"{where}.{one.name}", str(rules[one.name]), value, "Leave it out.")
        found[one.name] = list(value) if isinstance(value, tuple) else value
    return found


def made(settings: type[Any], plain: Mapping[str, object]) -> Any:
    """The dataclass of settled values."""
    rules = {one.name: one.metadata["rule"] for one in fields(settings)}
    return settings(**{key: rules[key].plain(value) for key, value in plain.items()})


def names_of(one: object, names: Sequence[str]) -> str:
    """Some settings of an enrichment as one reads them: ``share 0.5, strength 0.1``."""
    return ", ".join(f"{name} {getattr(one, name):g}" for name in names if hasattr(one, name))
