"""Which attention a run on a processor trains with, by what its model and rows are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from holdfast.core.decisions import record_decisions
from holdfast.fits.compose import choose_attention
from holdfast.models.generators.causal import CausalNetwork
from holdfast.models.generators.seq2seq_network import Seq2SeqNetwork


def t5() -> Seq2SeqNetwork:
    config = hf.T5Config(
        vocab_size=20,
        d_model=8,
        d_kv=4,
        d_ff=8,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    return Seq2SeqNetwork(hf.T5ForConditionalGeneration(config))


def llama() -> CausalNetwork:
    config = hf.LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    return CausalNetwork(hf.LlamaForCausalLM(config))


def chosen(network: Any, longest: int, packed: bool = False) -> list[str]:
    rows = SimpleNamespace(lengths=np.array([3, longest]))
    with record_decisions() as decisions:
        choose_attention(network, rows, packed)
    assert (network.config._attn_implementation == "eager") == bool(decisions)
    return [decision.because for decision in decisions]


pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the choice on a processor")


@pytest.mark.parametrize("longest", [100, 1000])
def test_learnt_positions_are_trained_by_plain_attention_at_any_length(longest: int) -> None:
    (because,) = chosen(t5(), longest)
    assert "relative positions are trained" in because


def test_frozen_positions_leave_the_fused_one_to_long_rows() -> None:
    network = t5()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("relative_attention_bias" not in name)
    assert chosen(network, 1000) == []
    assert "short rows" in chosen(network, 100)[0]


def test_a_decoder_needs_plain_attention_only_for_short_packed_lines() -> None:
    assert chosen(llama(), 100) == []
    assert chosen(llama(), 1000, packed=True) == []
    assert "short rows" in chosen(llama(), 100, packed=True)[0]
