"""YAML as a person means it, and nothing else of it."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some

from holdfast.core.errors import RecipeError
from holdfast.core.yaml_values import MOST_VALUES, from_yaml
from holdfast.recipe import Recipe, known_keys, override, parse

PLAIN = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False)
    | some.text(some.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(
            some.text(some.characters(exclude_categories=["Cs", "Cc"])), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(PLAIN)
@settings(max_examples=150, derandomize=True)
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    """PyYAML is the oracle: whatever it writes, quoting what its 1.1 would misread, comes back."""
    assert from_yaml(yaml.safe_dump(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("010", "010"),
        ("yes", "yes"),
        ("off", "off"),
        ("2024-01-31", "2024-01-31"),
        ("0o17", "0o17"),
        ("1e5", "1e5"),
        ("=", "="),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0x1F", 31),
        ("0b11", 3),
        ("1_000", 1000),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.5e3", 1500.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("'12'", "12"),
        ("[a, 1]", ["a", 1]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_a_word_is_a_word_and_a_number_a_number(text: str, value: Any) -> None:
    found = from_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("count", [MOST_VALUES - 1, MOST_VALUES])
def test_the_bound_is_on_values_with_aliases_written_out(count: int) -> None:
    """A list of ``half`` words and a list that names it: the outer table, two keys, two lists."""
    half = (count - 5) // 2
    text = f"a: &x [{', '.join(['y'] * half)}]\nb: *x\n"
    values = 2 * half + 5
    if values <= MOST_VALUES:
        assert len(from_yaml(text)["b"]) == half
    longer = text.replace("[", "[y, y, ")
    with pytest.raises(yaml.YAMLError, match="more than 20,000 values"):
        from_yaml(longer)


@given(some.sampled_from(known_keys()), some.text(max_size=30))
@settings(max_examples=150, derandomize=True)
def test_any_setting_is_taken_or_refused(key: str, text: str) -> None:
    with contextlib.suppress(RecipeError):
        made = override(Recipe(), [f"{key}={text}"])
        assert parse(from_yaml(made.to_yaml()), "again") == made


def test_recipes_are_read_without_libyaml() -> None:
    """PyYAML may be built without it."""
    code = (
        "import sys; sys.modules['yaml._yaml'] = None\n"
        "import yaml; assert not hasattr(yaml, 'CSafeLoader')\n"
        "from holdfast.core.yaml_values import from_yaml\n"
        "print(from_yaml('a: {b: 010, c: yes, d: 1e-3}'))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stdout.strip() == str(from_yaml("a: {b: 010, c: yes, d: 1e-3}")), ended.stderr
