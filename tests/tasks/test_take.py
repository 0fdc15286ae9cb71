"""Taking rows of what is encoded is encoding those rows, whatever the task."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.vit import ViTImageProcessorPil

from holdfast.data.chats.chat import load_chats
from holdfast.data.chats.turns import NAMED_TEMPLATES
from holdfast.data.images.table import images_at
from holdfast.data.memory.texts import table_from_texts
from holdfast.data.pairs import ALL
from holdfast.data.table import Columns, Table
from holdfast.tasks.classes.encoding import encode
from holdfast.tasks.images.losses import encode_images
from holdfast.tasks.lm import losses as causal_lm
from holdfast.tasks.seq2seq import losses as seq2seq

Encode = Callable[[Table], Any]


LETTERS = ["<pad>", "</s>", "<unk>", *"abcdefghij"]
END = 1


def letters(end: bool = True) -> Any:
    """A tokenizer of single letters, which ends a text with ``</s>`` or leaves that to others."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(LETTERS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if end:
        inner.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", END)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def pair_table(pairs: list[tuple[str, str]]) -> Table:
    import datasets

    rows = datasets.Dataset.from_dict(
        {
            "row": np.arange(10, 10 + len(pairs)),
            "text": [source for source, _ in pairs],
            "target": [target for _, target in pairs],
            "label": np.zeros(len(pairs), dtype=np.int64),
        }
    )
    return Table(rows, (ALL,), Columns(("text",), None), "memory", len(pairs))


def words(rng: np.random.Generator, n: int) -> str:
    return " ".join(f"w{int(i)}" for i in rng.integers(0, 40, n))


@pytest.fixture(params=["texts", "pairs of texts", "sequences", "chats", "plain text", "pictures"])
def made(request: Any, tmp_path: Path, tiny_model: Path, tiny_llama: Path) -> tuple[Table, Encode]:
    """A table of twelve rows, and how they are encoded: some are cut, some give no example."""
    rng = np.random.default_rng(3)
    if request.param == "pictures":
        paths = []
        for index in range(12):
            paths.append(str(tmp_path / f"{index}.png"))
            noise = rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)
            Image.fromarray(noise).save(paths[-1])
        processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
        return images_at(paths), partial(encode_images, processor=processor, channels=3)
    if request.param in ("texts", "pairs of texts"):
        texts: list[Any] = [words(rng, int(n)) for n in rng.integers(2, 20, 12)]
        if request.param == "pairs of texts":
            texts = [(text, words(rng, 5)) for text in texts]
        labels = [str(i % 2) for i in range(12)]
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        return table_from_texts(texts, labels), partial(encode, tokenizer=tokenizer, max_length=12)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    if request.param == "sequences":
        sides = [" ".join(rng.choice(list("abcdefghij"), int(n))) for n in rng.integers(1, 9, 12)]
        pairs = list(zip(sides, reversed(sides), strict=True))
        pairs[4] = ("a", "")
        limits = {"max_length": 5, "max_target_length": 6, "end": END}
        return pair_table(pairs), partial(seq2seq.encode_pairs, tokenizer=letters(), **limits)
    tokenizer.chat_template = NAMED_TEMPLATES["plain"]
    path = tmp_path / "rows.jsonl"
    rows: list[dict[str, str]] = [
        {"prompt": "x" * int(n), "completion": "yes"} for n in rng.integers(5, 200, 12)
    ]
    if request.param == "plain text":
        rows = [{"text": "ab " * int(n)} for n in rng.integers(20, 100, 12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_chats(path), partial(causal_lm.encode, tokenizer=tokenizer, max_length=70)


def same(one: Any, other: Any) -> None:
    for field in fields(one):
        if field.name in ("pixels", "places"):
            continue
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        if ours is not None:
            assert ours.dtype == theirs.dtype, field.name
    np.testing.assert_array_equal(one.lengths, other.lengths)
    if hasattr(one, "pixels"):
        pixels = [e.pixels(e.places[np.arange(len(e))]) for e in (one, other)]
        np.testing.assert_array_equal(*pixels)
    if hasattr(one, "left_out"):
        assert one.left_out == other.left_out


CHOSEN = [range(5), range(3, 12), [7], [11, 0, 4, 5, 2], [6, 6, 1], range(12)]


@pytest.mark.parametrize("chosen", CHOSEN)
def test_taking_rows_is_encoding_them(made: tuple[Table, Encode], chosen: Any) -> None:
    table, encoder = made
    positions = np.array(chosen, dtype=np.int64)
    same(encoder(table).take(positions), encoder(table.take(positions)))


def test_rows_that_were_taken_can_be_taken_from(made: tuple[Table, Encode]) -> None:
    table, encoder = made
    first, then = np.array([9, 4, 1, 5, 0]), np.array([3, 1, 0])
    same(encoder(table).take(first).take(then), encoder(table.take(first[then])))


def test_rows_side_by_side_share_the_memory(made: tuple[Table, Encode]) -> None:
    table, encoder = made
    whole = encoder(table)
    flat = "source_ids" if hasattr(whole, "source_ids") else "ids"
    if hasattr(whole, "pixels"):
        assert whole.take(np.arange(4, 12)).pixels is whole.pixels
    else:
        taken = getattr(whole.take(np.arange(4, 12)), flat)
        assert np.shares_memory(taken, getattr(whole, flat))


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("limit", [2, 3, 4, 5, 9])
def test_a_smaller_limit_of_targets_is_encoding_with_it(limit: int, end: bool) -> None:
    pairs = [("a", " ".join("abcdefghij"[:n])) for n in range(1, 10)]
    rows, of_words = pair_table(pairs), letters(end)
    large, small = (seq2seq.encode_pairs(rows, of_words, 8, most, END) for most in (9, limit))
    same(large.limited(limit, ending=1), small)
    assert large.limited(limit, ending=1).target_cut.tolist() == small.target_cut.tolist()
