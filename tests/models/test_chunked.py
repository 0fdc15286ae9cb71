"""The loss without all logits: PyTorch's own loss and gradients, and no tensor of that size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.models.generators.base import LOGIT_BYTES_AT_ONCE, chunked_losses, targets_at_once
from holdfast.models.generators.causal import CausalNetwork, load_causal
from holdfast.models.generators.seq2seq_network import Seq2SeqNetwork
from holdfast.models.loading.quiet import quiet_transformers

TARGETS, WIDTH, WORDS = 37, 16, 211


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that anything computes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else [made]:
            if torch.is_tensor(one):
                self.numbers = max(self.numbers, one.numel())
        return made


def made(seed: int = 0) -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = torch.nn.Linear(WIDTH, WORDS)
        states = torch.randn(TARGETS, WIDTH)
        return head, states, torch.randint(0, WORDS, (TARGETS,)), torch.rand(TARGETS)


@pytest.mark.parametrize("together", [1, 5, TARGETS - 1, TARGETS, 100])
def test_losses_and_gradients_are_those_of_all_logits(together: int) -> None:
    head, states, expected, weights = made()
    whole = states.clone().requires_grad_()
    losses = torch.nn.functional.cross_entropy(head(whole), expected, reduction="none")
    (losses * weights).sum().backward()
    wanted = [p.grad.clone() for p in head.parameters() if p.grad is not None]
    head.zero_grad()
    parts = states.clone().requires_grad_()
    found, right = chunked_losses(head, parts, expected, together)
    (found * weights).sum().backward()
    torch.testing.assert_close(found, losses, rtol=1e-5, atol=1e-6)
    assert torch.equal(right, head(states).argmax(dim=1) == expected)
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-5, atol=1e-6)
    for one, other in zip(head.parameters(), wanted, strict=True):
        torch.testing.assert_close(one.grad, other, rtol=1e-5, atol=1e-5)


def test_no_tensor_of_the_whole_size_is_ever_made_forwards_or_backwards() -> None:
    head, states, expected, _ = made()
    head.requires_grad_(False)
    states.requires_grad_()
    with Largest() as seen:
        torch.nn.functional.cross_entropy(head(states), expected).backward()
    assert seen.numbers == TARGETS * WORDS
    with Largest() as seen:
        chunked_losses(head, states, expected, 4)[0].sum().backward()
    assert seen.numbers == WIDTH * WORDS > 4 * WORDS


def test_nothing_to_predict_is_no_loss() -> None:
    head, states, expected, _ = made()
    losses, right = chunked_losses(head, states[:0], expected[:0], 4)
    assert losses.shape == right.shape == (0,)
    assert losses.dtype == torch.float32


def test_so_many_targets_fill_the_bytes_and_no_more() -> None:
    for words in (100, 32_000, 128_256, 10**9):
        count = targets_at_once(words)
        assert count == 1 or 4 * count * words <= LOGIT_BYTES_AT_ONCE < 4 * (count + 1) * words


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_decoder_gives_the_losses_of_its_logits(tiny_llama: Path, mode: str) -> None:
    network = load_causal(str(tiny_llama)).network
    getattr(network, mode)()
    assert network.chunks
    ids = torch.arange(3, 35).view(2, 16)
    where, expected = torch.tensor([0, 4, 17, 30]), torch.tensor([4, 8, 21, 34])
    with torch.set_grad_enabled(mode == "train"):
        logits = network.logits_at(where, input_ids=ids)
        wanted = torch.nn.functional.cross_entropy(logits, expected, reduction="none")
        found, right = network.losses_at(where, expected, 3, input_ids=ids)
    torch.testing.assert_close(found, wanted)
    assert torch.equal(right, logits.argmax(dim=1) == expected)


def bart(bias: bool = False) -> Any:
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(1)
        plain = hf.BartForConditionalGeneration(
            hf.BartConfig(
                vocab_size=90,
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=16,
                decoder_ffn_dim=16,
                max_position_embeddings=32,
            )
        )
    if bias:
        plain.final_logits_bias.fill_(0.5)
    return Seq2SeqNetwork(plain.eval())


def t5() -> Any:
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(1)
        # Its states are scaled before a last layer that shares the embeddings.
        return Seq2SeqNetwork(
            hf.T5ForConditionalGeneration(
                hf.T5Config(
                    vocab_size=90,
                    d_model=16,
                    d_kv=8,
                    d_ff=16,
                    num_layers=1,
                    num_heads=2,
                    decoder_start_token_id=0,
                )
            ).eval()
        )


@pytest.mark.parametrize("network", [bart, t5])
def test_an_encoder_decoder_gives_the_losses_of_its_logits(network: Any) -> None:
    network = network().eval()
    assert network.chunks
    inputs = {
        "input_ids": torch.arange(3, 19).view(2, 8),
        "attention_mask": torch.ones(2, 8, dtype=torch.long),
        "labels": torch.arange(5, 15).view(2, 5),
    }
    where = torch.tensor([0, 2, 5, 9])
    expected = inputs["labels"].flatten()[where]
    logits = network.logits_at(where, **inputs)
    found, right = network.losses_at(where, expected, 3, **inputs)
    wanted = torch.nn.functional.cross_entropy(logits, expected, reduction="none")
    torch.testing.assert_close(found, wanted)
    assert torch.equal(right, logits.argmax(dim=1) == expected)
    found.sum().backward()
    assert all(p.grad is not None for n, p in network.named_parameters() if p.requires_grad)


def test_what_adds_to_its_last_layer_is_not_asked_so() -> None:
    assert not bart(bias=True).chunks
    assert not CausalNetwork.chunks.fget(Capped())  # type: ignore[attr-defined]


class Capped:
    direct, adapter = False, None
