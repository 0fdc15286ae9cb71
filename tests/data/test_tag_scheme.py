"""Schemes of tags: which one is meant, and where it is broken."""

from __future__ import annotations

import pytest

from holdfast.data.tags.scheme import detect_scheme, entity_types, tag_order


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ("B-A I-A O B-B | O B-A B-A", "IOB2"),
        ("I-A I-A O I-B | O I-A B-A", "IOB1"),
        ("I-A O I-B", "IOB1"),
        ("S-A O B-A I-A E-A | B-B E-B S-A", "BIOES"),
        ("U-A O B-A I-A L-A", "BIOES"),
        ("NOUN VERB O", "plain"),
        ("B-A O", "IOB2"),
        ("B I O | B B", "IOB2"),
        ("I O | I B", "IOB1"),
        ("S O | B I E", "BIOES"),
        # Upper and lower case, or parts of speech: no marks.
        ("U L O | L U", "plain"),
        ("E S V | B O", "plain"),
    ],
)
def test_the_scheme_is_found_without_a_break(sentences: str, scheme: str) -> None:
    found = detect_scheme([line.split() for line in sentences.split("|")])
    assert (found.scheme, found.breaks) == (scheme, ())


@pytest.mark.parametrize(
    ("sentences", "scheme", "row", "word", "better"),
    [
        # Three entities begin with B-, one does not.
        ("B-A I-A O B-B | B-A O | B-A O I-A", "IOB2", 2, 2, "B-A"),
        ("B-A I-B O | B-A | B-B", "IOB2", 0, 1, "B-B"),
        ("I-A O | I-B O B-A | I-A", "IOB1", 1, 2, "I-A"),
        ("S-A O | B-A O", "BIOES", 1, 1, "an E-A before it"),
        ("S-A O | E-A O", "BIOES", 1, 0, "S-A"),
        ("S-A O | B-A I-A", "BIOES", 1, 2, "an E-A before it"),
        ("S-A O | B-A S-A", "BIOES", 1, 1, "an E-A before it"),
        ("B I O | O I", "IOB2", 1, 1, "B"),
        ("S O | B O", "BIOES", 1, 1, "an E before it"),
        ("B-A O | B-A 0", "IOB2", 1, 1, "B-0, I-0 or O"),
    ],
)
def test_the_first_break_is_named_with_what_would_be_right(
    sentences: str, scheme: str, row: int, word: int, better: str
) -> None:
    found = detect_scheme([line.split() for line in sentences.split("|")])
    first = found.breaks[0]
    assert (found.scheme, first.row, first.word, first.better) == (scheme, row, word, better)


def test_tags_are_ordered_by_type_and_every_type_has_every_mark() -> None:
    assert tag_order(["I-PER", "O", "B-PER", "B-LOC"]) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert tag_order(["S-A", "E-B", "B-B", "O", "I-B"]) == (
        "O",
        *("B-A", "I-A", "E-A", "S-A"),
        *("B-B", "I-B", "E-B", "S-B"),
    )
    assert tag_order(["NOUN", "ADV"]) == ("ADV", "NOUN")


def test_types_are_those_behind_the_prefix() -> None:
    assert entity_types(["B-PER", "I-new-type", "O", "NOUN"]) == ("NOUN", "PER", "new-type")
