"""Continued pretraining: what is asked, that it is learned, and the same twice."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from holdfast.core.decisions import record_decisions
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.training.pretrain import blocks_of, collate, pretrain

WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Words that always come in one order: each tells the next."""
    starts = np.random.default_rng(0).integers(0, 40, 120)
    return [" ".join(WORDS[(start + i) % 40] for i in range(10)) for start in starts]


def test_texts_are_cut_into_blocks_and_no_token_is_lost(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    blocks = blocks_of(tokenizer, ["w1 w2 w3 w4 w5", "", "w6"], length=4)
    plain = tokenizer("w1 w2 w3 w4 w5 w6", add_special_tokens=False)["input_ids"]
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert blocks == [
        [start, *plain[0:2], end],
        [start, *plain[2:4], end],
        [start, plain[4], end],
        [start, plain[5], end],
    ]


def test_a_sixth_of_the_tokens_is_asked_and_most_of_these_are_masked(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = blocks_of(tokenizer, [" ".join(WORDS[:30])] * 300 + ["w1"])
    made = collate(tokenizer, rows, True, 7)
    asked = made["labels"] != -100
    own = torch.zeros_like(made["labels"])
    for i, row in enumerate(rows):
        own[i, : len(row)] = torch.tensor(row)
    assert torch.equal(made["labels"][asked], own[asked])
    assert not (asked & (made["attention_mask"] == 0)).any()
    assert not (asked & (own == tokenizer.cls_token_id)).any()
    share = asked.sum() / (300 * 30)
    assert 0.13 < share < 0.17
    masked = (made["input_ids"][asked] == tokenizer.mask_token_id).float().mean()
    assert 0.76 < masked < 0.84
    same = collate(tokenizer, rows, True, 7)
    assert torch.equal(same["input_ids"], made["input_ids"])
    assert not torch.equal(collate(tokenizer, rows, True, 8)["labels"], made["labels"])


def test_of_a_decoder_every_token_is_asked_and_no_padding(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    made = collate(tokenizer, [[5, 6, 7], [8]], False, 0)
    assert made["labels"].tolist() == [[5, 6, 7], [8, -100, -100]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    # A padding token that ends texts is learned where it ends one.
    tokenizer.pad_token = tokenizer.eos_token
    end = tokenizer.eos_token_id
    assert collate(tokenizer, [[5, end], [8]], False, 0)["labels"].tolist() == [[5, end], [8, -100]]


@pytest.mark.parametrize("masked", [True, False])
def test_what_comes_next_is_learned_and_the_same_twice(
    masked: bool, tiny_model: Path, tiny_llama: Path, texts: list[str]
) -> None:
    folder = tiny_model if masked else tiny_llama
    make: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make.from_pretrained(folder)
    other = copy.deepcopy(model)
    state = torch.get_rng_state()
    with record_decisions() as log:
        found = pretrain(
            model, tokenizer, texts, masked=masked, steps=30, seed=3, is_new=lambda name: True
        )
    told = [one for one in log if isinstance(one, Decision)]
    looks = [
        (int(one.chosen.removeprefix("update ")), float(one.because.split()[0])) for one in told
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert (found.steps, found.held_out, found.blocks) == (30, 8, 112)
    assert [step for step, _ in looks] == [0, 6, 12, 18, 24, 30]
    assert round(found.loss_before, 3) == looks[0][1]
    least = min(loss for _, loss in looks)
    assert round(found.loss_after, 3) == least
    assert found.loss_after < found.loss_before - (0.05 if masked else 0.5)
    assert (found.best_step, round(found.loss_after, 3)) in looks
    again = pretrain(
        other, tokenizer, texts, masked=masked, steps=30, seed=3, is_new=lambda name: True
    )
    assert again == found
    mine, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert not model.training


def test_a_model_that_gets_worse_stays_as_it_was(
    tiny_llama: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.training import pretrain as module

    monkeypatch.setattr(module, "LEARNING_RATE", 50.0)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    found = pretrain(model, tokenizer, texts, masked=False, steps=3, seed=0)
    assert (found.best_step, found.loss_after) == (0, found.loss_before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_too_few_texts_are_refused(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    with pytest.raises(DataError, match="too few"):
        pretrain(None, tokenizer, ["w1"] * 39, masked=True, steps=1, seed=0)
