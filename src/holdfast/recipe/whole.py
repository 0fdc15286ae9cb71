"""A whole recipe: read, checked, overridden, anchored, written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from holdfast.core.discovery import nearest
from holdfast.core.errors import RecipeError
from holdfast.core.missing import missing_remedy
from holdfast.recipe.parts import (
    EMBEDDED,
    AlertPart,
    ControlPart,
    DataPart,
    GeneratePart,
    ModelPart,
    Part,
    Task,
    TrackPart,
    TrainPart,
)

# Of files of rows: no name on the hub ends so.
ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".gz")


class Recipe(Part):
    """Every setting of a run."""

    task: Task | None = None
    seed: int = Field(default=0, ge=0)
    data: DataPart = DataPart()
    model: ModelPart = ModelPart()
    train: TrainPart = TrainPart()
    generate: GeneratePart = GeneratePart()
    control: ControlPart = ControlPart()
    alert: AlertPart = AlertPart()
    track: TrackPart = TrackPart()
    methods: dict[str, dict[str, Any] | bool] = Field(default_factory=dict)
    enrich: dict[str, dict[str, Any] | bool] = Field(default_factory=dict)

    @field_validator("enrich")
    @classmethod
    def _nothing_enriches_yet(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value:
            raise ValueError(f"no enrichment called {next(iter(value))!r} exists yet: leave it out")
        return value

    def to_yaml(self) -> str:
        plain = self.model_dump(mode="json")
        plain["control"]["policy"] = str(plain["control"]["policy"])
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)

    def changed(self, **parts: Mapping[str, Any]) -> Recipe:
        """A copy with some keys of some parts replaced, checked again."""
        plain = self.model_dump()
        for part, values in parts.items():
            plain[part] = {**plain[part], **values}
        return parse(plain, "recipe")


def parse(plain: Any, where: str) -> Recipe:
    """A recipe from plain values; ``where`` is named in an error."""
    if not isinstance(plain, dict):
        raise RecipeError(where, "is not a table of settings", plain, "Write `key: value` lines.")
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        raise _first_fault(error, where) from None


def read_recipe(path: Path) -> Recipe:
    """Read a YAML recipe; relative paths in it are relative to its folder."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(str(path), "does not exist", None, missing_remedy(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), "cannot be read", str(error), "Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise RecipeError(str(path), "is not valid YAML", str(error), "Mend that line.") from None
    return anchored(parse(plain if plain is not None else {}, str(path)), path.resolve().parent)


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Apply ``section.key=value`` strings, values read as YAML; relative paths stay as typed."""
    plain = recipe.model_dump()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError("--set", "needs KEY=VALUE", setting, "E.g. --set train.epochs=5.")
        value = _value(text)
        # YAML reads `summarize: {dialogue}` as a table, and so a template that begins like that.
        template = key.strip() == "data.template" and isinstance(value, dict)
        _assign(plain, key.strip(), text if template else value)
    return parse(plain, "--set")


def as_settings(settings: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Keys to values as ``section.key=value`` strings; such strings stay as they are.

    Raises ``RecipeError`` for one string alone, whose letters would be taken for settings.
    """
    if isinstance(settings, str):
        raise RecipeError(
            "settings", "is one string", settings,
            "Give a dict, {'train.epochs': 5}, or a list, ['train.epochs=5'].",
        )  # fmt: skip
    if not isinstance(settings, Mapping):
        return list(settings)
    return [f"{key}={_written(value)}" for key, value in settings.items()]


def _written(value: Any) -> str:
    """A value as YAML reads it back, on one line."""
    if hasattr(value, "item"):
        value = value.item()
    return json.dumps(value, ensure_ascii=False, default=str)


def known_keys(part: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key that a recipe may hold."""
    keys: list[str] = []
    for name, field in part.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += known_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    # YAML 1.1 reads `1e-4` as a string for want of a dot.
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() and value[0] in "0123456789.+-" else value
        except ValueError:
            return value
    return value


def _assign(plain: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    free = path[:1] in (["methods"], ["enrich"]) or key in ("methods", "enrich")
    if not free and key not in known_keys():
        raise RecipeError("--set", "names an unknown key", key, nearest(key, known_keys()))
    for step in path:
        inner = plain.get(step)
        plain[step] = inner if isinstance(inner, dict) else {}
        plain = plain[step]
    plain[last] = value


def anchored(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every relative path made absolute from ``folder``: what leads somewhere, and
    what can only be meant as a path (``./…``, ``../…``, or the ending of a file of rows), so that
    an error names the place that was looked at."""

    def anchor(value: str | None) -> str | None:
        if value is None or value == EMBEDDED or value.startswith("~"):
            return value
        if (folder / value).exists() or _is_path(value):
            return str((folder / value).resolve())
        return value

    data = {key: anchor(getattr(recipe.data, key)) for key in ("path", "valid", "test")}
    metric = recipe.train.metric
    if metric and ".py:" in metric:
        path, _, function = metric.rpartition(".py:")
        metric = f"{str(anchor(path + '.py')).removesuffix('.py')}.py:{function}"
    return recipe.changed(
        data=data, model={"name": anchor(recipe.model.name)}, train={"metric": metric}
    )


def _is_path(value: str) -> bool:
    """Whether this is meant as a path, not as a name of the hub."""
    return value.startswith(("./", "../")) or value.lower().endswith(ENDINGS)


def _first_fault(error: ValidationError, where: str) -> RecipeError:
    fault = error.errors()[0]
    key = ".".join(str(step) for step in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = sorted({*Recipe.model_fields, *known_keys()}) if "." not in key else known_keys()
        return RecipeError(where, "names an unknown key", key, nearest(key, known))
    if fault["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", fault.get("ctx", {}).get("expected", ""))
        given, rule = fault["input"], "is not one of the known values"
        return RecipeError(f"{where}: {key}", rule, given, nearest(str(given), choices))
    message = fault["msg"].removeprefix("Value error, ")
    value = None if fault["type"] == "missing" else fault.get("input")
    return RecipeError(
        f"{where}: {key}", message[0].lower() + message[1:], value, "See docs/recipe.md."
    )
