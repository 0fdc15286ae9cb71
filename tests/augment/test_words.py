"""Texts as words, what may be touched, and what a form must keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.augment.texts.word_edits import free_places, is_negation, lost, names_of, split


@given(st.text(max_size=80))
def test_words_and_gaps_are_the_text(text: str) -> None:
    assert str(split(text)) == text


@given(st.lists(st.sampled_from(["one", "two", "don't", "n't", "x-ray"]), min_size=1, max_size=8))
def test_words_are_what_stands_between_spaces(words: list[str]) -> None:
    assert list(split(" ".join(words)).words) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it does n 't , it 's ok", ["it", "does", "n 't", "it", "'s", "ok"]),
        ("we don’t “say” so!", ["we", "don’t", "say", "so"]),
        ("", []),
    ],
)
def test_texts_that_come_cut_into_words_keep_their_negations(text: str, words: list[str]) -> None:
    assert list(split(text).words) == words


@pytest.mark.parametrize(
    ("text", "begin", "end", "left"),
    [
        ("a, b c", 1, 2, "a, c"),
        ("a b, c", 1, 2, "a, c"),
        ("a b c.", 2, 3, "a b."),
        ("a b c", 0, 2, "c"),
        ("(a) b", 1, 2, "(a)"),
    ],
)
def test_what_is_left_out_leaves_one_space(text: str, begin: int, end: int, left: str) -> None:
    assert str(split(text).without(begin, end)) == left


def test_a_word_goes_in_anywhere() -> None:
    words = split("(one) two.")
    assert str(words.inserted(0, "x")) == "(x one) two."
    assert str(words.inserted(1, "x")) == "(one) x two."
    assert str(words.inserted(2, "x")) == "(one) two x."


def test_numbers_negations_names_and_protected_terms_are_not_free() -> None:
    words = split("We never met Anna in 2019 at the Old Bridge. She likes Red wine, but no beer")
    free = {words.words[place] for place in free_places(words, ["red WINE"])}
    assert free == {"We", "met", "in", "at", "the", "She", "likes", "but", "beer"}
    assert set(names_of(words)) == {"Anna", "Old", "Bridge", "Red"}


def test_a_text_in_capitals_has_no_names() -> None:
    assert not names_of(split("HOW DO I GET THERE"))


@pytest.mark.parametrize("word", ["not", "No", "can't", "n't", "n 't", "without", "Hardly"])
def test_what_negates_is_known(word: str) -> None:
    assert is_negation(word)


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("a b c d", "a b d c", None),
        ("it costs 3.50 now", "it costs 3 now", "numbers"),
        ("7 and 7", "7 and", "numbers"),
        ("I do not like it", "I like it", "negation"),
        ("I do n't like it", "I do not like it", None),
        ("I like it", "I never like it", "negation"),
        ("we saw Berlin", "we saw it", "names"),
        ("we saw Berlin", "berlin we saw", None),
        ("the red wine here", "the wine here", "protected terms"),
        ("one two three four", "one", "length"),
        ("one two", "one two three", None),
        ("one", "…", "all words"),
        ("", "", None),
    ],
)
def test_what_a_form_lost_is_named(before: str, after: str, fault: str | None) -> None:
    assert lost(before, after, ["red wine"]) == fault
