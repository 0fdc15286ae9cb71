"""From labels to the words of names."""

from __future__ import annotations

import pytest

from holdfast.data.labels.spelling import label_words


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("card_arrival", "card arrival"),
        ("Refund_not_showing_up", "refund not showing up"),
        ("reverted_card_payment?", "reverted card payment"),
        ("cardArrival", "card arrival"),
        ("top-up/limits", "top up limits"),
        ("ai", "ai"),
        ("Sci/Tech", "sci tech"),
        ("US_election", "US election"),
        ("wysyłka", "wysyłka"),
        ("доставка карты", "доставка карты"),
    ],
)
def test_words_are_read_off_a_label(label: str, words: str) -> None:
    assert label_words(label) == words


@pytest.mark.parametrize("label", ["0", "-1", "3.5", "ABBR", "NUM", "x", "trk", "+", "", "a", "_"])
def test_codes_and_numbers_are_no_names(label: str) -> None:
    assert label_words(label) is None
