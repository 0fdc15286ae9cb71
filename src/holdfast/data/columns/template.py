"""A template such as ``"{question} [SEP] {context}"`` that makes one text of several columns."""

from __future__ import annotations

import string
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.discovery import nearest
from holdfast.core.errors import DataError, RecipeError

_WHAT = "data.template"


def template_columns(template: str, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that the template names, in its order; each must be one of ``names``.

    ``{{`` and ``}}`` stand for braces. Formats and conversions (``{a:>5}``, ``{a!r}``) are refused.
    """
    fields = [field for _, field in _pieces(template) if field is not None]
    if not fields:
        raise RecipeError(
            _WHAT, "names no column", template, 'Name columns in braces: "{title} [SEP] {body}".'
        )
    for field in fields:
        if field not in names:
            raise DataError(
                _WHAT,
                f"names a column that is not there: {field!r}",
                template,
                nearest(field, list(names)),
            )
    return tuple(dict.fromkeys(fields))


def named_columns(template: str) -> tuple[str, ...]:
    """The columns that the template names, in its order."""
    return tuple(dict.fromkeys(field for _, field in _pieces(template) if field is not None))


def template_of(names: Sequence[str]) -> str:
    """The template that joins these columns by line breaks."""
    braced = [name.replace("{", "{{").replace("}", "}}") for name in names]
    return "\n".join("{" + name + "}" for name in braced)


def fill_template(template: str, columns: dict[str, pa.Array]) -> pa.Array:
    """One text a row; null where one of its columns is null."""
    parts: list[object] = []
    for literal, field in _pieces(template):
        parts += [literal] if literal else []
        parts += [columns[field]] if field is not None else []
    return pc.binary_join_element_wise(*parts, "", null_handling="emit_null")


def _pieces(template: str) -> list[tuple[str, str | None]]:
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise RecipeError(
            _WHAT, f"is not a template: {error}", template, "Write a plain brace twice: {{ or }}."
        ) from error
    if any(format or conversion for _, _, format, conversion in pieces):
        raise RecipeError(
            _WHAT, "has a format or a conversion", template, "Name columns only: {title}."
        )
    return [(literal, field) for literal, field, _, _ in pieces]
