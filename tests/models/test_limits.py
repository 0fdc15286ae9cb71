"""How many tokens are read, and why."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.core.errors import RecipeError
from holdfast.models.loading.tokenizer import choose_max_length, position_limit, usual_length


def config(kind: str = "bert", positions: int = 512, pad: int = 0) -> Any:
    return SimpleNamespace(model_type=kind, max_position_embeddings=positions, pad_token_id=pad)


@pytest.mark.parametrize(
    ("kind", "positions", "pad", "limit"),
    [("bert", 512, 0, 512), ("roberta", 514, 1, 512), ("xlm-roberta", 514, 1, 512)],
)
def test_positions_behind_the_padding_index_are_not_counted(
    kind: str, positions: int, pad: int, limit: int
) -> None:
    assert position_limit(config(kind, positions, pad)) == limit


@pytest.mark.parametrize(
    ("positions", "stated", "trained", "wanted", "because"),
    [
        (512, 512, 256, 256, "sentence-transformers"),
        (64, 512, None, 64, "64 positions"),
        (512, 128, None, 128, "tokenizer"),
        (8192, 10**30, None, 512, "memory"),
        (512, 10**30, None, 512, "512 positions"),
    ],
)
def test_the_smallest_limit_wins_and_is_named(
    positions: int, stated: int, trained: int | None, wanted: int, because: str, tmp_path: Path
) -> None:
    if trained:
        written = json.dumps({"max_seq_length": trained})
        (tmp_path / "sentence_bert_config.json").write_text(written)
    tokenizer = SimpleNamespace(model_max_length=stated)
    length, decision = choose_max_length(tmp_path, config(positions=positions), tokenizer, None)
    assert length == wanted
    assert decision.chosen == str(wanted)
    assert because in decision.because


def test_a_chat_may_be_longer_than_a_block_of_plain_text(tmp_path: Path) -> None:
    tokenizer = SimpleNamespace(model_max_length=10**30)
    for form, wanted in (("text", 512), ("messages", 1024)):
        long, most = config(positions=8192), usual_length(form)
        assert choose_max_length(tmp_path, long, tokenizer, None, most=most)[0] == wanted
        assert choose_max_length(tmp_path, config(), tokenizer, None, most=most)[0] == 512


def test_a_length_that_is_asked_for_is_taken_or_refused(tmp_path: Path) -> None:
    tokenizer = SimpleNamespace(model_max_length=128)
    assert choose_max_length(tmp_path, config(), tokenizer, 512)[0] == 512
    with pytest.raises(RecipeError, match="512 positions"):
        choose_max_length(tmp_path, config(), tokenizer, 513)
