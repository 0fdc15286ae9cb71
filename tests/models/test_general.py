"""Classifiers and taggers of twenty architectures that ``families.py`` does not list: tiny ones,
drawn at random, each through loading, a step of training, saving, and Transformers alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.core.errors import ModelError
from holdfast.models.base import AdapterSpec
from holdfast.models.encoders.checkpoint import load_saved, load_saved_tagger
from holdfast.models.encoders.classifier import load_classifier, load_tagger
from holdfast.models.encoders.general import GeneralClassifier
from holdfast.models.layers import freeze
from holdfast.models.loading.options import LoadOptions

CLASSES = ("bad", "fine", "good")
TEXTS = ["the film was good", "the book is very very long , dull and bad", "a", "it is a fine film"]
USUAL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
DECODER = {"num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 3,
    "eos_token_id": 3,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bart": BART,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "convbert": {"embedding_size": 32},
    "ernie": {},
    "eurobert": DECODER,
    "flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
    "fnet": {"tpu_short_seq_length": 64},
    "funnel": {
        "architectures": ["FunnelModel"],
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 48,
        "block_sizes": [1, 1],
        "block_repeats": [1, 1],
        "num_decoder_layers": 1,
    },
    "gpt2": GPT,
    "gpt_neox": {},
    "layoutlm": {},
    "llama": DECODER,
    "longformer": {"attention_window": 8, "max_position_embeddings": 80},
    "mbart": BART,
    "megatron-bert": {},
    "mobilebert": {
        "embedding_size": 32,
        "intra_bottleneck_size": 32,
        "true_hidden_size": 32,
        "classifier_activation": False,
    },
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48},
    "qwen2": DECODER,
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "roformer": {"embedding_size": 32},
    "squeezebert": {"embedding_size": 32},
    "t5": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    },
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
}
MIX_PADDING = {"convbert", "fnet", "mobilebert", "xlnet"}
WITHOUT_BIAS = {"bloom", "gpt2", "gpt_neox", "llama", "opt", "qwen2"}


def tiny_tokenizer(**settings: Any) -> Any:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.tiny_tokenizer(**settings)


def folder_of(kind: str, folder: Path) -> Path:
    """A published model of this architecture, without a head."""
    from transformers import AutoConfig, AutoModel

    given = ARCHITECTURES[kind]
    usual = {} if {"d_model", "n_embd", "n_layer", "emb_dim"} & set(given) else USUAL
    tokens = {"vocab_size": 30, "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModel.from_config(AutoConfig.for_model(kind, **(tokens | usual | given)))
        with torch.no_grad():
            for parameter in model.parameters():
                # Large, so that texts give unlike logits and a wrong pooling would show.
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tiny_tokenizer(eos_token="[SEP]").save_pretrained(folder)
    return folder


def batch_of(loaded: Any) -> dict[str, torch.Tensor]:
    tokens = loaded.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    return dict(tokens)


@pytest.fixture(params=ARCHITECTURES, scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = folder_of(request.param, tmp_path_factory.mktemp("general") / request.param)
    return load_classifier(str(folder), CLASSES)


def test_every_weight_is_in_one_layer_and_the_blocks_are_found(loaded: Any) -> None:
    network = loaded.network
    assert isinstance(network, GeneralClassifier)
    layers = network.layers()
    held = [id(p) for layer in layers for p in layer.parameters()]
    assert sorted(held) == sorted(id(p) for p in network.parameters())
    names = [layer.name for layer in layers]
    assert names[0] == "embeddings"
    assert names[-1] == "head"
    assert sum(name.startswith("block.") for name in names) >= 2


def test_its_features_are_what_its_own_last_layer_reads(loaded: Any, tmp_path: Path) -> None:
    """Saved and loaded by Transformers alone, with a temperature, it gives these logits."""
    network = loaded.network
    head = network.head
    assert (head.bias is None) == (network.config.model_type in WITHOUT_BIAS)
    batch = batch_of(loaded)
    with torch.no_grad():
        logits, features = network(**batch), network.features(**batch)
    assert features.shape == (len(TEXTS), head.in_features)
    assert torch.allclose(torch.nn.functional.linear(features, head.weight, head.bias), logits)
    network.save(tmp_path / "model", loaded.tokenizer, temperature=2.0)
    saved = load_saved(tmp_path / "model")
    assert saved.classes == CLASSES
    again = saved.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        plain = saved.network(**again)
    assert torch.allclose(plain, logits / 2, atol=1e-4 * float(logits.abs().max()))
    # Texts that differ give logits that differ.
    assert float(plain.std(dim=0).min()) > 1e-4


def test_padding_changes_nothing_or_it_is_reported(loaded: Any) -> None:
    network = loaded.network
    alone = loaded.tokenizer(TEXTS[:1], return_tensors="pt")
    with torch.no_grad():
        one, padded = network(**alone), network(**batch_of(loaded))[:1]
    reported = [d for d in loaded.decisions if d.what == "padding"]
    # They mix neighbours or padding in, or read the last place, in Transformers too.
    assert bool(reported) == (network.config.model_type in MIX_PADDING)
    if not reported:
        assert torch.allclose(one, padded, rtol=1e-3, atol=1e-4)


def test_a_step_trains_all_but_the_frozen_layers(loaded: Any) -> None:
    network = loaded.network
    names = [layer.name for layer in network.layers()]
    freeze(network, 2)
    batch = batch_of(loaded)
    loss = torch.nn.functional.cross_entropy(network(**batch), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    moved = {
        layer.name
        for layer in network.layers()
        if any(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())
    }
    freeze(network, None)
    network.zero_grad()
    assert names[0] not in moved
    assert names[1] not in moved
    assert {names[-1], *(n for n in names[2:] if n.startswith("block."))} <= moved


def test_its_vectors_are_means_over_real_tokens(loaded: Any) -> None:
    network, batch = loaded.network, batch_of(loaded)
    with torch.no_grad():
        means, states = network.embed(**batch), network.hidden(**batch)
        depths = network.embed_at([0.0, 1.0], **batch)
    mask = batch["attention_mask"].unsqueeze(-1)
    if states.shape[1] != mask.shape[1]:
        mask = torch.ones_like(states[..., :1])
    assert torch.allclose(means, (states * mask).sum(1) / mask.sum(1), atol=1e-5)
    assert torch.allclose(depths[:, 1], means, atol=1e-5)


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("kind", ["llama", "bart", "ernie"])
def test_with_an_adapter_the_saved_folder_gives_its_logits(
    kind: str, merge: bool, tmp_path: Path
) -> None:
    """Bart's last layer stands in a part with another layer, which is saved with it."""
    spec = AdapterSpec("lora", rank=2, merge=merge)
    folder = folder_of(kind, tmp_path / kind)
    loaded = load_classifier(str(folder), CLASSES, LoadOptions(adapter=spec))
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
        logits = loaded.network(**batch_of(loaded))
    loaded.network.save(tmp_path / "model", loaded.tokenizer)
    saved = load_saved(tmp_path / "model")
    again = saved.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        plain = saved.network(**again)
    assert torch.allclose(plain, logits, atol=1e-4 * float(logits.abs().max()))


@pytest.mark.parametrize("kind", ["llama", "t5", "xlnet", "squeezebert"])
def test_a_tagger_gives_its_own_logits(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path / kind)
    loaded = load_tagger(str(folder), CLASSES)
    batch = batch_of(loaded)
    with torch.no_grad():
        logits = loaded.network(**batch)
    assert logits.shape == (*batch["input_ids"].shape, len(CLASSES))
    loaded.network.save(tmp_path / "model", loaded.tokenizer)
    saved = load_saved_tagger(tmp_path / "model")
    again = saved.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        plain = saved.network(**again)
    real = batch["attention_mask"].bool()
    assert torch.allclose(plain[real], logits[real], atol=1e-4 * float(logits.abs().max()))


def test_what_has_no_class_in_transformers_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model("vit").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no class for"):
        load_classifier(str(tmp_path), CLASSES)


def test_a_last_layer_without_a_bias_cannot_predict_numbers(tmp_path: Path) -> None:
    folder = folder_of("llama", tmp_path / "llama")
    with pytest.raises(ModelError, match="no bias"):
        load_classifier(str(folder), ("price",), problem="regression")
