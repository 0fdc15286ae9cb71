"""A fresh network computes the same, shares what never learns, and can be changed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.models.base import AdapterSpec
from holdfast.models.compute.processor import checkpoint_activations, use_onednn
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.layers import freeze, parameter_groups
from holdfast.models.loading.options import LoadOptions
from holdfast.models.network_copy import copy_network, detach_trainable, same_memory

BATCH = {"input_ids": torch.tensor([[2, 7, 9, 3]]), "attention_mask": torch.ones(1, 4).long()}


def made(model: Path, kind: str | None = None) -> Any:
    adapter = AdapterSpec(kind) if kind else None
    return load_classifier(
        str(model), ("a", "b"), LoadOptions(adapter=adapter), pooling="own"
    ).network


@pytest.mark.parametrize("kind", [None, "lora", "dora", "lora+", "ia3", "prompt"])
def test_it_computes_the_same_and_learns_the_same(tiny_model: Path, kind: str | None) -> None:
    network = made(tiny_model, kind)
    copy: Any = copy_network(network)
    assert torch.equal(copy(**BATCH), network(**BATCH))
    freeze(copy, None)
    learns = [n for n, p in copy.named_parameters() if p.requires_grad]
    assert learns == [n for n, p in network.named_parameters() if p.requires_grad]
    rates = [
        sorted((g["name"], g["lr"], sum(p.numel() for p in g["params"])) for g in groups)
        for groups in (parameter_groups(one, 1e-3) for one in (copy, network))
    ]
    assert rates[0] == rates[1]
    if kind:
        assert copy.adapter.home is (copy.plain if hasattr(copy, "plain") else copy.backbone)


@pytest.mark.parametrize("kind", [None, "lora"])
def test_what_learns_is_its_own_and_the_rest_is_shared(tiny_model: Path, kind: str | None) -> None:
    network = made(tiny_model, kind)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copy: Any = copy_network(network)
    if kind is None:
        freeze(copy, 1)
    detach_trainable(copy, network)
    theirs = dict(network.named_parameters())
    for name, parameter in copy.named_parameters():
        shared = parameter.data_ptr() == theirs[name].data_ptr()
        assert shared is not parameter.requires_grad, name
    optimizer = torch.optim.SGD([p for p in copy.parameters() if p.requires_grad], lr=1.0)
    copy(**BATCH).sum().backward()
    optimizer.step()
    assert not torch.equal(copy(**BATCH), network(**BATCH))
    assert all(torch.equal(network.state_dict()[n], tensor) for n, tensor in before.items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_how_it_computes_is_its_own(tiny_model: Path) -> None:
    network = made(tiny_model)
    copy: Any = copy_network(network)
    freeze(copy, 2)
    use_onednn(copy)
    checkpoint_activations(copy, True)
    copy.backbone.set_attn_implementation("eager")
    copy.dropout.p = 0.7
    copy.train()
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert {type(m) for m in network.modules()} & {type(copy.head)} == set()
    assert not any(getattr(m, "gradient_checkpointing", False) for m in network.modules())
    assert network.backbone.config._attn_implementation != "eager"
    assert network.dropout.p != 0.7
    assert not any(module.training for module in network.modules())


def test_other_tensors_can_be_put_into_it(tiny_model: Path) -> None:
    network = made(tiny_model)
    bias = torch.tensor([3.0, -3.0])
    copy: Any = copy_network(network, {"head.bias": bias})
    assert torch.allclose(copy(**BATCH) - network(**BATCH), bias - network.head.bias)


def test_equal_tensors_lie_in_memory_once() -> None:
    known = {"a": torch.ones(3), "b": torch.zeros(2)}
    found = same_memory({"a": torch.ones(3), "b": torch.ones(2), "c": torch.ones(1)}, known)
    assert found["a"] is known["a"]
    assert found["b"].tolist() == [1, 1]
    assert list(found) == ["a", "b", "c"]
