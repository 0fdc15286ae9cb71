"""Plain second names of recipe keys, for keys whose first name is hard to guess.

A recipe file, ``--set`` and Python's ``settings`` take either name. The recipe that a run writes
keeps the first name, because stored runs and scripts read it. The terms are those of Hugging Face's
``TrainingArguments`` where one fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.setting_names import PLAIN_NAMES, plain_key
from holdfast.core.yaml_values import TooMuchError, from_yaml
from holdfast.recipe.values import NUMBER

# Names of other libraries' arguments → the setting to use here, or a sentence where there is none.
OTHER_LIBRARY_ARGUMENTS: Mapping[str, str] = {
    "lora_r": "model.adapter.rank",
    "lora_rank": "model.adapter.rank",
    "lora_alpha": "model.adapter.alpha",
    "lora_dropout": "model.adapter.dropout",
    "target_modules": "model.adapter.targets",
    "use_dora": "model.adapter.kind=dora",
    "use_rslora": "model.adapter.kind=rslora",
    "load_in_4bit": "model.quantize=4bit",
    "load_in_8bit": "model.quantize=8bit",
    "max_seq_length": "model.max_length",
    "packing": "train.pack",
    "per_device_train_batch_size": "train.batch_size",
    "num_train_epochs": "train.epochs",
    "lr_scheduler_type": "train.schedule",
    "optim": "train.optimizer",
    "bf16": "train.precision=bfloat16",
    "fp16": "train.precision=float16",
    "neftune_noise_alpha": "methods.neftune",
    "report_to": "track.to",
    "formatting_func": "data.template",
    "chat_template_path": "data.template",
    "dataset_text_field": "data.text",
    "full_finetuning": "model.adapter.kind=none",
    "warmup_steps": "train.warmup_ratio (a share of the steps, not their number)",
    "eval_steps": "train.evaluations (the number of evaluations, not the steps between them)",
}
NEEDLESS_ARGUMENTS = {
    "assistant_only_loss": "Leave it out: the loss of chats covers the answers only.",
    "completion_only_loss": "Leave it out: the loss covers answers, or all tokens of plain text.",
}


def unknown_key_remedy(key: str, known: Sequence[str]) -> str:
    """A remedy for an unknown key: the setting that another library's argument means, else the
    nearest of the ``known`` ones.

    >>> unknown_key_remedy("model.lora_r", [])
    'In Holdfast, use model.adapter.rank.'
    """
    name = key.rpartition(".")[2]
    if name in NEEDLESS_ARGUMENTS:
        return NEEDLESS_ARGUMENTS[name]
    setting = OTHER_LIBRARY_ARGUMENTS.get(name)
    return f"In Holdfast, use {setting}." if setting else suggest_name(key, known)


def stored_key(key: str) -> str:
    """A dotted key under the name that a written recipe has.

    >>> stored_key("train.max_grad_norm"), stored_key("clean.markup")
    ('train.clip', 'treat.markup')
    """
    for stored, plain in PLAIN_NAMES.items():
        if key == plain or key.startswith(f"{plain}."):
            return stored + key.removeprefix(plain)
    return key


def with_stored_keys(tree: Mapping[Any, Any], where: str) -> tuple[dict[Any, Any], set[str]]:
    """The sections of a recipe with each key under the name that a written recipe has.

    Also returns the stored names of the keys that were given by their plain names. Raises
    ``RecipeError`` if both names of a key are given with different values; ``where`` is named in
    the error.
    """
    renamed = dict(tree)
    used = set()
    for stored, plain in PLAIN_NAMES.items():
        *path, last = plain.split(".")
        section = _copy_section(renamed, path)
        if section is None or last not in section:
            continue
        used.add(stored)
        old = stored.rpartition(".")[2]
        if old in section and section[old] != section[last]:
            raise _two_values_error(where, stored)
        # In the same place: the order of the ranges in a search is that of the file.
        items = [(old if key == last else key, value) for key, value in section.items()]
        section.clear()
        section.update(items)
    return renamed, used


def _copy_section(tree: dict[Any, Any], path: Iterable[str]) -> dict[Any, Any] | None:
    """The section of ``tree`` at ``path``, put there as a copy; ``None`` if it is no table."""
    for name in path:
        if not isinstance(tree.get(name), dict):
            return None
        tree[name] = dict(tree[name])
        tree = tree[name]
    return tree


def settings_with_stored_keys(settings: Iterable[str]) -> tuple[list[str], set[str]]:
    """``key=value`` settings with each key under the name that a written recipe has.

    Also returns the stored names of the keys that were given by their plain names. Raises
    ``RecipeError`` if both names of a key are given with different values.
    """
    renamed: list[str] = []
    used: set[str] = set()
    texts: dict[str, dict[str, str]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        typed = name.strip()
        key = stored_key(typed)
        texts.setdefault(key, {})[typed] = text
        if key == typed:
            renamed.append(setting)
            continue
        renamed.append(f"{key}{equals}{text}")
        used.update(stored for stored in PLAIN_NAMES if f"{key}.".startswith(f"{stored}."))
    for key, by_name in texts.items():
        first, *others = (_value(text) for text in by_name.values())
        if any(other != first for other in others):
            raise _two_values_error("--set", key)
    return renamed, used


def _value(text: str) -> Any:
    """What was typed as a value, so that ``1`` and ``1.0`` are equal."""
    if NUMBER.fullmatch(text.strip()):
        return float(text)
    try:
        return from_yaml(text)
    except (yaml.YAMLError, TooMuchError):
        return text


def _two_values_error(where: str, key: str) -> RecipeError:
    plain = plain_key(key)
    return RecipeError(
        where,
        f"gives {plain} and {key} different values, and both name the same setting",
        None,
        f"Keep one of them, for example {plain}.",
    )
