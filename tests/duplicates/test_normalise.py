from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.duplicates.normalise import normal_forms, to_arrow


def normalise(text: str) -> str:
    return str(normal_forms(to_arrow([text]))[0].as_py())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is GOOD!", "it is good"),
        ("simplistic , silly and tedious .", "Simplistic, silly, and tedious"),
        ("do n't", "don't"),
        ("e-mail", "email"),
        ("tab\tand\nnewline", "tab and newline"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("no\u00a0break", "no break"),
        ("zero\u200bwidth", "zerowidth"),
        ("cafe\u0301", "café"),
        ("Straße", "STRAßE"),
        ("costs $ 5", "costs 5"),
        ("version 1 . 5", "version 1.5"),
        ("! !", "!!"),
    ],
)
def test_case_space_and_punctuation_do_not_count(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.5 kg", "15 kg"),
        ("1.2.3", "1.23"),
        ("1 2", "12"),
        ("good 👍", "good 👎"),
        ("👍", "👎"),
        ("5 €", "5 £"),
        ("!!", "??"),
        ("...", ""),
        ("resume", "résumé"),
        ("का", "की"),
        ("好", "坏"),
    ],
)
def test_letters_digits_and_symbols_count(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_punctuation_alone_never_collapses_into_one_key() -> None:
    texts = ["!", "?", "...", "-", "--", ":-)", ":-(", "$", "", "\ufe0f"]
    assert len({normalise(text) for text in texts}) == len(texts)


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "Zs"]), max_size=30))
def test_punctuation_put_between_letters_and_spaces_leaves_ascii_forms_alone(text: str) -> None:
    rng = random.Random(len(text))
    noisy = "".join(
        letter + (rng.choice(".,;:!?-'\"()") if not letter.isdigit() else "") for letter in text
    )
    if normalise(text):
        assert normalise(noisy) == normalise(text)


def test_a_text_in_look_alike_letters_is_a_copy() -> None:
    plain = "Please pay the invoice to Apex, or we close your account"
    swapped = plain.translate(str.maketrans("aceopxyPAE", "асеорхуРАЕ"))
    assert swapped != plain
    assert normalise(swapped) == normalise(plain)
    # Cyrillic words that differ still do, and an array with missing texts keeps them.
    assert normalise("кот") != normalise("рот")
    found = normal_forms(pa.array([plain, None, swapped], pa.large_string())).to_pylist()
    assert found[0] == found[2]
    assert found[1] is None
