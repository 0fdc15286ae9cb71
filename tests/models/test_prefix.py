"""Entering a network behind its frozen layers: the whole network is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from holdfast.models.base import Layer
from holdfast.models.compute.prefix import Prefix, frozen_prefix, train_mode
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.layers import freeze
from holdfast.models.loading.options import LoadOptions

CLASSES = ("a", "b", "c")


def frozen(make_model: Any, kind: str, what: Any = 2, **changes: Any) -> Any:
    loaded = load_classifier(str(make_model(kind, **changes)), CLASSES, LoadOptions(dropout=0.3))
    freeze(loaded.network, what)
    return loaded


def gradients(network: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    network.zero_grad()
    torch.manual_seed(5)
    logits = network(**inputs)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    found = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    return found | {"logits": logits.detach()}


@pytest.mark.slow
def test_a_step_from_kept_states_is_the_whole_step(
    carrying: str, make_model: Any, batch: Any
) -> None:
    """With dropout, gradients, and nothing but zeros where a row is padded."""
    loaded = frozen(make_model, carrying)
    network, inputs = loaded.network, batch(loaded.tokenizer)
    prefix = Prefix(frozen_prefix(network))
    assert prefix.learn_forms(lambda: network(**inputs)) is None
    states = prefix.output(lambda: network(**inputs)).detach()
    states = states * inputs["attention_mask"][..., None]
    train_mode(network)
    expected = gradients(network, inputs)
    with prefix.skipping(states):
        found = gradients(network, inputs)
    assert found.keys() == expected.keys()
    assert not any("embeddings" in name for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(network, inputs)["logits"], expected["logits"])


@pytest.mark.parametrize("what", [3, "backbone"])
def test_a_wholly_frozen_backbone_is_left_out_too(what: Any, make_model: Any, batch: Any) -> None:
    loaded = frozen(make_model, "modernbert", what)
    network, inputs = loaded.network, batch(loaded.tokenizer)
    prefix = Prefix(frozen_prefix(network))
    assert prefix.learn_forms(lambda: network(**inputs)) is None
    states = prefix.output(lambda: network(**inputs)).detach()
    with torch.no_grad(), prefix.skipping(states):
        entered = network(**inputs)
    torch.testing.assert_close(entered, network(**inputs))


def test_frozen_blocks_are_not_computed(make_model: Any, batch: Any) -> None:
    loaded = frozen(make_model, "bert")
    network, inputs = loaded.network, batch(loaded.tokenizer)
    prefix = Prefix(frozen_prefix(network))
    prefix.learn_forms(lambda: network(**inputs))
    states = prefix.output(lambda: network(**inputs))
    with torch.no_grad():
        for parameter in prefix.blocks[0].parameters():
            parameter.fill_(float("nan"))
        with prefix.skipping(states):
            assert network(**inputs).isfinite().all()
        assert network(**inputs).isnan().all()


def test_a_pass_that_ends_at_the_prefix_computes_no_more(make_model: Any, batch: Any) -> None:
    loaded = frozen(make_model, "bert")
    inputs = batch(loaded.tokenizer)
    seen: list[str] = []
    for layer in loaded.network.layers():
        layer.modules[0].register_forward_hook(lambda *_, name=layer.name: seen.append(name))
    Prefix(frozen_prefix(loaded.network)).output(lambda: loaded.network(**inputs))
    assert seen == ["embeddings", "block.0"]


def test_the_frozen_prefix_draws_no_dropout_and_the_rest_does(make_model: Any, batch: Any) -> None:
    loaded = frozen(make_model, "bert")
    network, inputs = loaded.network, batch(loaded.tokenizer)
    prefix = Prefix(frozen_prefix(network))
    train_mode(network)
    first, second = (prefix.output(lambda: network(**inputs)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(network(**inputs), network(**inputs))


@pytest.mark.parametrize(
    ("what", "names"),
    [
        (None, []),
        (1, []),
        ("block.*", []),
        ("embeddings, block.1", []),
        (2, ["embeddings", "block.0"]),
        ("backbone", ["embeddings", "block.0", "block.1"]),
        ("embeddings, block.0", ["embeddings", "block.0"]),
    ],
)
def test_a_prefix_begins_at_the_embeddings_and_holds_a_block(
    what: Any, names: list[str], make_model: Any
) -> None:
    network = frozen(make_model, "bert", what).network
    assert [layer.name for layer in frozen_prefix(network)] == names


def test_blocks_that_share_their_weights_cannot_be_entered(make_model: Any, batch: Any) -> None:
    loaded = frozen(make_model, "albert")
    prefix = Prefix(frozen_prefix(loaded.network))
    why = prefix.learn_forms(lambda: loaded.network(**batch(loaded.tokenizer)))
    assert why == "its blocks are not each called once and in order"


class Pair(nn.Module):
    """Two blocks, the first of which gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[1](self.blocks[0](x)[0])


@pytest.mark.parametrize("more", [True, False])
def test_a_block_that_hands_on_more_than_states_cannot_be_entered(more: bool) -> None:
    network, x = Pair(), torch.randn(2, 4)
    first = network.blocks[0]
    first.register_forward_hook(lambda _m, _i, out: (out, out if more else None))
    prefix = Prefix([Layer("embeddings", ()), Layer("block.0", (first,))])
    why = prefix.learn_forms(lambda: network(x))
    assert why == ("its blocks pass on more than their hidden states" if more else None)
    assert prefix.forms == (() if more else (2,))


def test_a_forward_that_was_there_before_is_there_after(make_model: Any, batch: Any) -> None:
    loaded = frozen(make_model, "bert")
    network, inputs = loaded.network, batch(loaded.tokenizer)
    prefix = Prefix(frozen_prefix(network))
    prefix.learn_forms(lambda: network(**inputs))
    own = prefix.blocks[0].forward
    prefix.blocks[0].__dict__["forward"] = own
    with pytest.raises(RuntimeError), prefix.skipping(torch.zeros(1, 1, 32)):
        raise RuntimeError
    assert prefix.blocks[0].__dict__["forward"] is own
    del prefix.blocks[0].__dict__["forward"]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["unfrozen", "written"])
def test_weights_that_changed_are_noticed(change: str, make_model: Any) -> None:
    prefix = Prefix(frozen_prefix(frozen(make_model, "bert").network))
    prefix.mark()
    assert prefix.is_unchanged
    weight = next(prefix.blocks[0].parameters())
    if change == "unfrozen":
        weight.requires_grad_(True)
    else:
        with torch.no_grad():
            weight.mul_(1.5)
    assert not prefix.is_unchanged
