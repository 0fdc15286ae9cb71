"""Types of JSON values, checked when they are read and before they are written.

Fields that a shape does not name are allowed: fields are added freely.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Far above every loss, count and time; a square of it is still a number.
MAX_NUMBER = 1e150
# The deepest of our own files has a dozen levels; Python's own limit is a thousand calls.
MAX_DEPTH = 60
# Some hundred times what the largest of them holds (a confusion of a thousand classes).
MOST_VALUES = 2_000_000


DIALECT = "https://json-schema.org/draft/2020-12/schema"


class ShapeError(ValueError):
    """A value of the wrong type, as one sentence. ``path`` are the names and indices that lead to
    it from the value that was checked."""

    def __init__(self, where: str, expected: str, found: object) -> None:
        value = (
            json.dumps(found)[:60]
            if isinstance(found, (str, float, bool))
            else _describe_type(found)
        )
        super().__init__(f"{where or 'it'} must be {expected}, and is {value}")
        self.path: list[str | int] = []


class MissingField(ShapeError):
    """A required field is missing; ``path`` leads to the object that lacks it."""

    def __init__(self, where: str) -> None:
        ValueError.__init__(self, f"{where} is missing")
        self.path = []


def parse_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object at most 60 levels deep. Raises ``ValueError`` for anything else, with a clause
    that follows the object's name."""
    try:
        value = json.loads(text)
    except RecursionError:
        # What the first shape said: the second is the rarer form.
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"must hold a JSON object, and holds {_describe_type(value)}")
    check_size(value)
    return value


def check_size(value: object) -> None:
    """Raise ``ValueError`` if a value is nested more than 60 levels deep, or holds more than two
    million values; a value in several places (a YAML alias) counts at each."""
    remaining = MOST_VALUES
    level: list[Any] = [value]
    # Level by level: a recursion is what a value nested too deeply would break.
    for _ in range(MAX_DEPTH):
        containers = [one.values() if isinstance(one, dict) else one for one in level]
        remaining -= sum(map(len, containers))
        if remaining < 0:
            raise ValueError(f"holds more than {MOST_VALUES:,} values")
        level = [item for items in containers for item in items if isinstance(item, (dict, list))]
        if not level:
            return
    raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")


@dataclass(frozen=True, slots=True)
class Shape:
    """A type of JSON values. ``check`` takes a value and its place, and raises ``ShapeError`` if
    the value has another type; ``schema`` says the same as JSON Schema (draft 2020-12)."""

    check: Callable[[Any, str], None]
    schema: Mapping[str, Any]

    def __call__(self, value: object, where: str) -> None:
        self.check(value, where)

    def named(self, name: str) -> Shape:
        """The same shape under a name, which a schema defines once (``$defs``)."""
        return Shape(self.check, {"title": name, **self.schema})


