"""What a stranger wrote, shown: the same as ``repr`` where it is short, and never much work."""

from __future__ import annotations

import tracemalloc
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from holdfast.core.errors import DataError
from holdfast.core.printable import bounded_repr, printable

PLAIN = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text() | some.binary(),
    lambda inner: (
        some.lists(inner)
        | some.dictionaries(some.text(), inner)
        | some.tuples(inner)
        | some.tuples(inner, inner)
        | some.frozensets(some.integers())
    ),
    max_leaves=20,
)


@given(PLAIN)
@settings(max_examples=150, derandomize=True)
def test_a_value_is_shown_as_repr_shows_its_beginning(value: Any) -> None:
    whole = repr(value)
    assert bounded_repr(value, 200) == (whole if len(whole) <= 200 else whole[:199] + "…")


def bomb() -> list[Any]:
    made: list[Any] = ["lol"] * 9
    for _ in range(30):
        made = [made] * 9
    return made


class Loud:
    def __repr__(self) -> str:
        raise ValueError("no")


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "value",
    [bomb(), "x" * 10**8, b"x" * 10**8, 10**10**6, ENDLESS, [Loud()], {"a" * 10**7: 1}],
    ids=lambda _: "",
)
def test_nothing_is_written_out_to_be_shown_in_short(value: Any) -> None:
    """What is written out whole and then cut needs its memory, and some here an endless time."""
    tracemalloc.start()
    try:
        assert 1 < len(str(DataError("a", "b", value))) < 300
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_length_of_a_number_is_told() -> None:
    assert bounded_repr(10**5000) == "a whole number of 5000 digits"


@given(some.text(max_size=300))
@settings(max_examples=150, derandomize=True)
def test_printable_moves_no_cursor_and_changes_no_letter(text: str) -> None:
    told = printable(text, 300)
    obeyed = [c for c in told if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert set(obeyed) <= {"\n", "\t"}
    if text.isprintable():
        assert told == text


def test_the_middle_of_a_long_name_is_left_out() -> None:
    told = printable("a" * 5000 + "z", 400)
    assert len(told) <= 404
    assert told.startswith("a")
    assert told.endswith("z")
