"""The search space as the user writes it: ``{range: [1e-5, 5e-4], log: true}``, ``{range: [1, 8],
step: 1}`` or ``{choices: [linear, cosine]}`` in place of a value, in a recipe or with ``--set``.
The ranges are removed before the recipe is read, which accepts only values."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from holdfast.augment.registry import check_enrich
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.wording import count_phrase
from holdfast.core.yaml_values import from_yaml, read_yaml
from holdfast.methods.optimizers import OPTIMIZERS, SCHEDULES
from holdfast.methods.registry import check_methods
from holdfast.models.adapters.adapter import LOW_RANK
from holdfast.recipe import Recipe, as_settings, key_names, known_keys, override
from holdfast.recipe.plain_names import settings_with_stored_keys, with_stored_keys
from holdfast.recipe.recipe import parse, resolve_paths
from holdfast.recipe.values import NUMBER
from holdfast.search.space import (
    Dimension,
    SettingCondition,
    Space,
    canonical_text,
    dependencies_first,
    format_value,
    same_value,
)

RANGE_KEYS = ("range", "choices", "log", "step")
MOST_CHOICES = 1000
SECTION = "search"
EXAMPLES = "{range: [1e-5, 5e-4], log: true}, {range: [1, 8], step: 1} or {choices: [a, b]}"
_ROWS = (
    "changes the training or validation rows, so its trials cannot be compared",
    "Train a run for each value, then run `holdfast compare`.",
)
_MEASURE = ("changes how a trial is scored, but trials must share one score", "Set one value.")
_MACHINE = ("changes how fast a trial runs, not what it learns", "Set one value, or remove it.")
_NOT_TRAINING = ("does not change the training", "Set one value.")
# By the beginning of a key: why it is not searched, and what to do.
NOT_SEARCHABLE: Mapping[str, tuple[str, str]] = {
    "data.": _ROWS,
    "treat": _ROWS,
    "seed": (
        "is not a hyperparameter: the best of several seeds is chance",
        "`holdfast cv --repeats` shows how much the score varies by chance.",
    ),
    "task": ("is not a hyperparameter", "Set one task."),
    "model.name": (
        "is the model, which another command chooses",
        "`holdfast choose SOURCE --models A,B` compares models.",
    ),
    "model.revision": ("is the model", "`holdfast choose SOURCE --models A,B` compares models."),
    "model.trust_remote_code": ("is a security setting", "Set one value."),
    # Targets that are cut are scored on other tokens, and Huber's loss is another number.
    "model.max_target_length": _MEASURE,
    "train.huber": _MEASURE,
    "methods.balance.target": (
        "moves the predictions after training, and trials are scored before that",
        "Set one value, or auto.",
    ),
    "train.metric": _MEASURE,
    "train.keep": _MEASURE,
    "train.folds": _MEASURE,
    "train.evaluations": _MEASURE,
    "train.max_minutes": _MEASURE,
    "train.threads": _MACHINE,
    "train.precision": _MACHINE,
    "train.matmul": _MACHINE,
    "train.cache_frozen": _MACHINE,
    "train.checkpoint_activations": _MACHINE,
    "generate.": _NOT_TRAINING,
    "control.": _MEASURE,
    "probes.": _NOT_TRAINING,
    "audit.": _NOT_TRAINING,
    "alert.": _NOT_TRAINING,
    "track.": _NOT_TRAINING,
}
OPEN_SECTIONS = ("methods", "enrich")
ADAPTER_KIND = "model.adapter.kind"
# Keys whose values are names of a registry.
REGISTRY_KEYS: Mapping[str, Mapping[str, Any]] = {
    "train.optimizer": OPTIMIZERS,
    "train.schedule": SCHEDULES,
}
# What a kind of adapter has of its own.
ADAPTER_KEYS = {
    "model.adapter.rank": (*LOW_RANK, "prompt"),
    "model.adapter.alpha": LOW_RANK,
    "model.adapter.dropout": LOW_RANK,
    "model.adapter.targets": (*LOW_RANK, "ia3"),
    "model.adapter.rate_ratio": ("lora+",),
}


def read_search_recipe(path: Path) -> tuple[Recipe, dict[str, Any], Any]:
    """The recipe of a file, the ranges in it by their keys, and its section ``search``."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        content = {} if content is None else content
        return parse(content, str(path)), {}, None
    renamed, _ = with_stored_keys(content, str(path))
    rest, ranges = without_ranges(renamed)
    search_section = rest.pop(SECTION, None)
    recipe = resolve_paths(parse(rest, str(path)), Path(os.path.realpath(path)).parent)
    return recipe, ranges, search_section


