"""What stands beside a candidate: pieces a word, unknown ones, rows that are cut, and doubts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from holdfast.core.packaged_models import EMBEDDED
from holdfast.models.loading.packaged import packaged_folder
from holdfast.plan.language import detect_language
from holdfast.prepare.probe_evidence import assign_folds
from holdfast.search.choice.candidate import ModelFacts, cut_share, fertility, find_doubts

ENGLISH = ["The remote control feels cheap, but it works.", "I don't like the new menu at all."]
GERMAN = [
    "Die Geschwindigkeitsbegrenzung wurde überschritten.",
    "Rechtsschutzversicherung gekündigt",
]


def test_pieces_a_word_are_counted_and_more_for_a_language_it_does_not_know() -> None:
    tokenizer = AutoTokenizer.from_pretrained(packaged_folder(EMBEDDED))
    words = 9 + 1 + 8 + 1
    tokens = sum(len(tokenizer(text)["input_ids"]) - 2 for text in ENGLISH)
    pieces, unknown = fertility(tokenizer, ENGLISH)
    # "don't" is one word of three pieces.
    assert pieces == pytest.approx(tokens / (words - 0))
    assert unknown == 0.0
    many, _ = fertility(tokenizer, GERMAN)
    assert many is not None
    assert many > 1.8 > pieces
    assert fertility(tokenizer, ["☃☃ a"])[1] > 0
    assert fertility(tokenizer, ["這是一個沒有空格的很長的中文句子用來測試"])[0] is None
    assert fertility(tokenizer, [""]) == (None, 0.0)


def test_bytes_stand_for_what_a_vocabulary_lacks(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert fertility(tokenizer, ["w1 w2 w3 snow"]) == (1.0, 0.25)


def test_what_does_not_fit_is_said() -> None:
    fine = ModelFacts(1, 1.0, 1.0, None, ("en",), 256, 0.0, 1.1, 0.0, "en")
    assert find_doubts(fine) == ()
    assert find_doubts(replace(fine, languages=())) == ()
    assert find_doubts(replace(fine, rows_in="de", languages=("multilingual",))) == ()
    (said,) = find_doubts(replace(fine, rows_in="de"))
    assert "the rows are in de" in said
    (said,) = find_doubts(replace(fine, tokens_per_word=2.5))
    assert "2.5 tokens per word" in said
    (said,) = find_doubts(replace(fine, unknown=0.02))
    assert "2.0 % of the tokens" in said
    (said,) = find_doubts(replace(fine, cut=0.2))
    assert "20 % of the rows exceed its limit of 256 tokens" in said


def test_the_language_of_rows_is_told_where_it_is_sure() -> None:
    pytest.importorskip("py3langid")
    assert detect_language(["cat/0014.jpg", "ship/0030.jpg"] * 20) is None
    assert detect_language(["Der schnelle braune Fuchs springt über den faulen Hund."] * 3) == "de"
    assert detect_language([]) is None


def test_rows_that_are_cut_are_a_share() -> None:
    class Some:
        cut = np.array([0, 3, 0, 1])

    assert cut_share(Some()) == 0.5
    assert cut_share(object()) is None


def test_units_stay_in_one_fold_and_classes_are_dealt_out() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(60), 2)
    labels = np.repeat(np.arange(60) % 3, 2)
    order = rng.permutation(120)
    folds = assign_folds(units[order], labels[order], 0)
    for unit in range(60):
        assert len(np.unique(folds[units[order] == unit])) == 1
    for label in range(3):
        counts = np.bincount(folds[labels[order] == label], minlength=5)
        assert counts.tolist() == [8] * 5
    assert np.array_equal(folds, assign_folds(units[order], labels[order], 0))
