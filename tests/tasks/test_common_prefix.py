"""Texts that begin alike are computed behind their beginning, which passes through the model once:
the losses and texts are those of plain Transformers on the full texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from holdfast.models.generators import causal
from holdfast.models.generators.causal import CausalNetwork, load_causal
from holdfast.tasks.generation.token_scores import measure_saved
from holdfast.tasks.lm.generation import write_answers
from holdfast.tasks.lm.losses import CausalLM, EncodedTokens, join_examples

BEGINNING = [int(one) for one in np.random.default_rng(0).integers(5, 250, 80)]
RESTS = [[11, 12, 13, 14, 15], [21, 22, 23], [31, 32, 33, 34, 35, 36, 37, 38]]
LINES = [[*BEGINNING, *rest] for rest in RESTS]


@pytest.fixture(params=["llama", "gpt2"])
def network(request: pytest.FixtureRequest, tiny_llama: Path) -> CausalNetwork:
    if request.param == "llama":
        return load_causal(str(tiny_llama)).network
    config = hf.GPT2Config(vocab_size=258, n_positions=256, n_embd=32, n_layer=2, n_head=2)
    torch.manual_seed(0)
    return CausalNetwork(hf.GPT2LMHeadModel(config)).eval()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lines were computed behind a beginning, by batch."""
    counts: list[int] = []
    plain = causal.PrefixKeyValues.for_batch

    def counted(self: Any, count: int) -> Any:
        counts.append(count)
        return plain(self, count)

    monkeypatch.setattr(causal.PrefixKeyValues, "for_batch", counted)
    return counts


def examples() -> EncodedTokens:
    """Of each line the last two tokens are targets."""
    made = [
        (np.asarray(line, np.int32), np.arange(len(line)) >= len(line) - 2, at)
        for at, line in enumerate(LINES)
    ]
    return join_examples(made, np.arange(len(LINES)), np.zeros(len(LINES), bool))


def test_losses_behind_the_beginning_are_those_of_the_lines(
    network: CausalNetwork, passes: list[int]
) -> None:
    rows, device = examples(), torch.device("cpu")
    assert rows.common_prefix.tolist() == BEGINNING
    assert network.supports_key_value_cache
    passes.clear()
    with network.with_prefix(BEGINNING):
        losses, kept = measure_saved(network, CausalLM(), rows.without_prefix(80), device)
    assert sum(passes) == len(LINES)
    expected = []
    for line in LINES:
        ids = torch.tensor([line])
        logits = network.plain(input_ids=ids).logits[0, -3:-1].double()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, -2:])
        expected.append(loss.item())
    assert losses == pytest.approx(expected, abs=1e-5)
    assert kept[:, 0].tolist() == [2, 2, 2]
    # Outside it a line is a line again.
    after, _ = measure_saved(network, CausalLM(), rows, device)
    assert after == pytest.approx(expected, abs=1e-5)


def test_the_first_target_is_predicted_by_a_token_of_the_line() -> None:
    line = np.arange(100, dtype=np.int32)
    made = [(line, np.arange(100) >= 70, at) for at in range(2)]
    rows = join_examples(made, np.arange(2), np.zeros(2, bool))
    assert len(rows.common_prefix) == 69


def test_texts_behind_the_beginning_are_those_of_the_prompts(
    network: CausalNetwork, passes: list[int], tiny_llama: Path
) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.pad_token_id = 1
    made = write_answers(network, tokenizer, LINES, new_tokens=12, chat=False)
    assert passes[-1] == len(LINES)
    for line, text in zip(LINES, made.texts, strict=True):
        ids = torch.tensor([line])
        out = network.plain.generate(
            input_ids=ids, max_new_tokens=12, do_sample=False, pad_token_id=1, eos_token_id=1
        )
        assert text == tokenizer.decode(out[0, len(line) :], skip_special_tokens=True).strip()


def test_an_architecture_without_such_a_cache_is_computed_in_full() -> None:
    config = hf.MambaConfig(vocab_size=258, hidden_size=32, num_hidden_layers=2, state_size=4)
    torch.manual_seed(0)
    network = CausalNetwork(hf.MambaForCausalLM(config)).eval()
    assert not network.supports_key_value_cache
