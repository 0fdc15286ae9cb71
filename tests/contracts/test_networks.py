"""Every network keeps what ``models.base.Network`` promises; one that no sample reaches fails."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import holdfast.models
from holdfast.core.errors import RecipeError
from holdfast.models.layers import count_parameters, freeze, parameter_groups
from holdfast.models.loading.quiet import quiet_transformers


def networks() -> set[type]:
    """Every module class of the room that can be trained: it has layers and can be saved."""
    found = set()
    for module in pkgutil.iter_modules(holdfast.models.__path__, "holdfast.models."):
        for _, thing in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(thing, torch.nn.Module) and hasattr(thing, "layers"):
                found.add(thing)
    return found


@pytest.fixture
def frozen_again(sample: Any) -> Iterator[None]:
    """Whatever a test freezes learns again afterwards."""
    held = {name: p.requires_grad for name, p in sample.loaded.network.named_parameters()}
    yield
    for name, parameter in sample.loaded.network.named_parameters():
        parameter.requires_grad_(held[name])


def test_every_network_has_a_sample(make_sample: Callable[[str], Any], samples: list[str]) -> None:
    assert {type(make_sample(name).loaded.network) for name in samples} == networks()


def test_it_comes_in_evaluation_mode_and_float32(sample: Any) -> None:
    network = sample.loaded.network
    assert not any(module.training for module in network.modules())
    floating = [p for p in network.parameters() if p.is_floating_point()]
    assert {p.dtype for p in floating} == {torch.float32}


def test_the_same_batch_gives_the_same_outputs(sample: Any, inputs: dict[str, Any]) -> None:
    network = sample.loaded.network
    with torch.inference_mode():
        first, second = network(**inputs), network(**inputs)
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()


def test_layers_stand_in_order_and_hold_every_weight_once(sample: Any) -> None:
    network = sample.loaded.network
    layers = network.layers()
    names = [layer.name for layer in layers]
    assert (names[0], names[-1]) == ("embeddings", "head")
    assert len(set(names)) == len(names)
    counted = Counter(id(p) for layer in layers for p in layer.parameters())
    assert counted == Counter(id(p) for p in network.parameters())


def test_layers_are_computed_in_their_order(sample: Any, inputs: dict[str, Any]) -> None:
    """The first module to answer in a layer answers before the first of any later layer."""
    network = sample.loaded.network
    order: list[int] = []
    hooks = []
    for place, layer in enumerate(network.layers()):
        for module in layer.modules:
            for part in module.modules():
                # A list of weights is no step of the computation.
                if next(part.parameters(recurse=False), None) is not None:
                    hook = part.register_forward_pre_hook(lambda *_, at=place: order.append(at))
                    hooks.append(hook)
    with torch.inference_mode():
        network(**inputs)
    for hook in hooks:
        hook.remove()
    firsts = list(dict.fromkeys(order))
    assert firsts == sorted(firsts)


def test_the_head_is_the_last_layer(sample: Any, inputs: dict[str, Any]) -> None:
    network, seen = sample.loaded.network, []
    hook = network.head.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.inference_mode():
        given = network(**inputs)
    hook.remove()
    assert seen[-1].shape[-1] == given.shape[-1]


def test_word_embeddings_are_a_table_or_are_refused(sample: Any, inputs: dict[str, Any]) -> None:
    network = sample.loaded.network
    if "input_ids" not in inputs:
        with pytest.raises(RecipeError, match="word embeddings"):
            _ = network.word_embeddings
        return
    table = network.word_embeddings.weight
    assert table.ndim == 2
    assert table.shape[0] > int(inputs["input_ids"].max())
    assert any(p is table for p in network.parameters())


def test_parameters_that_never_learn_stay_so(sample: Any, frozen_again: None) -> None:
    network = sample.loaded.network
    held = network.fixed | (network.adapter.frozen_ids if network.adapter else frozenset())
    freeze(network, None)
    assert {id(p) for p in network.parameters() if not p.requires_grad} == set(held)
    total, learning = count_parameters(network)
    assert 0 < learning <= total


def test_a_new_head_learns_and_groups_hold_what_learns(sample: Any, frozen_again: None) -> None:
    network = sample.loaded.network
    if network.new_head:
        freeze(network, "backbone")
        assert all(p.requires_grad for p in network.head.parameters())
    learning = {id(p) for p in network.parameters() if p.requires_grad}
    grouped = [id(p) for group in parameter_groups(network, 1e-3) for p in group["params"]]
    assert sorted(grouped) == sorted(learning)


def test_a_gradient_reaches_every_parameter_that_learns(
    sample: Any, inputs: dict[str, Any]
) -> None:
    network = sample.loaded.network
    with torch.enable_grad():
        network(**inputs).square().mean().backward()
    without = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    for parameter in network.parameters():
        parameter.grad = None
    assert without == []


def test_a_saved_folder_gives_the_same_outputs_in_plain_transformers(
    sample: Any, inputs: dict[str, Any], tmp_path: Path
) -> None:
    loaded = sample.loaded
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    loaded.network.save(tmp_path / "model", loaded.tokenizer)
    config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    make = getattr(transformers, config["architectures"][0])
    with quiet_transformers():
        plain = make.from_pretrained(tmp_path / "model", use_safetensors=True).eval()
    with torch.inference_mode():
        ours, theirs = loaded.network(**inputs), plain(**inputs).logits
    # The mean that a plain head carries is computed along another way.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    after = loaded.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
