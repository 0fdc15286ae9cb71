"""Adapters on image classifiers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.core.errors import ModelError
from holdfast.models.adapters.adapter import attach
from holdfast.models.base import AdapterSpec
from holdfast.models.vision.vision import load_saved_vision, load_vision

CLASSES = ("cat", "dog", "owl")
SIDE = 32


def tiny_vision(folder: Path, kind: str) -> Path:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parent / "vision.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written: Path = module.tiny_vision(folder, kind)
    return written


def adapted(folder: Path, spec: AdapterSpec) -> Any:
    loaded = load_vision(str(folder), CLASSES)
    attach(loaded.network, spec, base=str(folder))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return loaded


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_saved_and_reloaded_it_gives_the_same_logits(
    kind: str, merge: bool, tmp_path: Path
) -> None:
    loaded = adapted(tiny_vision(tmp_path / "base", kind), AdapterSpec("lora", merge=merge))
    network = loaded.network.eval()
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        want = network(pixel_values=pixels) / 2
    network.save(tmp_path / "out", loaded.tokenizer, 2.0)
    saved = load_saved_vision(tmp_path / "out")
    with torch.no_grad():
        got = saved.network(pixel_values=pixels)
    assert float((got - want).abs().max() / want.abs().max()) <= 1e-4
    assert saved.classes == CLASSES
    assert (tmp_path / "out" / "adapter_config.json").is_file() is not merge


def test_a_network_of_convolutions_says_that_it_has_no_place_for_one(tmp_path: Path) -> None:
    folder = tiny_vision(tmp_path / "base", "resnet")
    with pytest.raises(ModelError, match="linear layers"):
        adapted(folder, AdapterSpec("lora"))
