"""A complete recipe: reading, checks, overrides, absolute paths, writing."""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from holdfast.core.discovery import path_exists, suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.packaged_models import PACKAGED_MODELS
from holdfast.core.setting_names import PLAIN_NAMES, plain_key
from holdfast.core.wording import HIDDEN_VALUE
from holdfast.core.yaml_values import MAX_DEPTH, TooMuchError, from_yaml, read_yaml
from holdfast.recipe.parts import (
    AUTO_MODEL,
    AlertPart,
    AuditPart,
    ControlPart,
    CvPart,
    DataPart,
    DistillPart,
    GeneratePart,
    MetaPart,
    ModelPart,
    Part,
    ProbesPart,
    Task,
    TrackPart,
    TrainPart,
    accepted_types,
)
from holdfast.recipe.plain_names import (
    settings_with_stored_keys,
    unknown_key_remedy,
    with_stored_keys,
)
from holdfast.recipe.values import NUMBER, check_free_value

LIST_KEYS = (
    "data.path",
    "data.text",
    "data.split.held",
    "model.adapter.targets",
    "model.candidates",
    "train.added",
    "distill.teacher",
    "probes.tasks",
    "alert.on",
    "track.to",
)
# Types that a method's value may have, as pydantic names them in an error's location.
METHOD_TYPES = ("dict[str,any]", "bool")
# Without more text, YAML reads each as the beginning of an empty block of text.
YAML_BLOCK_MARKS = ("|", ">")
# Sections whose keys are names in a registry, each with its own settings.
FREE_SECTIONS = ("methods", "enrich", "treat")
# Keys of a search range in place of a value (``search/space_request.py``).
SEARCH_KEYS = {"range", "choices"}
# Suffixes of data files; no name on the hub ends in one.
DATA_FILE_ENDINGS = (
    ".csv",
    ".tsv",
    ".jsonl",
    ".json",
    ".parquet",
    ".conll",
    ".txt",
    ".xlsx",
    ".gz",
)


class Recipe(Part):
    """Every setting of a run."""

    task: Task | None = None
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    data: DataPart = DataPart()
    model: ModelPart = ModelPart()
    train: TrainPart = TrainPart()
    distill: DistillPart = DistillPart()
    generate: GeneratePart = GeneratePart()
    control: ControlPart = ControlPart()
    probes: ProbesPart = ProbesPart()
    audit: AuditPart = AuditPart()
    alert: AlertPart = AlertPart()
    track: TrackPart = TrackPart()
    cv: CvPart = CvPart()
    meta: MetaPart = MetaPart()
    methods: dict[str, dict[str, Any] | bool] = Field(default_factory=dict)
    enrich: dict[str, dict[str, Any] | bool | str] = Field(default_factory=dict)
    treat: dict[str, dict[str, Any] | bool] = Field(default_factory=dict)

    @field_validator("methods", "enrich", "treat", mode="before")
    @classmethod
    def _plain_values(cls, value: object) -> object:
        check_free_value(value)
        return value

    def to_yaml(self) -> str:
        """Every setting as YAML; reading it gives this recipe again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def public_settings(self) -> dict[str, Any]:
        """Every setting as plain values, for what leaves the machine (report, result, trackers).

        The user's alert command may hold secrets, so only the fact that it is set is kept.
        """
        plain = self.model_dump(mode="json")
        if plain["alert"]["command"] is not None:
            plain["alert"]["command"] = HIDDEN_VALUE
        return plain

    def with_changes(self, **parts: Mapping[str, object]) -> Recipe:
        """A copy with some keys of some sections replaced, checked again."""
        plain = self.model_dump()
        for part, values in parts.items():
            plain[part] = {**plain[part], **values}
        return parse(plain, "recipe")


def parse(plain: object, where: str) -> Recipe:
    """A recipe from plain values; ``where`` is named in an error. Each key may have its plain
    name (``plain_names.py``)."""
    if not isinstance(plain, dict):
        raise RecipeError(where, "is not a table of settings", plain, "Write `key: value` lines.")
    return _validated(*with_stored_keys(plain, where), where)


def _validated(plain: Mapping[Any, Any], by_plain_name: Iterable[str], where: str) -> Recipe:
    """A recipe from values under their stored keys. An error names each key of ``by_plain_name``
    as the user wrote it."""
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        raise _first_error(error, where, by_plain_name) from None


def read_recipe(path: Path) -> Recipe:
    """Read a YAML recipe; relative paths in it are relative to its folder."""
    plain = read_yaml(path)
    return resolve_paths(
        # A link to a recipe is followed: its paths are relative to the folder of the real file.
        parse(plain if plain is not None else {}, str(path)),
        Path(os.path.realpath(path)).parent,
    )


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Apply ``section.key=value`` strings; relative paths stay as typed. Later strings win.

    Values are read as YAML, but a key that takes text keeps the text that was typed: a column
    ``2024``, a commit ``1234e56``, a template ``summarize: {dialogue}``.
    """
    plain = recipe.model_dump()
    renamed, by_plain_name = settings_with_stored_keys(settings)
    for setting in renamed:
        name, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError("--set", "needs KEY=VALUE", setting, "E.g. --set train.epochs=5.")
        key = name.strip()
        _assign(
            plain,
            key,
            _parse_text_value(text, key) if is_text_key(key) else _parse_value(text, key),
        )
    return _validated(plain, by_plain_name, "--set")


