"""Noise on what a network computes: what it disturbs, how much, and that nothing else sees it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, entropy
from torch import nn
from torch.distributions import Bernoulli, kl_divergence

from holdfast.core.errors import RecipeError
from holdfast.core.updates import ForwardPass
from holdfast.methods.agreement import RDrop, disagreement
from holdfast.methods.dropout import DropConnect
from holdfast.methods.noise import (
    HyPe,
    Neftune,
    TokenReplacement,
    WordDropout,
    embedding_noise,
    real_tokens,
    token_replacement,
    tokens_to_hide,
)

IDS = torch.tensor([[101, 7, 8, 9, 102, 0, 0], [101, 5, 0, 6, 4, 3, 102]])


class Words(nn.Module):
    """Word vectors through two blocks."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(120, width)
        self.layers_ = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    @property
    def backbone(self) -> nn.Module:
        return self

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states = self.word_embeddings(ids)
        for layer in self.layers_:
            states = layer(states)
        return states


def difference(network: nn.Module, attach: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain output, and the disturbed one; that it is off in evaluation and gone afterwards."""
    plain = network.eval()(IDS)
    remove = attach(network)
    assert torch.equal(network.eval()(IDS), plain)
    torch.manual_seed(1)
    disturbed = network.train()(IDS)
    for one in remove:
        one()
    assert torch.equal(network.train()(IDS), plain)
    return plain.detach(), disturbed.detach()


def test_neftune_draws_what_transformers_draws_for_rows_without_padding() -> None:
    from transformers.integrations.neftune import neftune_post_forward_hook

    table = nn.Embedding(120, 16).train()
    table.neftune_noise_alpha = 5.0
    states, ids = table(IDS[1:]), IDS[1:]
    torch.manual_seed(4)
    theirs = neftune_post_forward_hook(table, (ids,), states.detach().clone())
    torch.manual_seed(4)
    ours = states + embedding_noise(states, real_tokens(ids, 0), 5.0)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.allclose(ours, states, atol=1e-2)


def test_neftune_counts_real_tokens_alone_and_leaves_padding_as_it_is() -> None:
    states = torch.zeros(2, 7, 16)
    real = real_tokens(IDS, 0)
    assert real.tolist() == [[True] * 5 + [False] * 2, [True] * 7]
    torch.manual_seed(0)
    drawn = torch.stack([embedding_noise(states, real, 10.0) for _ in range(200)])
    for row, length in ((0, 5), (1, 7)):
        scale = 10 / (length * 16) ** 0.5
        inside = drawn[:, row, :length]
        assert float(inside.abs().max()) <= scale
        assert float(inside.std()) == pytest.approx(scale / 3**0.5, rel=0.02)
    assert float(drawn[:, 0, 5:].abs().max()) == 0


def test_neftune_acts_in_training_alone() -> None:
    plain, disturbed = difference(Words(), lambda network: Neftune(5.0).attach(network, 0))
    assert torch.equal(plain[0, 5:], disturbed[0, 5:])
    assert (plain[1] != disturbed[1]).any(dim=1).all()


@pytest.mark.parametrize(("shape", "spread"), [("uniform", 1 / 3**0.5), ("normal", 1.0)])
def test_hype_adds_noise_of_its_scale_to_every_block(shape: str, spread: float) -> None:
    method = HyPe(0.01, shape)
    states = torch.zeros(400, 300)
    drawn = method.disturbed(states)
    assert float(drawn.std()) == pytest.approx(0.01 * spread, rel=0.02)
    assert float(drawn.mean()) == pytest.approx(0, abs=1e-4)
    if shape == "uniform":
        assert float(drawn.abs().max()) <= 0.01
    seen: list[torch.Tensor] = []
    network = Words()
    for layer in network.layers_:
        layer.register_forward_hook(lambda module, given, out: seen.append(given[0].detach()))
    plain, disturbed = difference(network, method.attach)
    assert not torch.equal(plain, disturbed)
    first, second = seen[4:6]
    with torch.no_grad():
        assert 0 < float((first - network.word_embeddings(IDS)).abs().max()) < 0.06
        assert 0 < float((second - network.layers_[0](first)).abs().max()) < 0.06


def test_hype_reads_states_that_are_given_by_name() -> None:
    class Block(nn.Module):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return hidden_states

    class Named(Words):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.layers_[0](hidden_states=self.word_embeddings(ids))

    network = Named()
    network.layers_ = nn.ModuleList([Block()])
    plain, disturbed = difference(network, HyPe(0.01).attach)
    assert 0 < float((plain - disturbed).detach().abs().max()) <= 0.01


def test_word_dropout_hides_so_many_and_never_a_special_token() -> None:
    ids = torch.randint(0, 50, (300, 40))
    torch.manual_seed(2)
    hidden = tokens_to_hide(ids, 0.15, (0, 1, 2))
    special = ids < 3
    assert not (hidden & special).any()
    free = int((~special).sum())
    assert binomtest(int(hidden.sum()), free, 0.15).pvalue > 0.001


@pytest.mark.parametrize("by", [103, None])
def test_word_dropout_puts_the_token_or_zeros_in_its_place(by: int | None) -> None:
    network, seen = Words(), []
    network.word_embeddings.register_forward_hook(lambda m, given, out: seen.append(given[0]))
    network.layers_[0].register_forward_hook(lambda m, given, out: seen.append(given[0]))
    hidden = TokenReplacement(by, (0, 101, 102))
    difference(network, lambda n: WordDropout(0.6).attach(n, hidden))
    ids, states = seen[4], seen[5]
    if by is None:
        gone = (states == 0).all(dim=-1)
        assert torch.equal(ids, IDS)
    else:
        gone = ids == by
        assert torch.equal(ids[~gone], IDS[~gone])
    assert 0 < int(gone.sum()) < 9
    assert not gone[(IDS == 0) | (IDS > 100)].any()


def tokenizer(**tokens: int | None) -> Any:
    names = ("mask", "unk", "eos", "bos", "pad")
    plain = {f"{name}_token_id": tokens.get(name) for name in names}
    return SimpleNamespace(**plain, all_special_ids=[v for v in tokens.values() if v is not None])


def test_what_hides_a_token_is_what_the_tokenizer_has() -> None:
    bert = tokenizer(mask=103, unk=100, pad=0)
    assert token_replacement(WordDropout(0.1), bert) == TokenReplacement(103, (103, 100, 0))
    assert token_replacement(WordDropout(0.1, "unknown"), bert).by == 100
    assert token_replacement(WordDropout(0.1, "zero"), bert).by is None
    assert token_replacement(WordDropout(0.1), tokenizer(unk=2, eos=1)).by == 2
    # GPT-2's unknown token is the end of a text.
    gpt2 = tokenizer(unk=50256, eos=50256, bos=50256)
    assert token_replacement(WordDropout(0.1), gpt2).by is None
    for by, remedy in (("mask", "by=zero"), ("unknown", "by=zero")):
        with pytest.raises(RecipeError, match="does not have") as caught:
            token_replacement(WordDropout(0.1, by), gpt2)
        assert remedy in caught.value.remedy


def test_dropconnect_drops_connections_and_keeps_the_mean() -> None:
    network = Words()
    difference(network, DropConnect(0.3).attach)
    remove = DropConnect(0.3).attach(network)
    network.train()
    torch.manual_seed(0)
    layer, states = network.layers_[0], torch.randn(1, 16)
    outputs = torch.stack([layer(states) for _ in range(4000)])
    assert torch.allclose(outputs.mean(0), states @ layer.weight.T + layer.bias, atol=0.05)
    layer(torch.ones(1, 16)).sum().backward()
    assert layer.weight.grad is not None
    left = int((layer.weight.grad != 0).sum())
    assert binomtest(left, layer.weight.numel(), 0.7).pvalue > 0.001
    kept = layer.weight.grad[layer.weight.grad != 0]
    assert torch.allclose(kept, torch.full_like(kept, 1 / 0.7))
    for one in remove:
        one()
    assert "forward" not in vars(layer)


def passed(logits: torch.Tensor, **batch: torch.Tensor) -> ForwardPass:
    return ForwardPass(np.arange(len(logits)), batch, SimpleNamespace(logits=logits))


def test_the_disagreement_is_scipy_s_both_ways() -> None:
    one, two = torch.randn(6, 4), torch.randn(6, 4)
    p, q = (x.softmax(-1).numpy() for x in (one, two))
    theirs = 0.5 * (entropy(p, q, axis=1) + entropy(q, p, axis=1))
    ours = disagreement(passed(one), passed(two))
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-4)
    counts = torch.tensor([4, 2])
    of_rows = disagreement(passed(one, counts=counts), passed(two, counts=counts))
    assert of_rows.tolist() == pytest.approx([theirs[:4].mean(), theirs[4:].mean()], rel=1e-4)


def test_of_several_labels_it_is_the_sum_over_labels() -> None:
    one, two = torch.randn(5, 3), torch.randn(5, 3)
    a, b = Bernoulli(logits=one), Bernoulli(logits=two)
    theirs = 0.5 * (kl_divergence(a, b) + kl_divergence(b, a)).sum(-1)
    ours = disagreement(passed(one, labels=torch.zeros(5, 3)), passed(two))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_loss_is_the_mean_of_the_two_and_the_disagreement() -> None:
    one, two = torch.randn(5, 3), torch.randn(5, 3)
    first, second = torch.rand(5), torch.rand(5)
    made = RDrop(2.0).between(passed(one), passed(two), (first, second))
    expected = (first + second) / 2 + 2 * disagreement(passed(one), passed(two))
    assert torch.allclose(made, expected)
    assert torch.equal(RDrop(2.0)(passed(one), first), first)
