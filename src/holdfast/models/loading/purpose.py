"""What a model was made for, by its configuration alone: nothing of its weights is read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Literal

from holdfast.core.discovery import lies_there
from holdfast.core.errors import ModelError
from holdfast.models.loading.checks import read_object
from holdfast.models.loading.source import HUB_TIMEOUT_S, check_name

Purpose = Literal["encoder", "encoder-decoder", "decoder", "pictures"]

DECODERS = ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel")
WRITERS = ("ForConditionalGeneration", "MTModel", "WithLMHeadModel")
PICTURES = ("resnet", "convnext", "convnextv2", "vit", "swin", "swinv2", "deit", "beit")


def purpose_of(name: str, revision: str | None = None) -> Purpose | None:
    """``encoder``, ``encoder-decoder``, ``decoder`` or ``pictures``; ``None`` where it cannot be
    known now, as for a model of the hub without a network.

    ``architectures`` decides, then ``is_encoder_decoder``, then the type. A model whose last layer
    is a classifier of texts is an ``encoder`` here, whatever its body.
    """
    if name == "embedded":
        return "encoder"
    config = _config(name, revision)
    if config is None:
        return None
    named = config.get("architectures")
    names = [str(one) for one in named] if isinstance(named, list) else []
    if str(config.get("model_type")) in PICTURES or _any(names, ("ForImageClassification",)):
        return "pictures"
    if _any(names, ("ForSequenceClassification",)):
        return "encoder"
    if config.get("is_encoder_decoder") or _any(names, WRITERS):
        return "encoder-decoder"
    return "decoder" if _any(names, DECODERS) else "encoder"


def _any(names: list[str], ends: tuple[str, ...]) -> bool:
    return any(name.endswith(ends) for name in names)


def _config(name: str, revision: str | None) -> dict[str, Any] | None:
    check_name(name)
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - raises for no name of a home
    if lies_there(path) and path.is_dir():
        return _read(path / "config.json")
    # Only a path can look so; the hub is not asked.
    if name.count("/") > 1 or name.startswith((".", "~", "/")):
        return None
    from huggingface_hub import HfApi, try_to_load_from_cache

    # Whatever keeps the hub from answering is told when the model is loaded.
    with contextlib.suppress(Exception):
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):
            return _read(Path(cached))
        found: Any = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_S).config
        return dict(found) if found else None
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_object(str(path.parent), path)
    except ModelError:  # told when the model is loaded
        return None
