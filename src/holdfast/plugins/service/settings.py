"""``Serving``: the settings of ``holdfast serve --set serve.KEY=VALUE`` and their ranges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.yaml_values import TooMuchError, from_yaml
from holdfast.recipe.parts import Part

PREFIX = "serve."
MB = 1_000_000
DAY_S = 86_400.0

_tupled = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)


class AbPart(Part):
    """The settings of an A/B test: the challenger's share of users, how long each user is observed,
    the range that a user's value is clipped to, and the salt of the hash; see ``docs/live.md``."""

    share: float = Field(default=0.5, gt=0, lt=1)
    window_s: float = Field(default=86_400, gt=0, le=31_622_400)
    least: float = 0
    most: float | None = None
    salt: str = Field(default="", max_length=64)

    @model_validator(mode="after")
    def _has_a_range(self) -> AbPart:
        if self.most is not None and self.most <= self.least:
            raise ValueError("most must be above least")
        return self


class Serving(Part):
    """The settings of the service other than its options; ``docs/serve.md`` explains each.

    Sizes are in megabytes (10⁶ bytes), times in seconds unless their name says days.
    """

    log_texts: bool = False
    mask: bool = True
    keep_labelled: bool = True
    retention_days: float = Field(default=30, gt=0, le=36_500)
    new_classes: bool = False
    max_body_mb: float = Field(default=16, ge=0.01, le=1_000)
    max_bodies_mb: float = Field(default=256, ge=0.01, le=1_000_000)
    max_rows: int = Field(default=10_000, ge=1, le=1_000_000)
    max_characters: int = Field(default=200_000, ge=1, le=100_000_000)
    max_connections: int = Field(default=512, ge=1, le=60_000)
    timeout_s: float = Field(default=30, gt=0, le=3_600)
    read_s: float = Field(default=10, gt=0, le=600)
    idle_s: float = Field(default=65, gt=0, le=3_600)
    drain_s: float = Field(default=0, ge=0, le=600)
    max_explained: int = Field(default=8, ge=1, le=1_000)
    max_remembered: int = Field(default=10_000, ge=1, le=10_000_000)
    chat_together: int = Field(default=8, ge=1, le=256)
    chat_waiting: int = Field(default=32, ge=1, le=10_000)
    chat_timeout_s: float = Field(default=120, gt=0, le=36_000)
    hosts: Annotated[tuple[str, ...], _tupled] = ()
    access_log: bool = False
    compare: Literal["shadow", "ab"] = "shadow"
    margin: float = Field(default=1, gt=0, lt=100)
    budget: int | None = Field(default=None, ge=1)
    lag_s: float = Field(default=30, ge=0, le=3_600)
    ab: AbPart = AbPart()
    drift: bool = True
    between_alarms: int = Field(default=100_000, ge=100, le=1_000_000_000)

    @property
    def body_bytes(self) -> int:
        """The maximum size of a request body."""
        return int(self.max_body_mb * MB)

    def expiry(self, at: float) -> float:
        """When a text that was kept at ``at`` expires."""
        return at + self.retention_days * DAY_S


def serving(settings: Iterable[str] = ()) -> Serving:
    """The settings from ``serve.KEY=VALUE`` texts; a later one overrides. Raises ``RecipeError``
    for an unknown key, naming the nearest, or a value out of range."""
    known_keys = known_settings()
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        key = name.strip()
        if not equals:
            raise RecipeError(
                "--set", "needs KEY=VALUE", setting, f"E.g. --set {known_keys[0]}=true."
            )
        if key not in known_keys:
            raise RecipeError("--set", "names an unknown key", key, suggest_name(key, known_keys))
        *parts, leaf = key.removeprefix(PREFIX).split(".")
        section = values
        for part in parts:
            section = section.setdefault(part, {})
        section[leaf] = _value(key, text)
    try:
        return Serving.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        key = PREFIX + ".".join(str(step) for step in fault["loc"])
        rule = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        remedy = "Change it, or remove it to use its default."
        raise RecipeError(
            f"--set {key}", rule[0].lower() + rule[1:], fault.get("input"), remedy
        ) from None


def known_settings() -> list[str]:
    """Every key, as users type it."""
    return [PREFIX + name for name in _names(Serving)]


def _names(part: type[Part]) -> list[str]:
    """The keys of a part; those of nested parts follow a dot."""
    names = []
    for name, field in part.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Part):
            names += [f"{name}.{one}" for one in _names(annotation)]
        else:
            names.append(name)
    return names


def _value(key: str, text: str) -> Any:
    try:
        return from_yaml(text)
    except TooMuchError as error:
        raise RecipeError(f"--set {key}", str(error), text, "Shorten the value.") from None
    except yaml.YAMLError:
        return text
