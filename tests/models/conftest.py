"""Tiny encoders of every architecture, randomly initialised, with a word tokenizer of their own.

Weights are drawn large (deviation 0.3), so that texts give unlike logits: with the usual
0.02 every text would give nearly the same, and a wrong pooling would pass.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SENTENCE = "the a film book was is very not good bad long dull fine of and in it . , ?"
WORDS = SENTENCE.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [
    "the film was good",
    "the book is very very long , dull and bad . it was not fine ?",
    "a",
    "is it not a fine book of the long and the dull ?",
]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
EXTRA: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "mpnet": {},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "albert": {"embedding_size": 16, "inner_group_num": 1, "num_hidden_groups": 1},
    "modernbert": {
        "global_attn_every_n_layers": 2,
        "local_attention": 8,
        "eos_token_id": 3,
        "bos_token_id": 2,
        "cls_token_id": 2,
        "sep_token_id": 3,
    },
}
MakeModel = Callable[..., Path]


def tiny_tokenizer(**settings: Any) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    # As all-MiniLM's file does: a limit that must not be obeyed in silence.
    inner.enable_truncation(6)
    inner.enable_padding(length=6, pad_id=0, pad_token="[PAD]")
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    tokens = {f"{key}_token": token for key, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **(tokens | settings))


def tiny_model(folder: Path, kind: str, **changes: Any) -> Any:
    """Write a tiny encoder with a masked-language head or none, and give it back."""
    from transformers import AutoConfig, AutoModel

    settings = {"vocab_size": 30, "pad_token_id": 0} | SMALL | EXTRA[kind] | changes
    if kind == "distilbert":
        settings = {k: v for k, v in settings.items() if k not in SMALL}
        settings["max_position_embeddings"] = 64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModel.from_config(AutoConfig.for_model(kind, **settings))
        _enlarge(model)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model


def _enlarge(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)


@pytest.fixture(params=EXTRA)
def architecture(request: pytest.FixtureRequest) -> str:
    """Each architecture in turn."""
    return str(request.param)


@pytest.fixture(params=[name for name in EXTRA if name != "albert"])
def carrying(request: pytest.FixtureRequest) -> str:
    """Each architecture that can carry mean pooling in plain form."""
    return str(request.param)


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Writes a tiny model of an architecture and gives its folder."""

    def make(kind: str, **changes: Any) -> Path:
        folder = tmp_path / f"tiny-{kind}"
        tiny_model(folder, kind, **changes)
        return folder

    return make


@pytest.fixture
def batch() -> Callable[..., dict[str, torch.Tensor]]:
    """Texts of unlike length (or those given) as one padded batch."""

    def make(tokenizer: Any, texts: list[str] | None = None) -> dict[str, torch.Tensor]:
        return dict(tokenizer(texts or TEXTS, padding=True, truncation=True, return_tensors="pt"))

    return make
