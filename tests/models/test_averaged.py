"""Models that write together, against the mean taken by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.models.generators.average import AveragedNetwork, mean_logits
from holdfast.models.generators.causal import CausalNetwork, load_saved_causal
from holdfast.tasks.lm.generation import write_answers


def shaken(network: CausalNetwork, seed: int) -> CausalNetwork:
    """Another model of the same vocabulary."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.fixture(params=["llama", "gpt2"])
def two(tiny_llama: Path, request: pytest.FixtureRequest) -> tuple[list[CausalNetwork], Any]:
    """Two of one vocabulary; GPT-2 knows each place by itself, Llama only how far apart two are."""
    tokenizer = load_saved_causal(tiny_llama)[1]
    if request.param == "llama":
        return [shaken(load_saved_causal(tiny_llama)[0], seed) for seed in range(2)], tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id}
    config = GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=64, **ends)
    torch.manual_seed(5)
    plain = GPT2LMHeadModel(config).eval()
    return [shaken(CausalNetwork(copy.deepcopy(plain)), seed) for seed in range(2)], tokenizer


def test_the_softmax_of_the_mean_is_the_mean_of_the_softmaxes() -> None:
    torch.manual_seed(0)
    logits, weights = [torch.randn(5, 7) * 4 for _ in range(3)], (0.2, 0.8, 0.0)
    wanted = sum(w * z.double().softmax(-1) for w, z in zip(weights, logits, strict=True))
    found = mean_logits(logits, weights).double().softmax(-1)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_logits_at_places_are_of_the_mean(two: Any) -> None:
    networks, _ = two
    ids, where = torch.arange(1, 13)[None] % 40, torch.tensor([2, 5])
    both = AveragedNetwork(networks, (0.3, 0.7))
    with torch.inference_mode():
        each = [one.logits_at(where, input_ids=ids).softmax(-1) for one in networks]
        found = both.logits_at(where, input_ids=ids).softmax(-1)
    torch.testing.assert_close(found, 0.3 * each[0] + 0.7 * each[1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_follows_the_mean(two: Any, beams: int) -> None:
    """Prompts of unlike length, so that one of them is padded; by hand one token after the other
    for the likeliest, and for beams against Transformers with the mean in the model itself."""
    networks, tokenizer = two
    prompts = [[5, 9, 12, 30, 7], [8, 21]]
    made = write_answers(
        AveragedNetwork(networks, (0.4, 0.6)),
        tokenizer,
        prompts,
        new_tokens=6,
        chat=False,
        beams=beams,
    )
    for prompt, text, sure in zip(prompts, made.texts, made.sure, strict=True):
        if beams == 1:
            wanted, logs = _by_hand(networks, (0.4, 0.6), tokenizer, prompt, 6)
            assert text == wanted
            assert sure == pytest.approx(float(np.exp(np.mean(logs))), rel=1e-4)
    if beams > 1:
        alone = write_answers(networks[0], tokenizer, prompts, new_tokens=6, chat=False, beams=3)
        same = write_answers(
            AveragedNetwork([networks[0], networks[0]]),
            tokenizer,
            prompts,
            new_tokens=6,
            chat=False,
            beams=3,
        )
        assert list(same.texts) == list(alone.texts)


def _by_hand(
    networks: Any, weights: Any, tokenizer: Any, prompt: list[int], new: int
) -> tuple[str, list[float]]:
    ids, logs = list(prompt), []
    stops = {tokenizer.eos_token_id, networks[0].plain.generation_config.eos_token_id}
    with torch.inference_mode():
        for _ in range(new):
            at = torch.tensor([ids])
            mean = sum(
                w * one.plain(input_ids=at).logits[0, -1].double().softmax(-1)
                for w, one in zip(weights, networks, strict=True)
            )
            token = int(mean.argmax())
            ids.append(token)
            logs.append(float(mean[token].log()))
            if token in stops:
                break
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip(), logs
