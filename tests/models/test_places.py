"""Dropouts by place and blocks, in plain models of Transformers, against what their files say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from holdfast.core.decisions import record_decisions
from holdfast.core.errors import RecipeError
from holdfast.methods.dropout import DropoutRates, set_dropout_rates
from holdfast.models.dropouts import blocks_of, dropouts_by_place, word_tables

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
# Architecture: its configuration, and for each place the setting of the configuration that says its
# rate. Every rate is another one, so that a dropout in the wrong place is seen.
MODELS: dict[str, tuple[Any, dict[str, str]]] = {
    "bert": (
        transformers.BertConfig(
            **SMALL,
            intermediate_size=16,
            hidden_dropout_prob=0.11,
            attention_probs_dropout_prob=0.22,
        ),
        {"attention": "attention_probs_dropout_prob", "hidden": "hidden_dropout_prob"},
    ),
    "albert": (
        transformers.AlbertConfig(
            **SMALL,
            embedding_size=8,
            intermediate_size=16,
            hidden_dropout_prob=0.11,
            attention_probs_dropout_prob=0.22,
            classifier_dropout_prob=0.33,
        ),
        {"attention": "attention_probs_dropout_prob", "hidden": "hidden_dropout_prob"},
    ),
    "distilbert": (
        transformers.DistilBertConfig(
            vocab_size=50,
            dim=16,
            n_layers=2,
            n_heads=2,
            hidden_dim=16,
            dropout=0.11,
            attention_dropout=0.22,
        ),
        {"attention": "attention_dropout", "hidden": "dropout"},
    ),
    "gpt2": (
        transformers.GPT2Config(
            vocab_size=50,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=0.11,
            attn_pdrop=0.22,
            embd_pdrop=0.33,
        ),
        {"attention": "attn_pdrop", "hidden": "resid_pdrop", "embedding": "embd_pdrop"},
    ),
    "llama": (
        transformers.LlamaConfig(**SMALL, intermediate_size=16, attention_dropout=0.22),
        {"attention": "attention_dropout"},
    ),
    "vit": (
        transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=16,
            patch_size=8,
            hidden_dropout_prob=0.11,
            attention_probs_dropout_prob=0.22,
        ),
        {"attention": "attention_probs_dropout_prob", "hidden": "hidden_dropout_prob"},
    ),
    "modernbert": (
        transformers.ModernBertConfig(
            **SMALL,
            intermediate_size=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
            attention_dropout=0.22,
            mlp_dropout=0.11,
            embedding_dropout=0.33,
        ),
        {"embedding": "embedding_dropout"},
    ),
    "bart": (
        transformers.BartConfig(
            vocab_size=50,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            dropout=0.11,
            attention_dropout=0.22,
            activation_dropout=0.11,
        ),
        {"attention": "attention_dropout", "hidden": "dropout", "embedding": "dropout"},
    ),
    "t5": (
        transformers.T5Config(
            vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, dropout_rate=0.11
        ),
        {"attention": "dropout_rate", "hidden": "dropout_rate", "embedding": "dropout_rate"},
    ),
}


class Network(nn.Module):
    """A plain model as a network has it."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.backbone = plain
        self.dropout = nn.Dropout(0.44)
        self.head = nn.Linear(4, 2)

    @property
    def word_embeddings(self) -> Any:
        return self.backbone.get_input_embeddings()


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest) -> tuple[Network, Any, dict[str, str]]:
    config, places = MODELS[request.param]
    with torch.random.fork_rng(devices=[]):
        return Network(transformers.AutoModel.from_config(config)), config, places


def test_each_dropout_is_where_the_configuration_has_it(made: Any) -> None:
    network, config, places = made
    found: dict[str, set[float]] = {}
    for one in dropouts_by_place(network):
        found.setdefault(one.place, set()).add(round(one.rate, 4))
    assert found.pop("head") == {0.44}
    for place, key in places.items():
        assert found[place] - {0.0} == {getattr(config, key)}, place
    assert found.keys() <= {"embedding", "attention", "hidden"}


def test_the_blocks_are_all_of_them_in_order(made: Any) -> None:
    network, config, _ = made
    blocks = blocks_of(network)
    wanted = {"bart": 2, "t5": 4, "albert": 1}.get(config.model_type, 2)
    assert len(blocks) == wanted
    assert len({id(block) for block in blocks}) == wanted


def test_every_table_of_words_that_is_asked_is_found(made: Any) -> None:
    network, config, _ = made
    if config.model_type == "vit":
        return
    network = Network(transformers.AutoModel.from_config(config)).eval()
    asked: list[Any] = []
    for table in word_tables(network):
        table.register_forward_hook(lambda module, given, out: asked.append(module))
    ids = torch.arange(3, 7)[None]
    more = {"decoder_input_ids": ids} if config.is_encoder_decoder else {}
    with torch.no_grad():
        network.backbone(input_ids=ids, **more)
    assert len(asked) == (2 if config.is_encoder_decoder else 1)


def test_rates_are_set_by_place_and_nowhere_else(made: Any) -> None:
    network = Network(transformers.AutoModel.from_config(made[1]))
    before = {(id(d.module), d.attribute): d.rate for d in dropouts_by_place(network)}
    there = {one.place for one in dropouts_by_place(network)}
    rates = DropoutRates(attention=0.3) if "attention" in there else DropoutRates(head=0.3)
    with record_decisions() as log:
        set_dropout_rates(rates, SimpleNamespace(network=network))
    (told,) = log
    place = told.chosen.split()[0]
    for one in dropouts_by_place(network):
        wanted = 0.3 if one.place == place else before[id(one.module), one.attribute]
        assert one.rate == wanted
    assert "0.3 instead of" in told.chosen


def test_a_place_that_a_network_has_not_is_refused_with_those_it_has(made: Any) -> None:
    network, _, _ = made
    with pytest.raises(RecipeError, match="no dropout") as caught:
        set_dropout_rates(DropoutRates(adapter=0.1), SimpleNamespace(network=network))
    assert caught.value.what == "methods.dropout.adapter"
    assert "head" in caught.value.remedy
    with pytest.raises(RecipeError, match="sets no rate"):
        set_dropout_rates(DropoutRates(), SimpleNamespace(network=network))
