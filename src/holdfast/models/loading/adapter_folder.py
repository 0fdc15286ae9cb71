"""A folder that holds an adapter, in PEFT's format, and no weights of its pretrained model: what it
is and what it was trained on, by its small files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.core.discovery import path_exists, user_path
from holdfast.core.errors import ModelError
from holdfast.core.input_errors import reading_errors
from holdfast.core.packaged_models import PACKAGED_MODELS
from holdfast.core.shapes import anything, list_of, mapping_of, optional, parse_object, record, text

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_FACTS = "holdfast.json"
ADAPTER_FACTS_SHAPE = record(
    {
        "model": optional(text),
        "classes": optional(list_of(text)),
        "quantization": optional(mapping_of(anything)),
        "dtype": text,
    }
)


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """The pretrained model of an adapter: its ``name``, and the ``revision`` of a hub model."""

    name: str
    revision: str | None


def is_adapter_folder(folder: Path) -> bool:
    """Whether this is a PEFT folder, written by PEFT or in its format."""
    # A pipe would never end.
    return path_exists(folder / ADAPTER_CONFIG) and (folder / ADAPTER_CONFIG).is_file()


def adapter_folder(name: str) -> Path | None:
    """The folder that a model's name says, if it holds an adapter."""
    if name in PACKAGED_MODELS:
        return None
    folder = user_path(name)
    return folder if is_adapter_folder(folder) else None


def adapter_base(folder: Path) -> AdapterBase:
    """The pretrained model of the adapter in ``folder``. Raises ``ModelError`` where its
    configuration cannot be read."""
    config = read_config(folder)
    named = read_facts(folder).get("model")
    base = str(config["base_model_name_or_path"])
    if adapter_folder(base) is not None:
        rule = "names an adapter as its pretrained model"
        raise ModelError(str(folder / ADAPTER_CONFIG), rule, base, "Merge that adapter first.")
    # A packaged model may have moved.
    return AdapterBase(named if named in PACKAGED_MODELS else base, config.get("revision"))


def read_config(folder: Path) -> dict[str, Any]:
    """``adapter_config.json``, which names the pretrained model."""
    with reading_errors(str(folder / ADAPTER_CONFIG), ModelError, remedy="Use a complete copy."):
        config = parse_object((folder / ADAPTER_CONFIG).read_text("utf-8"))
        text(config.get("base_model_name_or_path"), "base_model_name_or_path")
        return config


def read_facts(folder: Path) -> dict[str, Any]:
    """Holdfast's small file next to the adapter; empty if another program wrote the folder."""
    path = folder / ADAPTER_FACTS
    if not path.is_file():
        return {}
    with reading_errors(str(path), ModelError, remedy="Use a complete copy."):
        facts = parse_object(path.read_text("utf-8"))
        ADAPTER_FACTS_SHAPE(facts, "")
    return facts
