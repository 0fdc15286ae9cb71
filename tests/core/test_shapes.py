"""Shapes of JSON: what belongs there passes, anything else is one sentence with its place."""

from __future__ import annotations

import json

import pytest

from holdfast.core.shapes import (
    DEEPEST,
    Misshapen,
    any_number,
    count,
    each,
    either,
    flag,
    maybe,
    nothing,
    number,
    pair,
    parse_object,
    record,
    table,
    text,
    well_shaped,
    whole,
)

ODD = [None, True, "1", [], {}, 10**400, -(10**400), float("nan"), float("inf"), 1e300]
SHAPE = record({"n": count, "by": table(maybe(number)), "names": each(text)}, ("n",))


@pytest.mark.parametrize("odd", ODD)
def test_no_number_is_one(odd: object) -> None:
    with pytest.raises(Misshapen, match=r"^x must be a finite number, and is "):
        number(odd, "x")


def test_whole_numbers_and_counts() -> None:
    for shape, bad in ((whole, [1.0, True, 2**53 + 1, None]), (count, [-1, 1.5, False, 10**400])):
        shape(0, "x")
        shape(2**53, "x")
        for value in bad:
            with pytest.raises(Misshapen):
                shape(value, "x")
    whole(-1, "x")


def test_what_python_writes_as_numbers_is_some() -> None:
    for value in (float("nan"), float("-inf"), 1, 2.5):
        any_number(value, "x")
    with pytest.raises(Misshapen):
        any_number(True, "x")


def test_the_sentence_names_the_place_and_what_is_there() -> None:
    cases = {
        "names[1] must be a text, and is 3": {"n": 1, "names": ["a", 3]},
        'by.loss must be a finite number, and is "1"': {"n": 1, "by": {"loss": "1"}},
        "n must be a whole number, and is null": {"n": None},
        "n is missing": {},
        "it must be an object, and is a list": [],
    }
    for said, value in cases.items():
        with pytest.raises(ValueError, match=r"must|missing") as caught:
            SHAPE(value, "")
        assert str(caught.value) == said
    SHAPE({"n": 1, "by": {"loss": None}, "other": object}, "")


def test_one_of_two_and_nothing() -> None:
    shape = either(record({"value": maybe(number)}), number)
    for value in (1, {"value": None}, {}):
        shape(value, "x")
    with pytest.raises(Misshapen, match="an object"):
        shape("1", "x")
    maybe(nothing)(None, "x")
    for refused, value in ((maybe(nothing), 0), (pair(number), [1]), (flag, 1)):
        with pytest.raises(Misshapen):
            refused(value, "x")


def test_what_a_shape_refuses_is_taken_out_alone_and_named() -> None:
    shape = record(
        {
            "n": count,
            "rows": each(record({"name": text, "value": number}, ("name",))),
            "by": table(pair(number)),
        },
        ("n",),
    )
    value = {
        "n": 1,
        "rows": [{"name": "a", "value": 1}, {"value": 2}, {"name": "c", "value": 1e300}],
        "by": {"a.b": [1, 2], "c": [1, None]},
        "free": object,
    }
    kept, said = well_shaped(shape, value)
    assert kept == {
        "n": 1,
        "rows": [{"name": "a", "value": 1}, {"name": "c"}],
        "by": {"a.b": [1, 2]},
        "free": object,
    }
    assert said == (
        "rows[1].name is missing",
        "rows[1].value must be a finite number, and is 1e+300",
        "by.c[1] must be a finite number, and is null",
        "by.c must be a list of two, and is a list",
    )
    assert len(value["rows"]) == 3, "what was given is left as it is"
    assert well_shaped(shape, {"n": 1}) == ({"n": 1}, ())
    for nothing_left in ({}, [], {"n": -1}):
        with pytest.raises(Misshapen):
            well_shaped(shape, nothing_left)


def test_only_an_object_that_is_not_too_deep_is_parsed() -> None:
    inside: object = 1
    for _ in range(DEEPEST - 1):
        inside = [inside]
    assert parse_object(json.dumps({"a": inside})) == {"a": inside}
    deep = "[" * 100_000 + "]" * 100_000
    for bad in (
        deep,
        f'{{"a": {deep}}}',
        json.dumps({"a": [[inside]]}),
        "[]",
        "1",
        "",
        "{",
        "null",
    ):
        with pytest.raises(ValueError, match=r"."):
            parse_object(bad)