def as_settings(settings: Mapping[str, object] | Iterable[str]) -> list[str]:
    """A mapping from keys to values as ``section.key=value`` strings; such strings stay as they
    are. A section of a recipe may hold its keys: ``{"train": {"epochs": 5}}``.

    Raises ``RecipeError`` for a single string, whose characters would be read as settings.
    """
    if isinstance(settings, str):
        remedy = "Give a dict, {'train.epochs': 5}, or a list, ['train.epochs=5']."
        raise RecipeError("settings", "is one string", settings, remedy)
    if not isinstance(settings, (Mapping, Iterable)):
        raise RecipeError(
            "settings", "is neither a dict nor a list", settings, "Give {'train.epochs': 5}."
        )
    if not isinstance(settings, Mapping):
        return [_require_text(one) for one in settings]
    flat = _with_dotted_keys(settings, "", key_names())
    return [f"{key}={_setting_yaml(key, value)}" for key, value in flat]


def _with_dotted_keys(
    section: Mapping[Any, object], prefix: str, known: Sequence[str]
) -> Iterator[tuple[str, object]]:
    two_names = {*PLAIN_NAMES, *PLAIN_NAMES.values()}
    for name, value in section.items():
        key = f"{prefix}{name}"
        is_section = key in FREE_SECTIONS or any(one.startswith(f"{key}.") for one in known)
        # A section with two names is a value, so that both with different values are refused.
        if isinstance(value, Mapping) and is_section and key not in two_names:
            yield from _with_dotted_keys(value, f"{key}.", known)
        else:
            yield key, value


def _require_text(setting: object) -> str:
    if isinstance(setting, str):
        return setting
    raise RecipeError(
        "settings", "holds an item that is not text", setting, "Give ['train.epochs=5'], or a dict."
    )


