"""New words: exact means of their pieces, and texts that come back as they went in."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from holdfast.core.packaged_models import EMBEDDED
from holdfast.models.encoders.vocabulary import extend_vocabulary, new_words
from holdfast.models.loading.packaged import packaged_folder

TEXTS = ["The Pneumothorax was drained.", "A pneumothorax, again?", "no pneumothorax; no sepsis"]


@pytest.fixture(scope="module")
def minilm() -> tuple[Any, Any]:
    folder = packaged_folder(EMBEDDED)
    model = AutoModelForMaskedLM.from_pretrained(folder, num_hidden_layers=1)
    return model, AutoTokenizer.from_pretrained(folder)


def test_words_that_save_most_tokens_come_first(minilm: tuple[Any, Any]) -> None:
    _, tokenizer = minilm
    words = new_words(tokenizer, [*TEXTS, *["tachycardia"] * 4, "once upon", "x7y " * 9], 10)
    assert [word.token for word in words] == ["pneumothorax", "tachycardia"]
    assert [word.count for word in words] == [3, 4]
    pieces = tokenizer("pneumothorax", add_special_tokens=False)["input_ids"]
    assert words[0].pieces == tuple(pieces)
    assert words[0].tokens_saved == 3 * (len(pieces) - 1)
    assert [w.token for w in new_words(tokenizer, TEXTS, 1)] == ["pneumothorax"]


def test_a_new_word_is_the_mean_of_its_pieces_and_nothing_else_changes(
    minilm: tuple[Any, Any],
) -> None:
    model, tokenizer = (copy.deepcopy(one) for one in minilm)
    before = model.get_input_embeddings().weight.detach().clone()
    words = new_words(tokenizer, TEXTS, 5)
    plain = "A pneumothorax-like Pneumothorax."
    as_before = tokenizer(plain)["input_ids"]
    added = extend_vocabulary(model, tokenizer, words)
    assert added == words
    table = model.get_input_embeddings().weight
    assert len(table) == len(before) + 1 == len(tokenizer) == model.config.vocab_size
    assert torch.equal(table[: len(before)], before)
    mean = before[list(words[0].pieces)].mean(dim=0)
    assert torch.allclose(table[-1], mean, atol=1e-7)
    # One table serves inputs and outputs; the outputs' level is a mean as well.
    last = model.get_output_embeddings()
    assert last.weight is table or torch.equal(last.weight, table)
    assert len(last.bias) == len(table)
    ids = tokenizer(plain)["input_ids"]
    assert ids.count(len(before)) == 2
    assert len(ids) == len(as_before) - 2 * (len(words[0].pieces) - 1)
    shown = tokenizer.decode(ids, skip_special_tokens=True)
    assert shown.replace(" ", "") == plain.lower().replace(" ", "")
    # Inside another word it is none.
    assert len(before) not in tokenizer("pneumothoraxes")["input_ids"]
    assert model(**tokenizer(plain, return_tensors="pt")).logits.shape[-1] == len(table)


def test_a_byte_level_word_keeps_its_space_and_comes_back(merging_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(merging_llama)
    model = AutoModelForCausalLM.from_pretrained(merging_llama)
    texts = ["the sepsis of sepsis", "a sepsis", "the art", "art", "of art", "artist artist artist"]
    words = new_words(tokenizer, texts, 9)
    # "art" begins other words, which it would take apart.
    assert [word.token for word in words] == [" artist", " sepsis"]
    before = model.get_input_embeddings().weight.detach().clone()
    outputs = model.get_output_embeddings().weight.detach().clone()
    assert extend_vocabulary(model, tokenizer, words) == words
    for table, old in (
        (model.get_input_embeddings().weight, before),
        (model.get_output_embeddings().weight, outputs),
    ):
        for word in words:
            at = tokenizer.convert_tokens_to_ids(word.token)
            assert torch.allclose(table[at], old[list(word.pieces)].mean(dim=0), atol=1e-7)
    text = "the sepsis, a film. sepsis!"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_tokens_to_ids(" sepsis") in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_saved_and_loaded_again_it_reads_the_same(minilm: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = (copy.deepcopy(one) for one in minilm)
    extend_vocabulary(model, tokenizer, new_words(tokenizer, TEXTS, 5))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
