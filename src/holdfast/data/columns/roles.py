"""Choose the column for a role: the text, the label, the source, the target, the image's path.

All roles use one procedure. A role has usual names, and tests that are applied in order to the
remaining columns. A test that exactly one column passes decides the role, and gives the reason. The
roles are defined at the end of this file; the rules of one role only (rivals of a label, pairs of
names) are where that role is chosen.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.decisions import notify
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision
from holdfast.data.chats.turns import NAMED_TEMPLATES
from holdfast.data.columns.profile import Profile, column_key, columns_by_key, split_names
from holdfast.data.options import RowOptions
from holdfast.data.raw import Raw

_SETTING = "data.template"


def template_columns(template: str, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that the template names, in its order; each must be one of ``names``.

    ``{{`` and ``}}`` are literal braces. Formats and conversions (``{a:>5}``, ``{a!r}``) are
    refused.
    """
    fields = [field for _, field in _pieces(template) if field is not None]
    if not fields:
        remedy = (
            'Name columns in braces: "{title} [SEP] {body}". To select a chat template '
            f"(causal-lm), give its name. {suggest_name(template, list(NAMED_TEMPLATES))}"
        )
        raise RecipeError(_SETTING, "names no column", template, remedy)
    for field in fields:
        if field not in names:
            rule = f"names a column that does not exist: {field!r}"
            raise DataError(_SETTING, rule, template, suggest_name(field, list(names)))
    return tuple(dict.fromkeys(fields))


def named_columns(template: str) -> tuple[str, ...]:
    """The columns that the template names, in its order."""
    return tuple(dict.fromkeys(field for _, field in _pieces(template) if field is not None))


def template_of(names: Sequence[str]) -> str:
    """The template that joins these columns by line breaks."""
    braced = [name.replace("{", "{{").replace("}", "}}") for name in names]
    return "\n".join("{" + name + "}" for name in braced)


def fill_template(template: str, columns: dict[str, pa.Array]) -> pa.Array:
    """One text per row; null where one of its columns is null."""
    parts: list[object] = []
    for literal, field in _pieces(template):
        parts += [literal] if literal else []
        parts += [columns[field]] if field is not None else []
    return pc.binary_join_element_wise(*parts, "", null_handling="emit_null")


def _pieces(template: str) -> list[tuple[str, str | None]]:
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        rule = f"is not a valid template: {error}"
        raise RecipeError(_SETTING, rule, template, "Double a literal brace: {{ or }}.") from error
    if any(format or conversion for _, _, format, conversion in pieces):
        raise RecipeError(
            _SETTING, "has a format or a conversion", template, "Use only column names: {title}."
        )
    return [(literal, field) for literal, field, _, _ in pieces]


@dataclass(frozen=True, slots=True)
class RoleQuery:
    """A test for a role. ``scope`` says for which columns: those with a ``usual`` name, the
    ``likely`` ones (the same, or all where no column has a usual name), or ``all``. ``because`` may
    contain a field of the column's profile. If several columns pass and ``last`` is set, no further
    test is applied."""

    scope: Literal["usual", "likely", "all"]
    fits: Callable[[Profile], bool]
    because: str
    last: bool = False


