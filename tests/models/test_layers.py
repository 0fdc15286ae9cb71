"""Layers in order, freezing, parameter groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holdfast.core.errors import RecipeError
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.layers import count_parameters, freeze, parameter_groups
from holdfast.models.loading.options import LoadOptions

CLASSES = ("a", "b", "c")


@pytest.mark.parametrize("pooling", ["own", "auto"])
def test_layers_come_in_order_and_share_no_weight(
    architecture: str, pooling: str, make_model: Any
) -> None:
    network = load_classifier(str(make_model(architecture)), CLASSES, pooling=pooling).network
    names = [layer.name for layer in network.layers()]
    blocks = ["block.0"] if architecture == "albert" else ["block.0", "block.1"]
    own = pooling == "own" or architecture in ("albert", "modernbert")
    assert names == ["embeddings", *blocks, *(["pooler"] if own else []), "head"]
    in_layers = [id(p) for layer in network.layers() for p in layer.parameters()]
    assert sorted(in_layers) == sorted(id(p) for p in network.parameters())


def test_blocks_run_in_the_order_of_the_layers(make_model: Any, batch: Any) -> None:
    loaded = load_classifier(str(make_model("deberta-v2")), CLASSES, pooling="own")
    seen: list[str] = []
    for layer in loaded.network.layers():
        layer.modules[0].register_forward_hook(lambda *_, name=layer.name: seen.append(name))
    loaded.network(**batch(loaded.tokenizer))
    assert seen == [layer.name for layer in loaded.network.layers()]


def test_word_embeddings_are_the_table_of_the_vocabulary(
    architecture: str, make_model: Any
) -> None:
    network = load_classifier(str(make_model(architecture)), CLASSES).network
    assert network.word_embeddings.weight.shape[0] == 30
    assert any(p is network.word_embeddings.weight for p in network.layers()[0].parameters())


@pytest.mark.parametrize("what", [2, 0.5, "2", "embeddings, block.0", "backbone", "*.query.*"])
def test_frozen_weights_stay_and_the_others_move(what: Any, make_model: Any, batch: Any) -> None:
    loaded = load_classifier(str(make_model("bert")), CLASSES, LoadOptions(dropout=0.0))
    network = loaded.network
    decision = freeze(network, what)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    labels = torch.tensor([0, 1, 2, 0])
    torch.nn.functional.cross_entropy(network(**batch(loaded.tokenizer)), labels).backward()
    optimizer.step()
    # A key's bias adds the same to every score of a query: its gradient is zero but for rounding.
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert frozen
    assert not changed & frozen
    assert {name for name in before if "key.bias" not in name} - frozen <= changed
    assert decision is not None
    assert f"{count_parameters(network)[1]:,} of" in decision.because


def test_counts_and_shares_freeze_from_the_embeddings_up(make_model: Any) -> None:
    network = load_classifier(str(make_model("bert")), CLASSES).network

    def frozen() -> list[str]:
        return [
            layer.name
            for layer in network.layers()
            if not any(p.requires_grad for p in layer.parameters())
        ]

    for what, wanted in [(0, 0), (1, 1), (2, 2), (3, 3), (0.34, 1), (0.7, 2), ("0.34", 1)]:
        freeze(network, what)
        assert frozen() == ["embeddings", "block.0", "block.1"][:wanted], what
    assert freeze(network, None) is None
    assert frozen() == []


@pytest.mark.parametrize("what", [4, -1, 1.5, "nothing.*", "head", "*", float("nan")])
def test_freezing_what_is_not_there_or_everything_is_refused(what: Any, make_model: Any) -> None:
    network = load_classifier(str(make_model("bert")), CLASSES).network
    with pytest.raises(RecipeError, match=r"model\.freeze"):
        freeze(network, what)


def test_groups_hold_every_trained_weight_once(architecture: str, make_model: Any) -> None:
    network = load_classifier(str(make_model(architecture)), CLASSES).network
    freeze(network, 1)
    groups = parameter_groups(network, 1e-3, weight_decay=0.1)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters() if p.requires_grad)


def test_norms_and_biases_have_no_weight_decay(architecture: str, make_model: Any) -> None:
    network = load_classifier(str(make_model(architecture)), CLASSES).network
    norms = {id(p) for m in network.modules() if "Norm" in type(m).__name__ for p in m.parameters()}
    biases = {id(p) for name, p in network.named_parameters() if name.endswith("bias")}
    free = {
        id(p)
        for group in parameter_groups(network, 1e-3, weight_decay=0.1)
        if group["weight_decay"] == 0
        for p in group["params"]
    }
    assert free == norms | biases


def test_rates_fall_by_the_decay_from_the_head_to_the_embeddings(make_model: Any) -> None:
    network = load_classifier(str(make_model("bert")), CLASSES, pooling="own").network
    groups = parameter_groups(network, 1.0, layer_decay=0.5, head_learning_rate=9.0)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["head"] == rates["head (no decay)"] == 9.0
    assert rates["pooler"] == 1.0
    assert rates["block.1"] == 0.5
    assert rates["block.0"] == 0.25
    assert rates["embeddings"] == rates["embeddings (no decay)"] == 0.125
