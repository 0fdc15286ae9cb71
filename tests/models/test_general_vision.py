"""Image classifiers of architectures that ``vision/families.py`` does not list: tiny ones, drawn at
random, through loading, a step of training, saving, and Transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.core.errors import ModelError
from holdfast.models.layers import freeze
from holdfast.models.vision.vision import load_saved_vision, load_vision

CLASSES = ("cat", "dog", "owl")
SIDE = 32
TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": SIDE,
    "patch_size": 8,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "beit": TRANSFORMER,
    "deit": {**TRANSFORMER, "architectures": ["DeiTForImageClassification"]},
    "dinov2": TRANSFORMER,
    "ijepa": TRANSFORMER,
    "mobilenet_v2": {"depth_multiplier": 0.35, "min_depth": 4},
    "poolformer": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "pvt_v2": {
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
        "image_size": SIDE,
    },
    "regnet": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "vit_msn": TRANSFORMER,
}


@pytest.fixture(params=ARCHITECTURES, scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.models.vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("general-vision") / str(request.param)
    config = AutoConfig.for_model(request.param, **ARCHITECTURES[request.param])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return load_vision(str(folder), CLASSES)


def pixels() -> torch.Tensor:
    return torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_every_weight_is_in_one_layer(loaded: Any) -> None:
    network = loaded.network
    layers = network.layers()
    held = [id(p) for layer in layers for p in layer.parameters()]
    assert sorted(held) == sorted(id(p) for p in network.parameters())
    # Where each stage has embeddings of its own, none come before the first block.
    assert layers[0].name in ("embeddings", "block.0")
    assert layers[-1].name == "head"
    assert sum(layer.name.startswith("block.") for layer in layers) >= 2


def test_saved_it_gives_these_logits_in_transformers(loaded: Any, tmp_path: Path) -> None:
    network = loaded.network
    with torch.no_grad():
        logits, features = network(pixel_values=pixels()), network.features(pixel_values=pixels())
    head = network.head
    assert torch.allclose(torch.nn.functional.linear(features, head.weight, head.bias), logits)
    network.save(tmp_path / "model", loaded.tokenizer, temperature=2.0)
    saved = load_saved_vision(tmp_path / "model")
    assert saved.classes == CLASSES
    with torch.no_grad():
        plain = saved.network(pixel_values=pixels())
    assert torch.allclose(plain, logits / 2, atol=1e-4 * float(logits.abs().max()))


def test_a_step_trains_what_is_not_frozen(loaded: Any) -> None:
    network = loaded.network
    frozen, *others = [layer.name for layer in network.layers()]
    freeze(network, 1)
    loss = torch.nn.functional.cross_entropy(
        network(pixel_values=pixels()), torch.tensor([0, 1, 2, 0])
    )
    loss.backward()
    moved = {
        layer.name
        for layer in network.layers()
        if any(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())
    }
    freeze(network, None)
    network.zero_grad()
    assert frozen not in moved
    assert {name for name in others if name.startswith("block.")} | {"head"} <= moved


def test_a_text_model_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"image processor|no class for"):
        load_vision(str(tiny_model), CLASSES)
