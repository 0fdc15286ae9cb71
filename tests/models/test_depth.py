"""A network with fewer blocks is the plain model of so many, saved and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.utils import logging

from holdfast.core.errors import RecipeError
from holdfast.models.depth import select_blocks, shorten, stated_depth
from holdfast.models.encoders.classifier import assemble
from holdfast.models.encoders.families import FAMILIES
from holdfast.models.encoders.network import EncoderClassifier, plain_model
from holdfast.models.generators.causal import CausalNetwork
from holdfast.models.generators.seq2seq_network import Seq2SeqNetwork
from holdfast.models.vision.families import VISION_FAMILIES
from holdfast.models.vision.vision import VisionClassifier

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "vocab_size": 60,
    "max_position_embeddings": 40,
}
SIDES: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 5,
    "decoder_layers": 4,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
IDS = torch.arange(5, 23).reshape(2, 9)
MASK = torch.ones_like(IDS)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def of(model_type: str, **settings: Any) -> Any:
    given = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | settings
    return transformers.AutoConfig.for_model(model_type, **given)


def encoder(model_type: str) -> EncoderClassifier:
    small = {k: v for k, v in SMALL.items() if k != "layer_types"}
    if model_type == "distilbert":
        small = {"dim": 32, "n_heads": 2, "hidden_dim": 48, "n_layers": 5, "vocab_size": 60}
    more: dict[str, Any] = {}
    if model_type == "modernbert":
        kinds = ["full_attention", "sliding_attention"]
        more = {"layer_types": [*kinds, kinds[1], *kinds], "local_attention": 4}
        more |= {"cls_token_id": 1, "sep_token_id": 2}
    config = of(model_type, num_labels=3, **small, **more)
    torch.manual_seed(0)
    plain = transformers.AutoModelForSequenceClassification.from_config(config)
    return assemble(plain, FAMILIES[model_type], ("a", "b", "c"), "own", 0).eval()


def test_spread_blocks_reach_from_the_first_to_the_last() -> None:
    assert select_blocks(6, 3, "spread") == (0, 2, 5)
    assert select_blocks(12, 6, "spread") == (0, 2, 4, 7, 9, 11)
    assert select_blocks(6, 3, "first") == (0, 1, 2)
    for kept in ("spread", "first"):
        for there in range(1, 30):
            for count in range(1, there + 1):
                found = select_blocks(there, count, kept)  # type: ignore[arg-type]
                assert len(set(found)) == count
                assert found[0] == 0
                assert max(found) < there


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "deberta-v2", "modernbert"])
def test_a_shorter_encoder_saves_as_a_plain_one(model_type: str, tmp_path: Path) -> None:
    network = encoder(model_type)
    blocks = [layer for layer in network.layers() if layer.name.startswith("block")]
    stay = [next(iter(blocks[i].parameters())).clone() for i in (0, 2, 4)]
    shorten(network, 3, "spread")
    left = [layer for layer in network.layers() if layer.name.startswith("block")]
    for before, layer in zip(stay, left, strict=True):
        torch.testing.assert_close(next(iter(layer.parameters())), before, rtol=0, atol=0)
    plain_model(network, 1.0).save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        mine = network(input_ids=IDS, attention_mask=MASK)
        theirs = again(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_shorter_decoder_writes_as_the_one_that_is_loaded(
    model_type: str, tmp_path: Path
) -> None:
    small = SMALL
    if model_type == "gpt2":
        small = {"n_embd": 32, "n_head": 2, "n_layer": 5, "vocab_size": 60, "n_positions": 40}
    torch.manual_seed(0)
    plain = transformers.AutoModelForCausalLM.from_config(of(model_type, **small))
    network = CausalNetwork(plain).eval()
    shorten(network, 2, "first")
    assert len(network.layers()) == 4
    network.plain.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        torch.testing.assert_close(network(input_ids=IDS), again(input_ids=IDS).logits)
        texts = [
            one.generate(input_ids=IDS, attention_mask=MASK, max_new_tokens=6, do_sample=False)
            for one in (network.plain, again)
        ]
    assert torch.equal(*texts)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_both_sides_of_an_encoder_decoder_are_shorter(model_type: str, tmp_path: Path) -> None:
    more = {"vocab_size": 60, "decoder_start_token_id": 0}
    if model_type == "t5":
        more |= {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 48, "num_layers": 5}
        more |= {"num_decoder_layers": 4}
    else:
        more |= SIDES | {"max_position_embeddings": 40}
    torch.manual_seed(0)
    plain = transformers.AutoModelForSeq2SeqLM.from_config(of(model_type, **more))
    network = Seq2SeqNetwork(plain).eval()
    told = shorten(network, 3, "spread")
    assert told.chosen == "encoder 1, 3, 5 of 5; decoder 1, 3, 4 of 4"
    assert len(network.layers()) == 8
    network.plain.save_pretrained(tmp_path)
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        mine = network(labels=IDS, input_ids=IDS, attention_mask=MASK)
        theirs = again(input_ids=IDS, attention_mask=MASK, labels=IDS).logits
        texts = [
            one.generate(input_ids=IDS, attention_mask=MASK, max_new_tokens=6, do_sample=False)
            for one in (network.plain, again)
        ]
    torch.testing.assert_close(mine, theirs)
    assert torch.equal(*texts)


def pictures(model_type: str, **settings: Any) -> VisionClassifier:
    plain = transformers.AutoModelForImageClassification.from_config(
        transformers.AutoConfig.for_model(model_type, **settings)
    )
    return VisionClassifier(plain, VISION_FAMILIES[model_type], ("a", "b")).eval()


def test_a_model_of_pictures_is_shorter_where_its_blocks_are_alike() -> None:
    small = {k: v for k, v in SMALL.items() if k not in ("vocab_size", "max_position_embeddings")}
    network = pictures("vit", **small, image_size=16, patch_size=8)
    before = network(pixel_values=torch.ones(1, 3, 16, 16))
    shorten(network, 2, "spread")
    assert (network.config.num_hidden_layers, len(network.layers())) == (2, 4)
    assert not torch.allclose(network(pixel_values=torch.ones(1, 3, 16, 16)), before)
    staged = pictures("resnet", depths=[1, 1], hidden_sizes=[8, 8], embedding_size=8)
    with pytest.raises(RecipeError, match="stages of different widths"):
        shorten(staged, 1, "spread")


@pytest.mark.parametrize("count", [0, 6])
def test_no_block_or_more_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(RecipeError, match="at most the 5 blocks"):
        shorten(encoder("bert"), count, "spread")


def test_shared_blocks_are_refused() -> None:
    with pytest.raises(RecipeError, match="share one set of weights"):
        shorten(encoder("albert"), 2, "spread")


def test_a_stated_depth_leaves_out_the_block_that_carries_the_mean() -> None:
    assert stated_depth({"num_hidden_layers": 7, "holdfast_mean_pooling": True}) == 6
    assert stated_depth({"n_layers": 6}) == 6
    assert stated_depth({}) is None