def without_ranges(
    tree: Mapping[str, object], prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings without ranges and choices, and these by their dotted keys. The section
    ``search`` is left as it is."""
    rest: dict[Any, Any] = {}
    ranges: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if is_range(value) and name != SECTION:
            ranges[name] = value
        elif isinstance(value, dict) and name != SECTION:
            rest[key], inside = without_ranges(value, f"{name}.")
            ranges |= inside
        else:
            rest[key] = value
    return rest, ranges


def is_range(value: object) -> bool:
    """Whether a value is a range or a list of choices."""
    return isinstance(value, dict) and ("range" in value or "choices" in value)


def split_settings(
    settings: Mapping[str, object] | Sequence[str],
) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """``--set`` strings, separated: those of the recipe, the ranges by their keys, and the settings
    of the search (``search.trials=8``; ``search=capacity`` is stored under ``""``)."""
    recipe_settings: list[str] = []
    ranges: dict[str, Any] = {}
    search_settings: dict[str, Any] = {}
    renamed, _ = settings_with_stored_keys(as_settings(settings))
    for setting in renamed:
        name, equals, text = setting.partition("=")
        key = name.strip()
        value: Any = text if equals else None
        with contextlib.suppress(yaml.YAMLError):
            value = from_yaml(text) if equals else None
        if key == SECTION or key.startswith(f"{SECTION}."):
            search_settings[key.removeprefix(SECTION).removeprefix(".")] = value
        elif is_range(value):
            ranges[key] = value
        else:
            recipe_settings.append(setting)
            # A value that is said later wins over a range that was said before.
            ranges.pop(key, None)
    return recipe_settings, ranges, search_settings


def parse_space(ranges: Mapping[str, Any], recipe: Recipe) -> Space:
    """The user's search space, checked against its recipe.

    Raises ``RecipeError`` for a key that does not exist or cannot be searched, for an invalid
    range, and for values that the key cannot take.
    """
    parsed = [_parse_dimension(key, value) for key, value in ranges.items()]
    by_key = {one.key: one for one in parsed}
    dimensions = dependencies_first([_with_condition(one, by_key) for one in parsed])
    for one in dimensions:
        _check_values(one, recipe)
    return Space(dimensions)


def _parse_dimension(key: str, table: Mapping[str, Any]) -> Dimension:
    _check_key(key)
    where = f"search space: {key}"
    for name in table:
        if name not in RANGE_KEYS:
            raise RecipeError(
                where, "has an unknown key", name, suggest_name(str(name), RANGE_KEYS)
            )
    if "choices" in table:
        choices = table["choices"]
        extra = [name for name in table if name != "choices"]
        if extra:
            raise RecipeError(where, f"has both choices and {extra[0]}", None, f"Write {EXAMPLES}.")
        if not isinstance(choices, (list, tuple)) or len(choices) < 2:
            rule = "needs a list of at least two values"
            raise RecipeError(where, rule, choices, f"Write {EXAMPLES}.")
        if len(choices) > MOST_CHOICES:
            rule = f"has {count_phrase(len(choices), 'choice')}, more than {MOST_CHOICES:,}"
            raise RecipeError(where, rule, None, "Give a range instead.")
        if key.partition(".")[0] not in OPEN_SECTIONS:
            choices = [float(one) if _is_number(one) else one for one in choices]
        for index, one in enumerate(choices):
            if any(same_value(one, other) for other in choices[:index]):
                raise RecipeError(where, "repeats a value", one, "Give each value once.")
        return Dimension(key, "choice", choices=tuple(choices))
    return _parse_range(where, key, table)


def _check_key(key: str) -> None:
    for beginning, (rule, remedy) in NOT_SEARCHABLE.items():
        if key == beginning or key.startswith(f"{beginning.removesuffix('.')}."):
            raise RecipeError(f"search space: {key}", rule, None, remedy)
    free = key.partition(".")[0] in OPEN_SECTIONS and "." in key
    known = known_keys()
    if not free and key not in known:
        inside = [one for one in known if one.startswith(f"{key}.")]
        if inside:
            rule = "is a section with several settings"
            raise RecipeError(f"search space: {key}", rule, None, f"Search one: {inside[0]}.")
        remedy = suggest_name(key, key_names())
        raise RecipeError("search space", "names an unknown key", key, remedy)


def _parse_range(where: str, key: str, table: Mapping[str, Any]) -> Dimension:
    bounds = table["range"]
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        raise RecipeError(where, "needs a range of two numbers", bounds, f"Write {EXAMPLES}.")
    low, high = (_bound(where, end) for end in bounds)
    log, step = table.get("log", False), table.get("step")
    if not isinstance(log, bool):
        raise RecipeError(where, "has a log that is neither true nor false", log, "Set log: true.")
    if not low < high:
        rule = "has a range whose upper end is not above its lower end"
        raise RecipeError(where, rule, list(bounds), f"Write {EXAMPLES}.")
    if log and low <= 0:
        rule = "has a logarithmic range that does not begin above 0"
        raise RecipeError(where, rule, low, "Begin above 0, or remove log.")
    if step is not None:
        step = _bound(where, step)
        if log or not 0 < step <= high - low:
            rule = "has both log and step" if log else "has a step that does not fit into the range"
            raise RecipeError(where, rule, step, f"Write {EXAMPLES}.")
    is_integer = all(float(one).is_integer() for one in (low, high, step or 1)) and (
        step is not None or _takes_integer(key)
    )
    if _takes_integer(key) and not is_integer:
        raise RecipeError(where, "takes only whole numbers", list(bounds), f"Write {EXAMPLES}.")
    if is_integer and not log:
        step = step or 1
    return Dimension(key, "whole" if is_integer else "number", low, high, step, log)


def _takes_integer(key: str) -> bool:
    """Whether a key of a recipe takes only whole numbers."""
    from holdfast.recipe.parts import accepted_types

    part: Any = Recipe
    *path, last = key.split(".")
    if path and path[0] in OPEN_SECTIONS:
        from holdfast.methods.registry import all_methods

        known = all_methods()
        if path[0] != "methods" or len(path) != 2 or path[1] not in known:
            return False
        fields = getattr(known[path[1]].settings, "__dataclass_fields__", {})
        return last in fields and fields[last].metadata["rule"].kind == "whole"
    for name in path:
        part = part.model_fields[name].annotation
    return accepted_types(part, last) == {int}


def _is_number(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and NUMBER.fullmatch(value) is not None


def _bound(where: str, value: object) -> float:
    """A number; YAML 1.1 reads ``1e-5`` as text."""
    if _is_number(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RecipeError(where, "needs numbers", value, f"Write {EXAMPLES}.")
    return value


def _with_condition(dimension: Dimension, known: Mapping[str, Dimension]) -> Dimension:
    """With the condition under which it has an effect, if another key of the space decides it."""
    first, _, rest = dimension.key.partition(".")
    owner = f"{first}.{rest.partition('.')[0]}"
    if dimension.key in ADAPTER_KEYS and ADAPTER_KIND in known:
        kinds = tuple(v for v in known[ADAPTER_KIND].choices if v in ADAPTER_KEYS[dimension.key])
        return replace(dimension, when=SettingCondition(ADAPTER_KIND, kinds))
    if first in OPEN_SECTIONS and owner != dimension.key and owner in known:
        values = tuple(value for value in known[owner].choices if value is not False)
        return replace(dimension, when=SettingCondition(owner, values))
    return dimension


def _check_values(dimension: Dimension, recipe: Recipe) -> None:
    """Check both ends, or every choice, against what the key accepts."""
    if dimension.when is not None and not dimension.when.values:
        rule = f"has an effect {dimension.when}, which is never true"
        raise RecipeError(f"search space: {dimension.key}", rule, None, "Remove it.")
    condition = {dimension.when.key: dimension.when.values[0]} if dimension.when is not None else {}
    values: tuple[Any, ...] = dimension.choices
    if dimension.value_type != "choice":
        number = int if dimension.value_type == "whole" else float
        values = (number(dimension.low), number(dimension.high))
    for value in values:
        try:
            changed = override(recipe, as_settings({**condition, dimension.key: value}))
            check_methods(changed.methods)
            check_enrich(changed.enrich)
            if dimension.key in REGISTRY_KEYS:
                REGISTRY_KEYS[dimension.key][str(value)]
        except RecipeError as error:
            shown_value = error.value if not isinstance(error.value, Mapping) else None
            rule_text, remedy = error.rule, error.remedy
            if (
                dimension.key in ADAPTER_KEYS
                and ADAPTER_KIND not in condition
                and recipe.model.adapter.method is None
            ):
                remedy = f"Set {ADAPTER_KIND}=lora, or search it: {{choices: [none, lora]}}."
            shown_value = format_value(value) if shown_value is None else shown_value
            raise RecipeError(
                f"search space: {dimension.key}", rule_text, shown_value, remedy
            ) from None


def settings_key(settings: Mapping[str, object]) -> str:
    """A short unique name of these settings."""
    return hashlib.blake2b(canonical_text(dict(settings)).encode(), digest_size=8).hexdigest()
