"""Tiny encoder-decoders of every family: layers, tokens, saving, and the plain model as oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.errors import ModelError, RecipeError
from holdfast.models.generators.seq2seq import end_token, limit_by_targets, load_seq2seq
from holdfast.models.generators.seq2seq_network import Seq2SeqNetwork, load_saved_seq2seq
from holdfast.models.layers import freeze, parameter_groups
from holdfast.models.loading.options import LoadOptions
from holdfast.tasks.seq2seq.losses import SequenceToSequence

WORDS = list("abcdefghijklmnopqrst")
SPECIAL = ["<pad>", "</s>", "<unk>"]
BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 1,
}
T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "t5": T5,
    "mt5": T5 | {"feed_forward_proj": "gated-gelu"},
    "bart": BART,
    "pegasus": BART | {"decoder_start_token_id": 0},
    "marian": BART | {"decoder_start_token_id": 0},
}


def word_tokenizer(end: bool = True, **more: Any) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if end:
        inner.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **more
    )


def write_model(folder: Path, family: str, tokenizer: Any = None, **changes: Any) -> Path:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    settings = {"vocab_size": len(SPECIAL + WORDS), "dropout": 0.0, "dropout_rate": 0.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = AutoConfig.for_model(family, **(settings | FAMILIES[family] | changes))
        model = AutoModelForSeq2SeqLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad and parameter.ndim > 1:
                    parameter.normal_(std=0.2)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def loaded(family: str, tmp_path: Path) -> Any:
    return load_seq2seq(str(write_model(tmp_path / family, family)))


def batch() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[3, 4, 5, 6, 1], [7, 8, 1, 0, 0], [9, 10, 11, 1, 0]])
    labels = torch.tensor([[5, 6, 1, -100], [8, 1, -100, -100], [11, 12, 13, 1]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def laid_out(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch as the task makes it: with the places of its targets."""
    given = rows["labels"] != -100
    return {**rows, "where": given.flatten().nonzero()[:, 0], "counts": given.sum(dim=1)}