def _setting_yaml(key: str, value: object) -> str:
    """A value on one line that YAML reads back."""
    plain = _python_value(key, value)
    if isinstance(plain, float) and not math.isfinite(plain):
        # YAML writes ``.inf``, ``-.inf`` and ``.nan``; JSON has none of them.
        return f".{plain}".replace(".-", "-.")
    try:
        return json.dumps(plain, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unsupported_value(key, value) from error


def _python_value(key: str, value: object) -> Any:
    """NumPy numbers and arrays as Python values, a path as its name."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    if value is not None and not isinstance(value, (bool, int, float, str, list, tuple, dict)):
        raise _unsupported_value(key, value)
    return value


def _unsupported_value(key: str, value: object) -> RecipeError:
    return RecipeError(
        f"settings: {key}",
        f"is of type {type(value).__name__}, which a recipe cannot hold",
        value,
        "Give a number, text, true or false, or a list or dict of these.",
    )


@functools.cache
def _all_keys() -> tuple[str, ...]:
    return tuple(known_keys(optional=True))


@functools.cache
def key_names() -> tuple[str, ...]:
    """Every dotted key that a recipe may hold, and the plain names of those that have one."""
    return (*_all_keys(), *PLAIN_NAMES.values())


def known_keys(
    part: type[BaseModel] = Recipe, prefix: str = "", *, optional: bool = False
) -> list[str]:
    """Every dotted key that a recipe may hold. With ``optional``, also the keys inside sections
    that a recipe may leave out."""
    keys: list[str] = []
    for name, field in part.model_fields.items():
        section = _section(field.annotation)
        is_optional = section is not None and section is not field.annotation
        if section is None or is_optional:
            keys.append(prefix + name)
        if section is not None and (optional or not is_optional):
            keys += known_keys(section, f"{prefix}{name}.", optional=optional)
    return keys


def _section(annotation: object) -> type[BaseModel] | None:
    """The section class of a field's annotation, alone or with ``None``; else ``None``."""
    types = [
        annotation_type
        for annotation_type in get_args(annotation) or (annotation,)
        if annotation_type is not type(None)
    ]
    sections = [k for k in types if isinstance(k, type) and issubclass(k, BaseModel)]
    return sections[0] if len(sections) == len(types) == 1 else None


def is_text_key(key: str) -> bool:
    """Whether this key of a recipe takes only text or a list of texts."""
    return key in _text_keys()


@functools.cache
def _text_keys() -> frozenset[str]:
    def walk(part: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in part.model_fields.items():
            if (section := _section(field.annotation)) is not None:
                yield from walk(section, f"{prefix}{name}.")
            elif accepted_types(part, name) == {str}:
                yield prefix + name

    return frozenset(walk(Recipe, ""))


def _parse_text_value(text: str, key: str) -> Any:
    """The typed text without its quotes. ``null``, and a list where the key takes several values,
    are read as YAML."""
    value = _parse_value(text, key)
    if text.strip() in YAML_BLOCK_MARKS:
        return text.strip()
    if value is None or isinstance(value, str):
        return value
    return value if isinstance(value, list) and key in LIST_KEYS else text


def _parse_value(text: str, key: str) -> Any:
    try:
        value = from_yaml(text)
    except TooMuchError as error:
        raise RecipeError(f"--set {key}", str(error), text, "Put it into a recipe file.") from None
    except yaml.YAMLError:
        return text
    # In YAML, ` #` begins a comment. Typed without quotes, it is a part of the text.
    is_quoted = text.lstrip()[:1] in ("'", '"', *YAML_BLOCK_MARKS)
    if "#" in text and not is_quoted and (value is None or isinstance(value, str)):
        value = text.strip()
    # YAML 1.1 reads `1e-4` as text. For keys of free sections, no later check makes it a number.
    is_untyped = isinstance(value, str) and not (key in _all_keys() or is_text_key(key))
    return float(value) if is_untyped and NUMBER.fullmatch(value) else value


def _assign(plain: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    is_free = key.partition(".")[0] in FREE_SECTIONS
    if not is_free and key not in _all_keys():
        raise RecipeError(
            "--set", "names an unknown key", key, unknown_key_remedy(key, key_names())
        )
    if len(path) > MAX_DEPTH:
        rule = f"names a key with more than {MAX_DEPTH} parts"
        raise RecipeError("--set", rule, key, "A setting of a method has three: methods.NAME.KEY.")
    for step in path:
        section = plain.get(step)
        plain[step] = section if isinstance(section, dict) else {}
        plain = plain[step]
    plain[last] = value


def resolve_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with relative paths made absolute from ``folder``.

    A value is a path if something exists there, or if it can only be meant as a path (``./…``,
    ``../…``, or the suffix of a data file). Errors then name the place that was searched.
    """

    def anchor(value: str | None) -> str | None:
        if value is None or value in (AUTO_MODEL, *PACKAGED_MODELS) or value.startswith("~"):
            return value
        # Neither call raises for any name: too long, with a NUL, a link to itself.
        if path_exists(folder / value) or _is_path(value):
            return os.path.realpath(folder / value)
        return value

    files = ("path", "valid", "test", "descriptions", "unlabelled", "general")
    data: dict[str, Any] = {key: anchor(getattr(recipe.data, key)) for key in files}
    if synthesize := recipe.data.synthesize:
        synthesize_paths = {
            "templates": anchor(synthesize.templates),
            "model": anchor(synthesize.model),
        }
        data["synthesize"] = {**synthesize.model_dump(), **synthesize_paths}
    if recipe.data.mix:
        data["mix"] = [{**one.model_dump(), "path": anchor(one.path)} for one in recipe.data.mix]
    forgetting = recipe.probes.forgetting
    forgetting_settings = {**forgetting.model_dump(), "data": anchor(forgetting.data)}
    fairness = recipe.probes.fairness
    fairness_settings = {**fairness.model_dump(), "terms": anchor(fairness.terms)}
    metric_setting = _resolve_code_path(recipe.train.metric, anchor)
    enrich = {name: _resolve_code_path(given, anchor) for name, given in recipe.enrich.items()}
    return recipe.with_changes(
        data=data,
        model={
            "name": anchor(recipe.model.name),
            "candidates": [anchor(one) for one in recipe.model.candidates or ()] or None,
        },
        train={"metric": metric_setting},
        distill={"teacher": [anchor(one) for one in recipe.distill.teacher or ()] or None},
        probes={
            "forgetting": forgetting_settings,
            "fairness": fairness_settings,
            "judge": anchor(recipe.probes.judge),
            "classifier": anchor(recipe.probes.classifier),
            "tasks": [anchor(one) for one in recipe.probes.tasks],
        },
        enrich=enrich,
        control={"policy": _resolve_code_path(recipe.control.policy, anchor)},
    )


def _resolve_code_path(setting: object, anchor: Callable[[str], str | None]) -> Any:
    """A setting with the path of a user's function or lexicon made absolute."""
    if isinstance(setting, dict) and isinstance(setting.get("terms"), str):
        return {**setting, "terms": anchor(setting["terms"])}
    if isinstance(setting, dict) and isinstance(setting.get("function"), str):
        return {**setting, "function": _resolve_code_path(setting["function"], anchor)}
    if not isinstance(setting, str) or ".py:" not in setting:
        return setting
    path, _, function = setting.rpartition(".py:")
    return f"{str(anchor(path + '.py')).removesuffix('.py')}.py:{function}"


def _is_path(value: str) -> bool:
    """Whether this can only be a path, not a name on the hub."""
    return value.startswith(("./", "../")) or value.lower().endswith(DATA_FILE_ENDINGS)


def _first_error(
    error: ValidationError, where: str, by_plain_name: Iterable[str] = ()
) -> RecipeError:
    fault = error.errors()[0]
    key = ".".join(str(step) for step in fault["loc"] if step not in METHOD_TYPES)
    key = plain_key(key, by_plain_name)
    if fault["loc"][-1:] and fault["loc"][-1] in METHOD_TYPES:
        rule = "is neither true nor false nor a table of settings"
        remedy = f"Set {key}=true, or one of its settings."
        return RecipeError(f"{where}: {key}", rule, fault.get("input"), remedy)
    if fault["type"] == "extra_forbidden" and key == "search":
        rule = "configures a hyperparameter search"
        remedy = "Run `holdfast tune` with this recipe, or remove this section."
        return RecipeError(f"{where}: {key}", rule, None, remedy)
    if fault["type"] == "extra_forbidden":
        known_names = key_names() if "." in key else sorted({*Recipe.model_fields, *key_names()})
        return RecipeError(where, "names an unknown key", key, unknown_key_remedy(key, known_names))
    if fault["type"] == "literal_error":
        # pydantic gives the choices as one sentence.
        choices = re.findall(r"'([^']*)'", fault.get("ctx", {}).get("expected", ""))
        value_given, rule = fault["input"], "is not one of the known values"
        return RecipeError(
            f"{where}: {key}", rule, value_given, suggest_name(str(value_given), choices)
        )
    if isinstance(fault.get("input"), dict) and fault["input"].keys() & SEARCH_KEYS:
        rule = "holds several values to search"
        remedy = f"Run `holdfast tune` to search {key}, or set one value."
        return RecipeError(f"{where}: {key}", rule, fault["input"], remedy)
    # pydantic puts this before a validator's own sentence.
    message = fault["msg"].removeprefix("Value error, ")
    value = None if fault["type"] == "missing" else fault.get("input")
    rule = message[0].lower() + message[1:]
    remedy = (
        f"Set {key} within that range."
        if "less than" in rule or ("greater than" in rule)
        else f"Change {key}, or remove it to use its default."
    )
    return RecipeError(f"{where}: {key}", rule.removeprefix("input "), value, remedy)
