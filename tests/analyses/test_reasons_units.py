"""Texts in the parts that a person can be shown."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.analyses.explain.masking import split_units, split_words


def _shown(text: str) -> list[str]:
    return [text[one.start : one.stop] for one in split_words(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't, no!", ["Don't", ",", "no", "!"]),
        ("state-of-the-art; 3.5 kg", ["state-of-the-art", ";", "3", ".", "5", "kg"]),
        ("很好吃 OK", ["很", "好", "吃", "OK"]),
        ("naïve été…", ["naïve", "été", "…"]),
        ("  ", []),
    ],
)
def test_words_and_marks_are_the_parts(text: str, words: list[str]) -> None:
    assert _shown(text) == words


def test_pieces_belong_to_their_words_and_marks_of_the_model_to_none() -> None:
    text = "unhappy end"
    offsets = [(0, 0), (0, 2), (2, 7), (8, 11), (0, 0)]
    found = split_units([text], offsets, [None, 0, 0, 0, None])
    assert found.owner.tolist() == [-1, 0, 0, 1, -1]
    assert found.words([text]) == ("unhappy", "end")
    assert found.unread == 0


def test_a_piece_over_several_words_joins_them() -> None:
    text = "a, b c"
    found = split_units([text], [(0, 2), (2, 4), (5, 6)], [0, 0, 0])
    assert found.words([text]) == ("a,", "b", "c")
    assert found.owner.tolist() == [0, 1, 2]


def test_words_that_are_not_read_are_counted() -> None:
    found = split_units(["one two three four"], [(0, 3), (4, 7)], [0, 0])
    assert len(found.units) == 2
    assert found.unread == 2


def test_of_long_texts_neighbours_are_one_and_two_texts_never_are() -> None:
    texts = ["a b c d e", "f g h"]
    offsets = [(2 * i, 2 * i + 1) for i in (*range(5), *range(3))]
    found = split_units(texts, offsets, [0] * 5 + [1] * 3, max_units=4)
    assert found.words_per_unit == 2
    assert found.words(texts) == ("a b", "c d", "e", "f g", "h")
    assert found.owner.tolist() == [0, 0, 1, 1, 2, 3, 3, 4]
    assert np.all(np.diff(found.owner) >= 0)
