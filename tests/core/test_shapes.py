"""Shapes of JSON: what belongs there passes, anything else is one sentence with its place."""

from __future__ import annotations

import json

import jsonschema
import pytest

from holdfast.core.shapes import (
    MAX_DEPTH,
    ShapeError,
    any_number,
    anything,
    boolean,
    count,
    integer,
    json_schema,
    list_of,
    mapping_of,
    never,
    number,
    one_of,
    optional,
    pair_of,
    parse_object,
    record,
    text,
    without_misshapen,
)

ODD = [None, True, "1", [], {}, 10**400, -(10**400), float("nan"), float("inf"), 1e300]
SHAPE = record({"n": count, "by": mapping_of(optional(number)), "names": list_of(text)}, ("n",))


@pytest.mark.parametrize("odd", ODD)
def test_no_number_is_one(odd: object) -> None:
    with pytest.raises(ShapeError, match=r"^x must be a finite number, and is "):
        number(odd, "x")


def test_whole_numbers_and_counts() -> None:
    for shape, bad in ((integer, [1.0, True, 2**53 + 1, None]), (count, [-1, 1.5, False, 10**400])):
        shape(0, "x")
        shape(2**53, "x")
        for value in bad:
            with pytest.raises(ShapeError):
                shape(value, "x")
    integer(-1, "x")


def test_what_python_writes_as_numbers_is_some() -> None:
    for value in (float("nan"), float("-inf"), 1, 2.5):
        any_number(value, "x")
    with pytest.raises(ShapeError):
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
    shape = one_of(record({"value": optional(number)}), number)
    for value in (1, {"value": None}, {}):
        shape(value, "x")
    with pytest.raises(ShapeError, match="an object"):
        shape("1", "x")
    optional(never)(None, "x")
    for refused, value in ((optional(never), 0), (pair_of(number), [1]), (boolean, 1)):
        with pytest.raises(ShapeError):
            refused(value, "x")


def test_what_a_shape_refuses_is_taken_out_alone_and_named() -> None:
    shape = record(
        {
            "n": count,
            "rows": list_of(record({"name": text, "value": number}, ("name",))),
            "by": mapping_of(pair_of(number)),
        },
        ("n",),
    )
    value = {
        "n": 1,
        "rows": [{"name": "a", "value": 1}, {"value": 2}, {"name": "c", "value": 1e300}],
        "by": {"a.b": [1, 2], "c": [1, None]},
        "free": object,
    }
    kept, said = without_misshapen(shape, value)
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
    assert without_misshapen(shape, {"n": 1}) == ({"n": 1}, ())
    for nothing_left in ({}, [], {"n": -1}):
        with pytest.raises(ShapeError):
            without_misshapen(shape, nothing_left)


def test_only_an_object_that_is_not_too_deep_is_parsed() -> None:
    inside: object = 1
    for _ in range(MAX_DEPTH - 1):
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


SHAPES = {
    "record": record({"n": count, "by": mapping_of(optional(number)), "of": text}, ("n",)),
    "list": list_of(one_of(integer, text)),
    "pair": pair_of(boolean),
    "optional": optional(list_of(count)),
    "named": optional(record({"value": optional(number)}, ("value",)).named("estimate")),
    "twice": record({"a": SHAPE.named("part"), "b": list_of(SHAPE.named("part"))}),
    "null": optional(never),
    "anything": optional(anything),
}
VALUES = [
    None,
    True,
    "one",
    1,
    -1,
    [],
    ["one", 2],
    [True, False],
    [True],
    {},
    {"n": 3},
    {"n": -3},
    {"n": 3, "by": {"x": None, "y": 0.5}, "of": "text", "more": []},
    {"n": 3, "by": {"x": "text"}},
    {"n": 3, "of": None},
    {"value": 0.5},
    {"value": "text"},
    {"a": {"n": 1, "names": ["x"]}, "b": [{"n": 2}]},
    {"a": {"n": 1}, "b": [{"names": []}]},
    [[1, 2]],
    [1.5],
]


@pytest.mark.parametrize("name", SHAPES)
def test_a_schema_accepts_what_its_shape_accepts(name: str) -> None:
    shape = SHAPES[name]
    schema = json_schema(shape, name)
    jsonschema.Draft202012Validator.check_schema(schema)
    by_schema = jsonschema.Draft202012Validator(schema)
    accepted = 0
    for value in VALUES:
        try:
            shape(value, "")
        except ShapeError:
            assert not by_schema.is_valid(value), value
        else:
            accepted += 1
            assert by_schema.is_valid(value), value
    assert accepted > 0
    assert accepted < len(VALUES) or name == "anything"


def test_a_named_shape_is_defined_once() -> None:
    schema = json_schema(SHAPES["twice"], "twice")
    assert schema["properties"] == {
        "a": {"$ref": "#/$defs/part"},
        "b": {"type": "array", "items": {"$ref": "#/$defs/part"}},
    }
    assert schema["$defs"]["part"]["required"] == ["n"]
