"""YAML to plain values, limited to what a settings file needs.

Values follow YAML 1.2: ``yes``, ``off``, ``1:30``, ``010`` and ``2024-01-31`` are text, not a
Boolean, 90, 8 and a date. Anchors and merge keys are allowed, up to a limit on their expanded size.
Tags of other types, repeated keys and excessive nesting are refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from holdfast.core.discovery import missing_path_remedy
from holdfast.core.errors import RecipeError
from holdfast.core.input_errors import reading_errors

# The longest recipe of this project's tests and benchmarks has 4 kB and 130 values, five deep.
MAX_FILE_BYTES = 1_000_000  # bytes
MOST_VALUES = 20_000  # with every alias written out
MAX_DEPTH = 30  # levels
MAX_DIGITS = 100  # digits
MERGE = "tag:yaml.org,2002:merge"
TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
SCALAR_PATTERNS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)", list("-+0123456789")),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
}


class TooMuchError(yaml.YAMLError):
    """A document beyond the limits; its message is for the user."""


if TYPE_CHECKING:
    from yaml import SafeLoader as Fastest
else:
    # libyaml reads ten times as fast; PyYAML may be built without it.
    Fastest = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(Fastest):
    """Only the types of ``TAGS``, each in one spelling."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                # PyYAML keeps the last of two and says nothing.
                if key.value in keys:
                    raise TooMuchError(f"{_line_of(key)}: the key {key.value[:80]!r} is repeated")
                keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            raise TooMuchError(f"{_line_of(node)}: a number of {len(node.value)} digits")
        return int(super().construct_yaml_int(node))


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in TAGS
}
for _name, (_pattern, _first) in SCALAR_PATTERNS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first
    )
_Loader.add_implicit_resolver(MERGE, re.compile("^<<$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def from_yaml(text: str) -> Any:
    """Only ``None``, Booleans, numbers, text, lists and dictionaries.

    Raises ``yaml.YAMLError`` for anything that is not YAML, holds other types, or exceeds the
    limits.
    """
    try:
        _check_bounds(text)
        return yaml.load(text, Loader=_Loader)
    except UnicodeEncodeError as error:
        # What a shell hands over of bytes that are no text.
        raise yaml.YAMLError(f"character {error.start + 1} is an incomplete character") from None


def read_yaml(path: Path) -> Any:
    """The settings in a file. Raises ``RecipeError`` if the file is missing, not a regular file,
    over 1 MB, not text or not YAML."""
    source = str(path)
    with reading_errors(
        source, RecipeError, "cannot be read", "Name a recipe: a YAML file of settings."
    ):
        if not path.exists():
            raise RecipeError(source, "does not exist", None, missing_path_remedy(path))
        # Opening a pipe would wait for ever for somebody to write.
        if not path.is_file():
            path_type = "a folder" if path.is_dir() else "a pipe or a device"
            raise RecipeError(source, f"is {path_type}, not a file", None, "Name the recipe file.")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            rule = f"is too large for a recipe, which may have at most {MAX_FILE_BYTES:,} bytes"
            remedy = "Name the recipe file; the data file goes into it as data.path."
            raise RecipeError(source, rule, size, remedy)
        content = path.read_bytes()
    try:
        # Editors on Windows put a mark before the first letter.
        return from_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RecipeError(source, "cannot be read", str(error), "Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise RecipeError(source, "is not valid YAML", _reason(error), "Correct it.") from None


def _reason(error: yaml.YAMLError) -> str:
    """What is wrong and where, in one line."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return str(error)
    return f"{problem}, line {mark.line + 1}, column {mark.column + 1}"


def _check_bounds(text: str) -> None:
    """Check the document's events before values are built: its depth, and its size with aliases
    expanded. Five hundred bytes of aliases of aliases can expand to a billion values."""
    sizes: dict[str, int] = {}
    open_collections: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_Loader):
        values = 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_collections.append((event.anchor, total))
            values = 1
            if len(open_collections) > MAX_DEPTH:
                raise TooMuchError(f"{_line_of(event)}: nested beyond {MAX_DEPTH} levels")
        elif isinstance(event, yaml.ScalarEvent):
            values = 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if any(anchor == name for anchor, _ in open_collections):
                raise TooMuchError(f"{_line_of(event)}: *{name[:80]} contains itself")
            values = sizes.get(name, 1)
        total += values
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_collections.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > MOST_VALUES:
            raise TooMuchError(
                f"{_line_of(event)}: more than {MOST_VALUES:,} values, aliases written out"
            )


def _line_of(part: Any) -> str:
    return f"line {part.start_mark.line + 1}"
