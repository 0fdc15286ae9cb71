"""Image models: features and head are the plain model, saved or not."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from holdfast.core.errors import ModelError, RecipeError
from holdfast.models.layers import freeze, parameter_groups
from holdfast.models.vision.vision import load_saved_vision, load_vision, use_channels_last

CLASSES = ("bird", "cat", "dog")


def _helpers() -> Any:
    spec = importlib.util.spec_from_file_location(
        "vision_models", Path(__file__).parent / "vision.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


VISION = _helpers()


@pytest.fixture(scope="session", params=VISION.SETTINGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each architecture in turn."""
    made: Path = VISION.tiny_vision(tmp_path_factory.mktemp("vision") / "m", request.param)
    return made


@pytest.fixture
def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(5, 3, VISION.SIDE, VISION.SIDE, generator=generator)


def plain_with_head(folder: Path, network: Any) -> Any:
    """The independent oracle: Transformers' own model, with the head's weights put in."""
    plain = AutoModelForImageClassification.from_pretrained(
        folder, num_labels=len(CLASSES), ignore_mismatched_sizes=True
    )
    last = plain.classifier[-1] if isinstance(plain.classifier, torch.nn.Sequential) else None
    last = last if last is not None else plain.classifier
    with torch.no_grad():
        last.weight.copy_(network.head.weight)
        last.bias.copy_(network.head.bias)
    return plain


def test_the_saved_folder_gives_the_logits_over_the_temperature(
    folder: Path, pixels: torch.Tensor, tmp_path: Path
) -> None:
    loaded = load_vision(str(folder), CLASSES)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer, temperature=1.7)
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        expected = loaded.network(pixel_values=pixels) / 1.7
        found = plain(pixel_values=pixels).logits
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert expected.std(dim=0).max() > 1e-3
    assert tuple(plain.config.id2label[i] for i in range(3)) == CLASSES
    assert load_saved_vision(tmp_path / "saved").classes == CLASSES


def test_the_saved_folder_loads_its_processor_in_plain_transformers(
    folder: Path, tmp_path: Path
) -> None:
    loaded = load_vision(str(folder), CLASSES)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    again = AutoImageProcessor.from_pretrained(tmp_path / "saved", backend="pil")
    assert again.to_dict() == loaded.tokenizer.to_dict()


def test_loss_and_gradients_are_those_of_the_transformers_model(
    folder: Path, pixels: torch.Tensor
) -> None:
    from holdfast.tasks.images.losses import ImageClassification

    labels = torch.tensor([0, 1, 2, 1, 0])
    network = load_vision(str(folder), CLASSES).network.train()
    plain = plain_with_head(folder, network).train()
    task, batch = ImageClassification(CLASSES), {"pixel_values": pixels, "labels": labels}
    torch.manual_seed(0)  # Swin drops whole paths
    mine = task.losses(task.forward(network, batch), batch).mean()
    torch.manual_seed(0)
    own = plain(pixel_values=pixels, labels=labels).loss
    mine.backward()
    own.backward()
    assert mine.item() == pytest.approx(own.item(), rel=1e-5)
    gradients = {name: p.grad for name, p in network.backbone.named_parameters()}
    for name, parameter in plain.named_parameters():
        if name in gradients and parameter.grad is not None:
            assert torch.allclose(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6), name


def test_with_channels_together_a_convolutional_network_is_the_same_function(
    folder: Path, pixels: torch.Tensor, tmp_path: Path
) -> None:
    """Outputs and gradients in its usual layout, and the folder that it writes."""
    import safetensors.torch

    loaded, usual = (load_vision(str(folder), CLASSES) for _ in range(2))
    network, last = loaded.network, torch.channels_last
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert (use_channels_last(network) is None) == (len(convolutions) == 1)
    if len(convolutions) > 1:
        assert all(c.weight.is_contiguous(memory_format=last) for c in convolutions)
        given: list[torch.Tensor] = []
        convolutions[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        network(pixel_values=pixels)
        assert given[0].is_contiguous(memory_format=last)
    outputs = [n.features(pixel_values=pixels) for n in (network, usual.network)]
    assert torch.allclose(*outputs, rtol=1e-4, atol=1e-5)
    for output in outputs:
        output.square().mean().backward()
    for (name, one), other in zip(
        network.named_parameters(), usual.network.parameters(), strict=True
    ):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            error = float((one.grad - other.grad).abs().max())
            assert error <= 1e-4 * float(other.grad.abs().max()) + 1e-9, name
    saved = []
    for number, one in enumerate((loaded, usual)):
        one.network.save(tmp_path / str(number), one.tokenizer)
        saved.append(safetensors.torch.load_file(tmp_path / str(number) / "model.safetensors"))
    assert all(torch.equal(saved[0][name], tensor) for name, tensor in saved[1].items())


def test_features_are_what_the_head_reads(folder: Path, pixels: torch.Tensor) -> None:
    network = load_vision(str(folder), CLASSES).network
    with torch.no_grad():
        features = network.features(pixel_values=pixels)
        assert features.shape == (5, network.head.in_features)
        assert torch.equal(network.head(features), network(pixel_values=pixels))


def test_every_weight_is_in_exactly_one_layer(folder: Path) -> None:
    network = load_vision(str(folder), CLASSES).network
    owned = [id(p) for layer in network.layers() for p in layer.parameters()]
    assert sorted(owned) == sorted(id(p) for p in network.parameters())


def test_layers_come_in_the_order_of_the_computation(folder: Path, pixels: torch.Tensor) -> None:
    network = load_vision(str(folder), CLASSES).network
    seen: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: seen.append(name)

    for layer in network.layers():
        for module in layer.modules:
            module.register_forward_hook(note(layer.name))
    network(pixel_values=pixels)
    names = [layer.name for layer in network.layers()]
    assert list(dict.fromkeys(seen)) == names
    assert names[0] == "embeddings"
    assert names[-1] == "head"
    assert len(names) > 3


def test_half_the_layers_can_be_frozen_and_the_rest_learns(folder: Path) -> None:
    network = load_vision(str(folder), CLASSES).network
    freeze(network, 0.5)
    groups = parameter_groups(network, 1e-3, layer_decay=0.5)
    grouped = {id(p) for group in groups for p in group["params"]}
    assert grouped == {id(p) for p in network.parameters() if p.requires_grad}
    assert not any(p.requires_grad for p in network.layers()[0].parameters())


def test_a_frozen_batch_norm_keeps_its_statistics_and_a_learning_one_moves_them(
    tmp_path: Path, pixels: torch.Tensor
) -> None:
    from holdfast.training.run import running_statistics

    network = load_vision(str(VISION.tiny_vision(tmp_path / "m", "resnet")), CLASSES).network
    freeze(network, 2)
    network.train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(pixel_values=pixels)
    moved = {n for n, b in network.named_buffers() if not torch.equal(b, before[n])}
    assert moved == set(running_statistics(network))
    assert moved
    assert len(moved) < len(before)


def test_words_cannot_be_frozen_in_a_picture(folder: Path) -> None:
    with pytest.raises(RecipeError, match="embeddings"):
        _ = load_vision(str(folder), CLASSES).network.word_embeddings


def test_the_embedded_text_model_is_refused() -> None:
    with pytest.raises(ModelError, match="image model"):
        load_vision("embedded", CLASSES)


def test_a_text_model_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="image processor"):
        load_vision(str(tiny_model), CLASSES)


def test_missing_backbone_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = VISION.tiny_vision(tmp_path / "m", "vit")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layers.1" not in k and "layer.1" not in k},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelError, match="lacks 16 of the weights of a ViT"):
        load_vision(str(folder), CLASSES)
