"""Runs overfitted on purpose, as a person would do it by accident: few rows, many epochs, a rate
five to ten times too high, no fault in the data. What anyone who sees both curves calls overfit."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import make_base_models
from make_base_models import cache_folder
from peers.rows import SETS, clean_set, draw, labelled_counts
from peers.task_rows import pictures
from vs_trainer_tasks import small_resnet

from recorded.generators import paragraphs, record_lines
from recorded.pictures import record_rows
from recorded.runs import record_texts

POOL = 300
# Family: passes over the training rows, and the rate, which is that many times the usual one.
BERT = (80, 1e-3)
MINILM = {60: (60, 5e-4), 200: (40, 2.5e-4)}
PICTURES = (60, 5e-3)
LANGUAGE = (30, 3e-3)


def cells() -> list[dict[str, Any]]:
    """The seeds that chose the thresholds first (0), then the fresh ones."""
    made = []
    for seed in (0, 1, 2):
        for data in SETS:
            made += [_cell("plain-bert", seed, data, rows) for rows in (60, 120, 200)]
        made += [_cell("plain-pictures", seed, "cifar10", rows) for rows in (100, 200)]
        made += [_cell("plain-language", seed, "wikitext2", rows) for rows in (60, 150)]
        for data in SETS:
            made += [_cell("plain-minilm", seed, data, rows) for rows in (60, 200)]
    return made


def _cell(family: str, seed: int, data: str, rows: int) -> dict[str, Any]:
    return {"family": family, "seed": seed, "data": data, "rows": rows, "fault": "plain"}


def record_plain(cell: dict[str, Any]) -> None:
    MAKERS[cell["family"]](cell)


def settings(epochs: float, rate: float, evaluations: int = 14) -> list[str]:
    return [
        "control.policy=off",
        f"train.epochs={epochs:g}",
        f"train.learning_rate={rate:g}",
        "train.threads=1",
        f"train.evaluations={evaluations}",
    ]


def _texts(cell: dict[str, Any], model: Path | str, epochs: float, rate: float) -> None:
    parts = draw(
        clean_set(cell["data"]),
        seed=50 + cell["seed"],
        test=slice(0, POOL),
        **labelled_counts(cell["rows"]),
    )
    own = [*settings(epochs, rate), f"model.name={model}", "model.max_length=64"]
    record_texts(cell, parts, own)


def _bert(cell: dict[str, Any]) -> None:
    _texts(cell, tiny_bert(), *BERT)


def _minilm(cell: dict[str, Any]) -> None:
    _texts(cell, "embedded", *MINILM[cell["rows"]])


def _pictures(cell: dict[str, Any]) -> None:
    model, counts = small_resnet(), labelled_counts(cell["rows"])
    rows = pictures(model, (counts["train"], counts["valid"], POOL), 50 + cell["seed"]).raw
    record_rows(cell, model, rows, settings(*PICTURES))


def _language(cell: dict[str, Any]) -> None:
    counts = labelled_counts(cell["rows"])
    texts = paragraphs(250 + 60, 50 + cell["seed"], 60)
    texts = {"path": texts["path"] + texts["valid"], "test": texts["test"]}
    texts["valid"] = texts["path"][-counts["valid"] :]
    texts["path"] = texts["path"][: counts["train"]]
    record_lines(cell, tiny_llama(), texts, [*settings(*LANGUAGE), "model.max_length=96"])


MAKERS = {
    "plain-bert": _bert,
    "plain-minilm": _minilm,
    "plain-pictures": _pictures,
    "plain-language": _language,
}


@functools.cache
def tiny_bert() -> Path:
    """A BERT of two blocks with random weights: all that it will know, it learns from the rows."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from holdfast.models.loading.source import embedded_folder

    folder = cache_folder() / "tiny-bert"
    if not (folder / "model.safetensors").exists():
        tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=512,
        )
        tokenizer.save_pretrained(folder)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@functools.cache
def tiny_llama() -> Path:
    """A Llama of two blocks with random weights and a vocabulary of 4,096 pieces."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = cache_folder() / "tiny-llama"
    if not (folder / "model.safetensors").exists():
        texts = paragraphs(450, 0, 200)
        tokenizer = make_base_models.make_tokenizer([t for rows in texts.values() for t in rows])
        torch.manual_seed(0)
        marks = {
            name: getattr(tokenizer, name)
            for name in ("bos_token_id", "pad_token_id", "eos_token_id")
        }
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            **marks,
        )
        tokenizer.save_pretrained(folder)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