def gradients(module: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_loss_and_gradients_are_the_plain_models_own(loaded: Any) -> None:
    """The token mean over a batch, by Σ weight · loss ÷ Σ weight as the loop has it."""
    task, rows, plain = SequenceToSequence(0), batch(), loaded.network.plain
    expected = plain(**rows).loss
    expected.backward()
    theirs = gradients(plain)
    plain.zero_grad()
    rows = laid_out(rows)
    losses = task.losses(task.forward(loaded.network, rows), rows)
    weights = (rows["labels"] != -100).sum(dim=1).float()
    ours = (losses * weights / weights.sum()).sum()
    ours.backward()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    mine = gradients(plain)
    assert mine.keys() == theirs.keys()
    assert len(mine) > 20
    for name, gradient in theirs.items():
        assert torch.allclose(mine[name], gradient, rtol=1e-3, atol=1e-6), name


def test_accumulation_equals_a_large_batch(loaded: Any) -> None:
    task, rows, plain = SequenceToSequence(0), laid_out(batch()), loaded.network.plain
    weights = (rows["labels"] != -100).sum(dim=1).float()
    losses = task.losses(task.forward(loaded.network, rows), rows)
    (losses * weights / weights.sum()).sum().backward()
    whole = gradients(plain)
    plain.zero_grad()
    for i in range(3):
        part = laid_out({name: value[i : i + 1] for name, value in batch().items()})
        one = task.losses(task.forward(loaded.network, part), part)
        (one * weights[i] / weights.sum()).sum().backward()
    for name, gradient in gradients(plain).items():
        assert torch.allclose(gradient, whole[name], rtol=1e-3, atol=1e-6), name


def test_logits_of_targets_alone_are_those_of_all(loaded: Any) -> None:
    """Every family here takes its states one by one, so padding never reaches the last layer."""
    network, rows = loaded.network, laid_out(batch())
    seen: list[int] = []
    hook = network.head.register_forward_hook(lambda _, given, out: seen.append(out.shape[1]))
    picked = SequenceToSequence(0).forward(network, rows)
    hook.remove()
    assert network.direct
    assert seen == [9]
    whole = network(**batch()).flatten(0, 1)[rows["where"]]
    assert torch.allclose(picked, whole, rtol=1e-4, atol=1e-5)


def test_a_last_layer_that_looks_at_places_gets_all_of_them(loaded: Any) -> None:
    """What follows the last layer may depend on the place; then nothing is left out."""
    network = loaded.network
    hook = network.head.register_forward_hook(
        lambda _, given, out: out * torch.arange(1, out.shape[1] + 1)[:, None]
    )
    again, rows = Seq2SeqNetwork(network.plain), laid_out(batch())
    assert not again.direct
    whole = again(**batch()).flatten(0, 1)[rows["where"]]
    picked = SequenceToSequence(0).forward(again, rows)
    hook.remove()
    assert torch.equal(picked, whole)


def test_every_weight_is_in_exactly_one_layer(loaded: Any, family: str) -> None:
    layers = loaded.network.layers()
    names = [layer.name for layer in layers]
    assert names == ["embeddings", "encoder.0", "encoder.1", "decoder.0", "decoder.1", "head"]
    held = [id(p) for layer in layers for p in layer.parameters()]
    assert sorted(held) == sorted(id(p) for p in loaded.network.parameters())
    groups = parameter_groups(loaded.network, 1e-3, layer_decay=0.5)
    rates = {g["name"].partition(" ")[0]: g["lr"] for g in groups}
    assert rates["decoder.1"] > rates["decoder.0"] > rates["encoder.1"] > rates["embeddings"]


def test_freezing_the_encoder_leaves_the_decoder_to_learn(loaded: Any) -> None:
    freeze(loaded.network, 3)
    learns = {n for n, p in loaded.network.named_parameters() if p.requires_grad}
    assert learns
    assert all("decoder" in name for name in learns)


@pytest.mark.parametrize("kind", ["pegasus", "marian"])
def test_sinusoidal_positions_never_learn(kind: str, tmp_path: Path) -> None:
    network = load_seq2seq(str(write_model(tmp_path / kind, kind))).network
    freeze(network, None)
    learns = {n for n, p in network.named_parameters() if p.requires_grad}
    assert learns
    assert not any("embed_positions" in name for name in learns)


def test_the_saved_folder_is_the_same_model_in_plain_transformers(
    loaded: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    with torch.no_grad():
        loaded.network.word_embeddings.weight.add_(0.1)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved").eval()
    rows = batch()
    with torch.inference_mode():
        assert torch.equal(plain(**rows).logits, loaded.network(**rows))
    again, tokenizer = load_saved_seq2seq(tmp_path / "saved")
    with torch.inference_mode():
        assert torch.equal(again(**rows), loaded.network(**rows))
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("a b")["input_ids"] == [3, 4, 1]
    assert set(tokenizer("a")) == {"input_ids", "attention_mask"}


def test_the_target_limit_is_the_longest_training_target(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "t5", "t5"))
    loaded = load_seq2seq(folder)
    assert limit_by_targets(loaded, np.array([10, 3, 10])).max_target_length == 16
    assert (
        limit_by_targets(loaded, np.array([901])).max_target_length
        == loaded.max_target_length
        == 256
    )
    asked = load_seq2seq(folder, max_target_length=5)
    assert limit_by_targets(asked, np.array([10])).settings == {"max_target_length": 5}


def test_a_model_without_relative_positions_has_its_limit(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "bart", "bart"))
    assert load_seq2seq(folder).max_length == 40
    with pytest.raises(RecipeError, match="40 positions"):
        load_seq2seq(folder, LoadOptions(max_length=41))


def test_a_tokenizer_of_another_kind_sets_the_end_of_a_text(tmp_path: Path) -> None:
    """As BERT's: its texts end with another token than the configuration says."""
    folder = write_model(tmp_path / "t5", "t5", eos_token_id=9, decoder_start_token_id=None)
    loaded = load_seq2seq(str(folder))
    assert loaded.network.plain.generation_config.eos_token_id == 1
    assert loaded.network.config.decoder_start_token_id == 0
    assert {"eos token", "decoder start token"} <= {d.what for d in loaded.decisions}


def test_inputs_that_the_model_does_not_take_are_dropped(tmp_path: Path) -> None:
    network = load_seq2seq(str(write_model(tmp_path / "t5", "t5"))).network
    rows = batch()
    with torch.inference_mode():
        extra = network(**rows, token_type_ids=torch.ones_like(rows["input_ids"]))
        assert torch.equal(extra, network(**rows))


def test_a_tokenizer_that_adds_no_end_has_one_all_the_same() -> None:
    assert end_token(word_tokenizer(end=False)) == 1
    bare = word_tokenizer(end=False)
    bare.eos_token = None
    with pytest.raises(ModelError, match="learn to stop"):
        end_token(bare)


def test_an_encoder_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="not an encoder-decoder"):
        load_seq2seq(str(tiny_model))
    with pytest.raises(ModelError, match="cannot generate text"):
        load_seq2seq("embedded")


def test_unlike_texts_give_unlike_logits(loaded: Any) -> None:
    """A network that ignored its source would pass everything above."""
    assert isinstance(loaded.network, Seq2SeqNetwork)
    rows = batch()
    with torch.inference_mode():
        one = loaded.network(**rows)
        turned = {name: rows[name].flip(0) for name in ("input_ids", "attention_mask")}
        other = loaded.network(**(rows | turned))
    assert float(np.abs((one - other).numpy()).max()) > 1e-3
