"""The rows of a request, checked as far as it can be done without the model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.plugins.service.records import EngineFacts
from holdfast.plugins.service.settings import Serving
from holdfast.plugins.service.web.faults import Fault, bad

WAYS = ("texts", "text", "rows", "row")
EXAMPLE = {"texts": '{"texts": ["…"]}', "rows": '{"rows": [{…}]}'}


def rows_of(
    body: Mapping[str, Any], facts: EngineFacts, settings: Serving, *, most: int | None = None
) -> tuple[dict[str, Any], ...]:
    """The rows that a body names by one of ``text``, ``texts``, ``row`` and ``rows``.

    Raises ``Fault`` 400 where it names none or several, a row has not all columns of the model or
    another kind of value, or there are more of them than is taken.
    """
    found = [name for name in WAYS if body.get(name) is not None]
    if len(found) != 1:
        rule = "names no rows" if not found else "names rows in several ways"
        ways = " or ".join(f'"{name}"' for name in WAYS)
        raise bad("the body", rule, found or list(body)[:10], f"Send one of {ways}.")
    (name,) = found
    given = [body[name]] if name in ("text", "row") else body[name]
    if not isinstance(given, list):
        raise bad(name, "must be a list", given, f"Send {EXAMPLE[name]}.")
    most = settings.max_rows if most is None else most
    if not given:
        raise bad(name, "is empty", None, "Send one row at least.")
    if len(given) > most:
        raise bad(
            name, f"holds more than the {most:,} rows that are taken", len(given), "Send less."
        )
    if name in ("texts", "text"):
        return _of_texts(given, facts, settings.max_characters)
    return tuple(_checked(row, place, facts, settings) for place, row in enumerate(given))


def _of_texts(texts: Sequence[Any], facts: EngineFacts, longest: int) -> tuple[dict[str, Any], ...]:
    if len(facts.columns) != 1:
        columns = ", ".join(facts.columns)
        rule = f"cannot stand for rows of this model, which reads the columns {columns}"
        raise bad("texts", rule, None, 'Send {"rows": [{"' + facts.columns[0] + '": …}]}.')
    if facts.task == "token-classification":
        column = facts.columns[0]
        rule = "cannot be sent to a model of tokens (token-classification), whose rows are lists"
        raise bad("texts", rule, None, f'Send {{"rows": [{{"{column}": ["…", "…"]}}]}}.')
    (column,) = facts.columns
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise bad(f"texts[{place}]", "is no text", text, "Send a string a row.")
        if len(text) > longest:
            raise _too_long(f"texts[{place}]", len(text), longest)
    return tuple({column: text} for text in texts)


def _checked(row: Any, place: int, facts: EngineFacts, settings: Serving) -> dict[str, Any]:
    where = f"rows[{place}]"
    if not isinstance(row, dict):
        raise bad(where, "is no object", row, "Send an object a row, by column.")
    for column in facts.columns:
        if column not in row:
            rule = f"has no column {column!r}, which the model reads"
            close = difflib.get_close_matches(column, list(row)[:100], n=1)
            remedy = f"Rename {close[0]!r} to {column!r}." if close else "Add it; null is no text."
            raise bad(where, rule, list(row)[:10], remedy)
        value = row[column]
        if isinstance(value, str) and len(value) > settings.max_characters:
            raise _too_long(f"{where}.{column}", len(value), settings.max_characters)
    return row


def _too_long(where: str, found: int, longest: int) -> Fault:
    return bad(
        where,
        f"has more than the {longest:,} characters that are taken",
        found,
        "Shorten it, or start the service with --set serve.max_characters=N.",
    )
