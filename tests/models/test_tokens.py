"""Tokenizers as DeBERTa-v3 and ALBERT ship them: a SentencePiece model and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdfast.core.errors import ModelError
from holdfast.models.encoders.checkpoint import load_saved
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.loading.tokenizer import load_tokenizer

SENTENCE = "the film book was very good bad running jumped houses wonderful"
WORDS = SENTENCE.split()


def sentencepiece_model(folder: Path) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    lines = [" ".join(WORDS[at:] + WORDS[:at]) for at in range(len(WORDS))]
    (folder / "lines.txt").write_text("\n".join(lines * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"),
        model_prefix=str(folder / "pieces"),
        vocab_size=36,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return (folder / "pieces.model").read_bytes()


@pytest.mark.parametrize(
    ("kind", "file"), [("deberta-v2", "spm.model"), ("albert", "spiece.model")]
)
def test_a_sentencepiece_tokenizer_is_read_and_saved(
    kind: str, file: str, make_model: Any, tmp_path: Path
) -> None:
    folder = make_model(kind, vocab_size=60)
    for path in [folder / "tokenizer.json", folder / "tokenizer_config.json"]:
        path.unlink()
    (folder / file).write_bytes(sentencepiece_model(tmp_path))
    loaded = load_classifier(str(folder), ("a", "b"))
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    again = load_saved(tmp_path / "saved").tokenizer
    pairs = (["the film was good", "a book"], ["jumped houses", "wonderful"])
    wanted, found = (
        tokenizer(*pairs, padding=True, return_tensors="pt")
        for tokenizer in (loaded.tokenizer, again)
    )
    assert wanted["input_ids"].unique().numel() > 10
    assert set(wanted) == set(found)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_a_tokenizer_that_cannot_be_read_names_the_extra(make_model: Any) -> None:
    folder = make_model("bert")
    (folder / "tokenizer.json").write_text("{")
    source: Any = SimpleNamespace(name="mine", folder=folder, config={})
    with pytest.raises(ModelError, match="sentencepiece"):
        load_tokenizer(source)


def test_a_tokenizer_without_padding_is_refused(make_model: Any) -> None:
    folder = make_model("bert")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="padding token"):
        load_classifier(str(folder), ("a", "b"))
