"""Adapters on models that write text: merged is unmerged, plain PEFT gives the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from holdfast.core.errors import RecipeError
from holdfast.models.adapters.adapter import attach
from holdfast.models.adapters.save import load_adapted, save_model
from holdfast.models.base import AdapterSpec

DECODER: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
PAIR: dict[str, Any] = {
    "vocab_size": 30,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 3,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "qwen2": DECODER,
    "gpt2": {"vocab_size": 30, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "mixtral": DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "t5": {
        "vocab_size": 30,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
    },
    "bart": PAIR,
}
IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 8, 7, 6, 3]])


class Network(nn.Module):
    """What the loaders of text writers give, as far as an adapter sees it."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.plain = plain


class NoTokenizer:
    def save_pretrained(self, folder: Path) -> None: ...


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def auto(name: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if name in ("t5", "bart") else AutoModelForCausalLM


def write(name: str, folder: Path) -> Path:
    from transformers import AutoConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = auto(name).from_config(AutoConfig.for_model(name, **MODELS[name]))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return folder


def adapted(name: str, folder: Path, spec: AdapterSpec) -> Network:
    network = Network(auto(name).from_pretrained(folder)).eval()
    attach(network, spec, base=str(folder))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


def logits(model: Any, name: str) -> torch.Tensor:
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    if name in ("t5", "bart"):
        inputs["decoder_input_ids"] = IDS
    with torch.no_grad():
        out: torch.Tensor = model(**inputs).logits[:, -IDS.shape[1] :]
    return out


def far(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3"])
def test_plain_peft_and_the_merged_model_give_the_same_logits(
    name: str, kind: str, tmp_path: Path
) -> None:
    folder = write(name, tmp_path / "base")
    for merge in (False, True):
        network = adapted(name, folder, AdapterSpec(kind, merge=merge))
        save_model(network.plain, network.adapter, tmp_path / f"{merge}", NoTokenizer())
        make = auto(name)
        again = (
            make.from_pretrained(tmp_path / f"{merge}")
            if merge
            else load_adapted(tmp_path / f"{merge}", make)
        )
        assert far(logits(again.eval(), name), logits(network.plain, name)) <= 1e-4


@pytest.mark.slow
def test_only_the_adapter_learns_and_three_steps_move_it_alone(name: str, tmp_path: Path) -> None:
    network = Network(auto(name).from_pretrained(write(name, tmp_path / "base"))).train()
    attach(network, AdapterSpec("lora"), base="base")
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    learns = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        network.plain(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all("lora_" in n for n in moved)


def test_experts_and_their_router_are_adapted(tmp_path: Path) -> None:
    network = adapted("mixtral", write("mixtral", tmp_path / "base"), AdapterSpec("lora"))
    config: Any = network.adapter.config  # type: ignore[union-attr]
    assert set(config.target_parameters) == {
        "mlp.gate.weight",
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
    }
    with pytest.raises(RecipeError, match="experts"):
        adapted("mixtral", tmp_path / "base", AdapterSpec("lora", dropout=0.1))


def test_a_base_of_the_hub_is_read_from_the_folder_of_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, PEFT and Transformers would ask the hub, which may convert its weights."""
    base = write("llama", tmp_path / "base")
    network = adapted("llama", base, AdapterSpec("lora"))
    save_model(network.plain, network.adapter, tmp_path / "out", NoTokenizer())
    path = tmp_path / "out" / "adapter_config.json"
    config = json.loads(path.read_text())
    named = config | {"base_model_name_or_path": "owner/name", "revision": "abc"}
    path.write_text(json.dumps(named))
    folders = {("owner/name", "abc"): base}
    monkeypatch.setattr("holdfast.models.loading.source.find_folder", lambda *given: folders[given])
    again = load_adapted(tmp_path / "out", auto("llama"))
    assert far(logits(again, "llama"), logits(network.plain, "llama")) <= 1e-4


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # PEFT's
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_prompt_gives_the_logits_and_the_texts_that_peft_gives(name: str, tmp_path: Path) -> None:
    network = adapted(name, write(name, tmp_path / "base"), AdapterSpec("prompt", rank=5))
    save_model(network.plain, network.adapter, tmp_path / "out", NoTokenizer())
    again = load_adapted(tmp_path / "out", auto(name))
    assert logits(network.plain, name).shape[1] == IDS.shape[1]
    assert far(logits(again, name), logits(network.plain, name)) <= 1e-4
    settings = {
        "attention_mask": torch.ones_like(IDS),
        "max_new_tokens": 6,
        "do_sample": False,
        "pad_token_id": 0,
    }
    ours = network.plain.generate(IDS, **settings)
    assert torch.equal(ours, again.generate(input_ids=IDS, **settings))
