"""What a model's files state, read before its weights: its purpose from the configuration, its
licence and languages from the model card (the head of README.md in its folder)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from holdfast.core.discovery import path_exists, user_path
from holdfast.core.errors import ModelError
from holdfast.core.packaged_models import PACKAGED_MODELS, SMOLLM2
from holdfast.models.loading.adapter_folder import adapter_base, adapter_folder
from holdfast.models.loading.checks import architectures, read_object
from holdfast.models.loading.source import HUB_TIMEOUT_S, Source, check_name

Purpose = Literal["encoder", "encoder-decoder", "decoder", "pictures"]

DECODERS = ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel")
WRITERS = ("ForConditionalGeneration", "MTModel", "WithLMHeadModel")
PICTURES = ("resnet", "convnext", "convnextv2", "vit", "swin", "swinv2", "deit", "beit")
CARD = "README.md"
# Of a model that Holdfast fine-tuned, by its card.
TAG = "holdfast"
LARGEST = 2_000_000
# Of a card that names many, so many are listed.
MAX_LANGUAGES = 100


def purpose_of(name: str, revision: str | None = None) -> Purpose | None:
    """``encoder``, ``encoder-decoder``, ``decoder`` or ``pictures``; ``None`` where it cannot be
    known now, as for a model of the hub without a network.

    ``architectures`` decides, then ``is_encoder_decoder``, then the type. A model whose last layer
    is a classifier of texts is an ``encoder`` here, whatever its body.
    """
    if name in PACKAGED_MODELS:
        return "decoder" if name == SMOLLM2 else "encoder"
    adapter = adapter_folder(name)
    if adapter is not None:
        with contextlib.suppress(ModelError):
            base = adapter_base(adapter)
            return purpose_of(base.name, base.revision)
        return None
    config = _config(name, revision)
    if config is None:
        return None
    named = architectures(config)

    def ends(*kinds: str) -> bool:
        return any(one.endswith(kinds) for one in named)

    if str(config.get("model_type")) in PICTURES or ends("ForImageClassification"):
        return "pictures"
    if ends("ForSequenceClassification"):
        return "encoder"
    if config.get("is_encoder_decoder") or ends(*WRITERS):
        return "encoder-decoder"
    return "decoder" if ends(*DECODERS) else "encoder"


def _config(name: str, revision: str | None) -> dict[str, Any] | None:
    check_name(name)
    # Whatever keeps the hub from answering, and a file from being read, is told when the model is
    # loaded.
    path = user_path(name)
    if path_exists(path) and path.is_dir():
        with contextlib.suppress(ModelError):
            return read_object(str(path), path / "config.json")
        return None
    # Only a path can look so; the hub is not asked.
    if name.count("/") > 1 or name.startswith((".", "~", "/")):
        return None
    from huggingface_hub import HfApi, try_to_load_from_cache

    with contextlib.suppress(Exception):
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):
            return read_object(name, Path(cached))
        config: Any = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_S).config
        return dict(config) if config else None
    return None


@dataclass(frozen=True, slots=True)
class Card:
    """``licence`` as the card names it, ``None`` if it names none; ``languages`` as it lists them,
    empty if it lists none; ``fine_tuned``: Holdfast wrote it for a model that it trained."""

    licence: str | None = None
    languages: tuple[str, ...] = ()
    fine_tuned: bool = False


def card_of(source: Source) -> Card:
    """The card in the model's folder; for a downloaded model also the hub's, if it can be reached.
    An unreadable card gives nothing."""
    if source.commit is None or (source.folder / CARD).is_file():
        return card_here(source.folder)
    from huggingface_hub import hf_hub_download

    # A program that does not need it has not fetched it.
    with contextlib.suppress(Exception):
        return _read(Path(hf_hub_download(source.name, CARD, revision=source.commit)))
    return Card()


def card_here(folder: Path) -> Card:
    """The card in a model's folder; an unreadable one gives nothing."""
    return _read(folder / CARD)


def _read(path: Path) -> Card:
    with contextlib.suppress(Exception):
        if path.stat().st_size <= LARGEST:
            return read_card(path.read_text(encoding="utf-8", errors="replace"))
    return Card()


def read_card(text: str) -> Card:
    """The card in a README: its head is YAML between two lines of ``---``."""
    from holdfast.core.yaml_values import from_yaml

    lines = text.splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in map(str.strip, lines[1:]):
        return Card()
    end = next(i for i, line in enumerate(lines[1:], 1) if line.strip() == "---")
    head: Any = from_yaml("\n".join(lines[1:end]))
    if not isinstance(head, Mapping):
        return Card()
    licence = head.get("license")
    # "other" is explained by a name of its own.
    named = head.get("license_name") if licence == "other" else None
    listed = head.get("language")
    languages = listed if isinstance(listed, list) else [] if listed is None else [listed]
    tags = head.get("tags")
    return Card(
        _word(named) or _word(licence),
        tuple(filter(None, map(_word, languages[:MAX_LANGUAGES]))),
        isinstance(tags, list) and TAG in tags,
    )


def _word(value: object) -> str | None:
    # YAML reads the language "no" as a truth.
    if value is False:
        return "no"
    return value.strip() or None if isinstance(value, str) else None
