"""Words to pieces and back: which piece carries a tag, what is not read, and the loop's numbers."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.data.table import Columns, Table
from holdfast.tasks.tags.losses import EncodedWords, TokenClassification, encode_words, word_logits

NAMES = ("O", "B-X", "I-X")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "an", "##na", "##n", "ox", "##en", "run"]
SENTENCES = [["anna", "run"], ["oxen", "ox", "annan", "run"], ["ox"], ["run", " ", "ox"]]
TAGS = [[1, 0], [1, 2, 0, 0], [1], [0, 0, 1]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("pieces")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return BertTokenizerFast.from_pretrained(folder)


def table(sentences: list[list[str]], tags: list[list[int]]) -> Table:
    import datasets

    rows = {
        "row": list(range(10, 10 + len(sentences))),
        "text": [" ".join(words) for words in sentences],
        "tokens": sentences,
        "tags": tags,
        "label": [0] * len(sentences),
    }
    made = datasets.Dataset.from_dict(rows)
    return Table(
        made, ("all",), Columns(("tokens",), "tags"), "memory", len(sentences), names=NAMES
    )


def pieces(encoded: EncodedWords, row: int, tokenizer: Any) -> list[str]:
    ids = encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]]
    found: list[str] = tokenizer.convert_ids_to_tokens(ids.tolist())
    return found


def test_the_first_piece_of_a_word_carries_its_tag(tokenizer: Any) -> None:
    encoded = encode_words(table(SENTENCES, TAGS), tokenizer, 20)
    assert pieces(encoded, 1, tokenizer) == (
        ["[CLS]", "ox", "##en", "ox", "an", "##na", "##n", "run", "[SEP]"]
    )
    line = slice(encoded.starts[1], encoded.starts[2])
    assert encoded.places[line].tolist() == [1, 3, 4, 7]
    assert encoded.words[line].tolist() == [0, 1, 2, 3]
    assert encoded.tags[line].tolist() == TAGS[1]
    assert encoded.counts.tolist() == [2, 4, 1, 3]


def test_a_word_without_a_piece_is_not_read_and_not_cut(tokenizer: Any) -> None:
    encoded = encode_words(table(SENTENCES, TAGS), tokenizer, 20)
    line = slice(encoded.starts[3], encoded.starts[4])
    assert encoded.words[line].tolist() == [0, 2]
    assert encoded.tags[line].tolist() == [0, 1]
    assert encoded.cut.tolist() == [0, 0, 0, 0]


def test_words_beyond_the_limit_are_counted(tokenizer: Any) -> None:
    encoded = encode_words(table(SENTENCES, TAGS), tokenizer, 6)
    # [CLS] ox ##en ox an [SEP]: the third word is read by its first piece, the fourth is not.
    assert encoded.words[encoded.starts[1] : encoded.starts[2]].tolist() == [0, 1, 2]
    assert encoded.cut.tolist() == [0, 1, 0, 0]
    long = encode_words(table([["ox"] * 10_000], [[1] * 10_000]), tokenizer, 16)
    assert (long.read.tolist(), long.cut.tolist(), long.lengths.tolist()) == ([14], [9986], [16])


def test_sentences_of_which_nothing_is_read_are_left_out_where_they_are_learnt_from(
    tokenizer: Any,
) -> None:
    rows = table([["ox"], ["\u200b"], ["run"]], [[1], [0], [0]])
    learnt = encode_words(rows, tokenizer, 20)
    assert (learnt.kept.tolist(), learnt.rows.tolist()) == ([0, 2], [10, 12])
    asked = encode_words(rows, tokenizer, 20, need_words=False)
    assert (asked.kept.tolist(), asked.read.tolist()) == ([0, 1, 2], [1, 0, 1])


@pytest.mark.parametrize("positions", [[2, 0], [1], [3, 3, 1], []])
def test_taking_rows_is_encoding_those_rows(tokenizer: Any, positions: list[int]) -> None:
    rows = table(SENTENCES, TAGS)
    at = np.array(positions, dtype=np.int64)
    taken = encode_words(rows, tokenizer, 6).take(at)
    fresh = encode_words(rows.take(at), tokenizer, 6)
    for field in fields(EncodedWords):
        one, two = getattr(taken, field.name), getattr(fresh, field.name)
        if not (field.name == "types" and not positions):
            assert np.array_equal(one, two), field.name


def test_losses_weights_and_numbers_are_those_of_the_words(tokenizer: Any) -> None:
    encoded = encode_words(table(SENTENCES, TAGS), tokenizer, 20)
    task = TokenClassification(0, NAMES)
    batch = task.collate(encoded, [3, 1])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, batch["input_ids"].shape[1], 3), generator=generator)
    output = logits.flatten(0, 1)[batch["where"]]
    # The same, sentence by sentence, as Transformers computes it: −100 is no target.
    labels = torch.full(logits.shape[:2], -100)
    labels[0, [1, 2]] = torch.tensor([0, 1])
    labels[1, [1, 3, 4, 7]] = torch.tensor(TAGS[1])
    for row in range(2):
        expected = torch.nn.functional.cross_entropy(logits[row], labels[row])
        assert task.losses(output, batch)[row] == pytest.approx(float(expected), rel=1e-6)
    whole = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    weights = task.weights(encoded, [3, 1])
    assert weights.tolist() == [2, 4]
    mean = (task.losses(output, batch).numpy() * weights).sum() / weights.sum()
    assert mean == pytest.approx(float(whole), rel=1e-6)


def test_a_sentence_is_right_where_each_of_its_words_is(tokenizer: Any) -> None:
    encoded = encode_words(table(SENTENCES, TAGS), tokenizer, 20)
    task = TokenClassification(0, NAMES)
    batch = task.collate(encoded, [0, 1])
    answers = torch.tensor([1, 0, 1, 0, 0, 0])
    kept = task.keep(torch.nn.functional.one_hot(answers, 3).float(), batch)
    # Words, right words, entities found, predicted and labelled.
    assert kept.tolist() == [[2, 2, 1, 1, 1], [4, 3, 0, 1, 1]]
    measured = task.measure(np.zeros(2), kept.numpy(), encoded, [0, 1])
    assert measured.metrics == pytest.approx({"entity_f1": 0.5, "accuracy": 5 / 6})
    assert measured.correct is not None
    assert measured.correct.tolist() == [True, False]
    nothing = task.measure(np.zeros(0), np.zeros((0, 5)), encoded, [])
    assert all(np.isnan(value) for value in nothing.metrics.values())


def test_a_learnt_prompt_before_the_pieces_moves_no_word(tokenizer: Any) -> None:
    from holdfast.tasks.tags.losses import word_features

    encoded = encode_words(table(SENTENCES, TAGS), tokenizer, 20)
    batch = TokenClassification(0, NAMES).collate(encoded, [1])
    ids = batch["input_ids"]
    plain = torch.arange(ids.shape[1]).float()[None, :, None]
    prompted = torch.cat([torch.full((1, 3, 1), -1.0), plain], dim=1)

    class Network(torch.nn.Module):
        dropout = torch.nn.Identity()
        head = torch.nn.Identity()

        def __init__(self, states: torch.Tensor) -> None:
            super().__init__()
            self.states = states

        def features(self, **inputs: torch.Tensor) -> torch.Tensor:
            return self.states

    for states in (plain, prompted):
        network = Network(states)
        found = word_logits(network, word_features(network, batch))
        assert found[:, 0].tolist() == [1, 3, 4, 7]


def test_a_byte_level_tokenizer_reads_words_with_a_space_before_each(tmp_path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizerFast

    from holdfast.models.encoders.checkpoint import load_saved_tagger
    from holdfast.models.encoders.classifier import load_tagger

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        ["anna runs to the ox"] * 20,
        vocab_size=300,
        min_frequency=1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    trained.save_model(str(tmp_path))
    RobertaTokenizerFast.from_pretrained(tmp_path).save_pretrained(tmp_path / "base")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(
        vocab_size=300, intermediate_size=16, max_position_embeddings=40, type_vocab_size=1, **sizes
    )
    RobertaForMaskedLM(config).save_pretrained(tmp_path / "base")
    loaded = load_tagger(str(tmp_path / "base"), NAMES)
    rows = table([["anna", "runs"]], [[1, 0]])
    encoded = encode_words(rows, loaded.tokenizer, 20)
    whole = loaded.tokenizer(" anna runs")["input_ids"]
    assert encoded.ids.tolist() == whole
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    saved = load_saved_tagger(tmp_path / "saved")
    assert encode_words(rows, saved.tokenizer, 20).ids.tolist() == whole
