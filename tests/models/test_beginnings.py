"""Of a very long text the beginning is tokenised, and gives the tokens of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.models.loading import tokenizer as room
from holdfast.models.loading.tokenizer import text_beginnings


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("w1 w2 good " * 4_000, True),
        ("w1  w2\n" * 3_000, True),
        ("a" * 30_000, False),
        ("a" * 30_000 + " w3" * 900, False),
        ("w1 " + "b" * 20_000 + " w2" * 300, False),
        (" " * 30_000 + "w4 w5", False),
        ("!" * 30_000, False),
        ("!w1" * 10_000, True),
    ],
)
@pytest.mark.parametrize("limit", [8, 64])
def test_the_tokens_are_those_of_the_whole_text(
    text: str, cut: bool, limit: int, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LONG", 1_000)
    (short,) = text_beginnings(tokenizer, [text], limit)
    one, whole = (tokenizer([t], truncation=True, max_length=limit) for t in (short, text))
    assert one["input_ids"] == whole["input_ids"]
    assert (len(short) < len(text)) == cut
    assert text.startswith(short)


def test_other_texts_are_themselves(tokenizer: Any) -> None:
    texts = ["", "w1", "w1 w2 " * 100_000]
    assert all(a is b for a, b in zip(text_beginnings(tokenizer, texts, 8), texts, strict=True))