def _number(value: Any, where: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise ShapeError(where, "a finite number", value)


def _any_number(value: object, where: str) -> None:
    if not isinstance(value, float) or math.isfinite(value):
        _number(value, where)


def _never(value: object, where: str) -> None:
    raise ShapeError(where, "null", value)


def _integer(value: object, where: str) -> None:
    # Above 2⁵³ a float, which JSON readers use, does not represent it exactly.
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 2**53:
        raise ShapeError(where, "a whole number", value)


def _count(value: Any, where: str) -> None:
    _integer(value, where)
    if value < 0:
        raise ShapeError(where, "a count", value)


def _text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise ShapeError(where, "a text", value)


def _boolean(value: object, where: str) -> None:
    # Not 0 and 1, which Python takes for equal.
    if not isinstance(value, bool):
        raise ShapeError(where, "true or false", value)


number = Shape(_number, {"type": "number"})
# With NaN and infinities, which Python writes into JSON.
any_number = Shape(_any_number, {"type": "number"})
# No value at all: with ``optional``, only null.
never = Shape(_never, {"not": {}})
integer = Shape(_integer, {"type": "integer"})
count = Shape(_count, {"type": "integer", "minimum": 0})
text = Shape(_text, {"type": "string"})
boolean = Shape(_boolean, {"type": "boolean"})
anything = Shape(lambda value, where: None, {})


def optional(shape: Shape) -> Shape:
    """``shape``, or null."""

    def check(value: object, where: str) -> None:
        if value is not None:
            shape.check(value, where)

    kind = shape.schema.get("type")
    if isinstance(kind, str) and "title" not in shape.schema:
        return Shape(check, {**shape.schema, "type": [kind, "null"]})
    return Shape(check, {"anyOf": [shape.schema, {"type": "null"}]} if shape.schema else {})


def one_of(first: Shape, second: Shape) -> Shape:
    """One of two shapes; the error is that of the first."""

    def check(value: object, where: str) -> None:
        try:
            first.check(value, where)
        except ShapeError:
            try:
                second.check(value, where)
            except ShapeError:
                pass
            else:
                return
            raise

    return Shape(check, {"anyOf": [first.schema, second.schema]})


def list_of(shape: Shape) -> Shape:
    """A list of any length whose items have this shape."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, list):
            raise ShapeError(where, "a list", value)
        for place, item in enumerate(value):
            _check_item(shape, item, f"{where}[{place}]", place)

    return Shape(check, {"type": "array", "items": shape.schema})


def pair_of(shape: Shape) -> Shape:
    """A list of exactly two items of this shape."""
    items = list_of(shape)

    def check(value: object, where: str) -> None:
        if not isinstance(value, list) or len(value) != 2:
            raise ShapeError(where, "a list of two", value)
        items.check(value, where)

    return Shape(check, {**items.schema, "minItems": 2, "maxItems": 2})


def mapping_of(shape: Shape) -> Shape:
    """An object with any names, whose values have this shape."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ShapeError(where, "an object", value)
        for name, item in value.items():
            _check_item(shape, item, _item_path(where, name), name)

    return Shape(check, {"type": "object", "additionalProperties": shape.schema})


def record(shapes: Mapping[str, Shape], required: tuple[str, ...] = ()) -> Shape:
    """An object whose fields have these shapes if they exist; ``required`` fields must exist."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ShapeError(where, "an object", value)
        for name in required:
            if name not in value:
                raise MissingField(_item_path(where, name))
        for name, shape in shapes.items():
            if name in value:
                _check_item(shape, value[name], _item_path(where, name), name)

    fields = {name: shape.schema for name, shape in shapes.items()}
    return Shape(check, {"type": "object", "properties": fields, "required": list(required)})


def complete(shapes: Mapping[str, Shape]) -> Shape:
    """An object with all of these fields."""
    return record(shapes, tuple(shapes))


def document(shapes: Mapping[str, Shape], required: tuple[str, ...]) -> Shape:
    """What a command prints: an object with these fields and the number of its ``schema``."""
    return record({"schema": integer, **shapes}, ("schema", *required))


def json_schema(shape: Shape, title: str) -> dict[str, Any]:
    """The schema as a document of its own, with every named shape once under ``$defs``."""
    defined: dict[str, Any] = {}

    def with_references(schema: Any) -> Any:
        if isinstance(schema, list):
            return [with_references(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        plain = {key: with_references(value) for key, value in schema.items()}
        # In a table of properties "title" is a field.
        if isinstance(name := plain.get("title"), str):
            defined[name] = plain
            return {"$ref": f"#/$defs/{name}"}
        return plain

    schema = with_references(dict(shape.schema))
    definitions = {"$defs": defined} if defined else {}
    return {"$schema": DIALECT, "title": title, **schema, **definitions}


def without_misshapen(shape: Shape, value: object) -> tuple[Any, tuple[str, ...]]:
    """A copy of ``value`` (plain JSON) that ``shape`` accepts. Details that it refuses are removed
    at the lowest possible level, with a sentence about each.

    Raises ``ShapeError`` if the value itself has another type, or lacks a required field.
    """
    accepted = value
    removed: list[str] = []
    first: ShapeError | None = None
    while True:
        try:
            shape(accepted, "")
        except ShapeError as error:
            # What is at fault, and not that it is missing once it was taken out.
            first = first or error
            if not error.path:
                raise first from None
            # What is right is not copied, which it is nearly always.
            accepted = copy.deepcopy(value) if not removed else accepted
            removed.append(str(error))
            _remove_at(accepted, error.path)
        else:
            return accepted, tuple(removed)


def _remove_at(value: Any, path: list[str | int]) -> None:
    for key in path[:-1]:
        value = value[key]
    del value[path[-1]]


def _check_item(shape: Shape, value: object, where: str, key: str | int) -> None:
    try:
        shape.check(value, where)
    except ShapeError as error:
        error.path.insert(0, key)
        raise


def _item_path(where: str, name: str) -> str:
    shown = name if len(name) <= 40 else f"{name[:39]}…"
    return f"{where}.{shown}" if where else shown


def _describe_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, int):
        return "a number that is too large" if abs(value) > 2**53 else str(value)
    type_names: dict[type, str] = {dict: "an object", list: "a list"}
    return type_names.get(type(value), type(value).__name__)