@dataclass(frozen=True, slots=True)
class ColumnRole:
    """Its ``usual`` names, as ``column_key`` writes them, the more usual first, and its tests
    (``questions``) in order. A usual name counts only for a column that the role ``accepts``."""

    usual: tuple[str, ...]
    questions: tuple[RoleQuery, ...]
    accepts: Callable[[Profile], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class Guess:
    """The chosen column ``name`` and the reason. Or ``None``, and in ``among`` the candidates:
    those that passed the last test that any column passed."""

    name: str | None
    because: str
    among: tuple[str, ...]


def guess_column(role: ColumnRole, profiles: Mapping[str, Profile]) -> Guess:
    """Choose the column for ``role`` among the remaining ones."""
    keys = columns_by_key(profiles)
    usual = [
        keys[name] for name in role.usual if name in keys and role.accepts(profiles[keys[name]])
    ]
    columns_in_scope = {"usual": usual, "likely": usual or list(profiles), "all": list(profiles)}
    among = columns_in_scope["likely"]
    for question in role.questions:
        matches = [
            name for name in columns_in_scope[question.scope] if question.fits(profiles[name])
        ]
        if len(matches) == 1:
            column = profiles[matches[0]]
            reason = question.because.format(words=f"{column.words:.0f}", distinct=column.distinct)
            return Guess(matches[0], reason, (matches[0],))
        among = matches or among
        if question.last and matches:
            break
    return Guess(None, "", tuple(among))


def usual_names(names: Iterable[str], usual: Sequence[str]) -> list[str]:
    """The columns with usual names, the more usual first; of twins the first."""
    # In reverse, so that the first of twins overwrites the others.
    keys = {column_key(name): name for name in reversed([*names])}
    return [keys[name] for name in usual if name in keys]


def usual_pair(
    pairs: Iterable[tuple[str, str]], firsts: Iterable[str], seconds: Iterable[str]
) -> tuple[str, str] | None:
    """The first of the usual ``pairs`` of names that occurs among these columns."""
    one, two = ({column_key(name) for name in names} for names in (firsts, seconds))
    return next(((a, b) for a, b in pairs if a in one and b in two), None)


def pair_reason(pair: tuple[str, str]) -> str:
    """The reason for choosing a usual pair of names."""
    return f"{pair[0]!r} and {pair[1]!r} are a usual pair of names"


def check_present(raw: Raw, name: str) -> None:
    """Raise ``DataError`` where the source has no such column."""
    if name not in raw.names:
        raise DataError(raw.source, f"has no column {name!r}", None, suggest_name(name, raw.names))


def check_column(raw: Raw, name: str) -> None:
    """Refuse a column that is missing, or whose cells are not plain values."""
    check_present(raw, name)
    if "nested" in raw.column_types.get(name, set()):
        rule = "holds lists, objects or bytes, not plain values"
        remedy = "Write one plain value per cell, or choose another column."
        raise DataError(f"{raw.source}, column {name!r}", rule, None, remedy)


def check_named(raw: Raw, options: RowOptions) -> str | None:
    """Refuse a named text or group column that cannot be read, and such a label column where it is
    needed or present. Returns the named label column if it is present."""
    for name in (*(options.text or ()), *(() if options.group is None else (options.group,))):
        check_column(raw, name)
    if options.label is None or not (options.need_label or options.label in raw.names):
        return None
    check_column(raw, options.label)
    return options.label


def columns_of_template(
    raw: Raw, template: str, text_columns: Sequence[str] | None
) -> tuple[str, ...]:
    """The columns that a template names. Raises ``RecipeError`` where ``text_columns`` names
    others."""
    names = template_columns(template, raw.names)
    if text_columns and set(text_columns) != set(names):
        rule = f"and data.text name different columns: {', '.join(text_columns)}"
        remedy = "Give only the template: it names its columns."
        raise RecipeError("data.template", rule, template, remedy)
    return names


def join_template(texts: Sequence[str], min_columns: int, because: str) -> str | None:
    """The template that joins ``texts`` if there are ``min_columns`` or more, else ``None``."""
    if len(texts) < min_columns:
        return None
    template = template_of(texts)
    notify(Decision("data.template", repr(template), because))
    return template


def refuse_two_roles(names: Sequence[str | None], options: str) -> None:
    """Raise ``RecipeError`` where one column has two roles."""
    for name in filter(None, names):
        if names.count(name) > 1:
            remedy = f"Choose different columns with {options}."
            raise RecipeError(f"column {name!r}", "is named for two roles", None, remedy)


def could_be_text(column: Profile) -> bool:
    """Whether a column has a text's name, or holds what could be texts."""
    named = column_key(column.name) in TEXT.usual and not column.numeric
    return named or column.wordy


def _always(_: Profile) -> bool:
    return True


def _is_wordy(column: Profile) -> bool:
    return column.wordy


def _is_not_label_name(column: Profile) -> bool:
    return column_key(column.name) not in LABEL.usual


def _holds_words(column: Profile) -> bool:
    return _is_not_label_name(column) and not column.numeric and not column.repeats


TEXT = ColumnRole(
    split_names(
        """
        text texts sentence review review_text reviewtext content comment comment_text
        message tweet utterance document body description abstract article post question
        query title headline summary synopsis
        """
    ),
    (
        RoleQuery("usual", _always, "it is the only column with a usual name for texts"),
        # Several text columns: ``columns.py`` may then choose the longest.
        RoleQuery(
            "likely",
            could_be_text,
            "it is the only column of texts ({words} words on average)",
            last=True,
        ),
        RoleQuery("all", _is_not_label_name, "no other column could be the text"),
        RoleQuery("all", _holds_words, "it is the only column of words that mostly differ"),
    ),
    lambda column: not column.numeric,
)
LABEL = ColumnRole(
    split_names(
        """
        label labels class category target sentiment intent topic polarity stance emotion
        genre section tag y rating stars coarse_label label_text gold_label is_duplicate
        """
    ),
    (
        RoleQuery("usual", _always, "it is the only column with a usual name for labels"),
        RoleQuery(
            "likely",
            lambda c: c.repeats,
            "it is the only column with few distinct values ({distinct})",
        ),
    ),
)
SOURCE = ColumnRole(
    split_names(
        """
        source src input input_text dialogue dialog conversation article document question
        text prompt instruction content body context
        """
    ),
    (
        RoleQuery("usual", _always, "it is the only column with a usual name for sources"),
        RoleQuery("likely", _is_wordy, "it is the only column of texts"),
    ),
)
TARGET = ColumnRole(
    split_names(
        """
        target tgt output target_text summary highlights answer abstract completion response
        translation headline title sql pandas code label
        """
    ),
    (
        RoleQuery("usual", _always, "it is the only column with a usual name for targets"),
        RoleQuery("likely", _is_wordy, "it is the only other column of texts"),
    ),
)
