"""Loading, saving and reloading a causal language model; pad tokens; what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from holdfast.core.errors import ModelError
from holdfast.models.generators.causal import load_causal, load_saved_causal
from holdfast.models.layers import freeze, parameter_groups
from holdfast.models.loading.quiet import quiet_transformers


@pytest.fixture
def copy(tiny_llama: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_llama, folder)
    return folder


def test_a_saved_folder_gives_identical_logits_in_plain_transformers(
    tiny_llama: Path, tmp_path: Path
) -> None:
    loaded = load_causal(str(tiny_llama))
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    with quiet_transformers():
        plain: Any = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = torch.tensor([tokenizer("Once upon a time")["input_ids"]])
    with torch.no_grad():
        ours, theirs = loaded.network(input_ids=ids), plain.eval()(input_ids=ids).logits
    assert torch.equal(ours, theirs)
    again, _ = load_saved_causal(tmp_path / "out")
    assert torch.equal(again(input_ids=ids), theirs)


def test_a_missing_pad_token_is_one_that_is_there_and_nothing_is_resized(tiny_llama: Path) -> None:
    loaded = load_causal(str(tiny_llama))
    assert hf.AutoTokenizer.from_pretrained(tiny_llama).pad_token is None
    assert loaded.tokenizer.pad_token == "</s>"
    assert len(loaded.tokenizer) == loaded.network.word_embeddings.weight.shape[0] == 258
    reasons = {decision.what: decision.chosen for decision in loaded.decisions}
    assert reasons["padding token"] == "</s>"


def test_a_spare_token_of_the_vocabulary_is_the_better_pad(copy: Path) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(copy)
    tokenizer.backend_tokenizer.add_special_tokens(["<|finetune_right_pad_id|>"])
    config = json.loads((copy / "config.json").read_text())
    tokenizer.save_pretrained(copy)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**config | {"vocab_size": 260}))
        model.save_pretrained(copy)
    assert load_causal(str(copy)).tokenizer.pad_token == "<|finetune_right_pad_id|>"


def test_freezing_and_rates_by_layer(tiny_llama: Path) -> None:
    network: Any = load_causal(str(tiny_llama)).network
    freeze(network, 2)
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learning
    assert not any(".embed_tokens." in name or ".layers.0." in name for name in learning)
    freeze(network, None)
    groups = parameter_groups(network, 1.0, layer_decay=0.5)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["head"] == 1.0
    assert rates["block.1"] == 0.5
    assert rates["embeddings"] == 0.125
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_shared_embeddings_are_counted_and_frozen_once(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text()) | {"tie_word_embeddings": True}
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        hf.LlamaForCausalLM(hf.LlamaConfig(**config)).save_pretrained(copy)
    network: Any = load_causal(str(copy)).network
    assert [list(layer.parameters()) for layer in network.layers()][-1] == []
    freeze(network, 1)
    assert not network.head.weight.requires_grad
    assert any(p.requires_grad for p in network.parameters())


def test_an_encoder_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="not a causal language model"):
        load_causal(str(tiny_model))
    with pytest.raises(ModelError, match="cannot generate text"):
        load_causal("embedded")


def test_weights_that_are_not_all_there_are_refused(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(copy / "model.safetensors")
    del state["lm_head.weight"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of the weights"):
        load_causal(str(copy))
