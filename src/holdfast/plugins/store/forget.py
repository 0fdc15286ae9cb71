"""``holdfast forget``: delete from a service's store what belongs to a request or a person."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Annotated, Any

import typer

from holdfast.cli.options import JsonOutput
from holdfast.core.errors import RecipeError
from holdfast.core.wording import count_phrase

TABLE_WORDS = {"requests": "request", "answers": "answer", "texts": "text", "feedback": "label"}


def command(
    store: Annotated[
        str, typer.Option("--store", metavar="URL", help="The service's store: a file, or a URL.")
    ],
    request: Annotated[
        str | None, typer.Option("--request", metavar="ID", help="All of one request.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", metavar="NAME", help="All requests of a user, as /predict named him."
        ),
    ] = None,
    who: Annotated[
        str | None, typer.Option("--who", metavar="NAME", help="All labels that a person gave.")
    ] = None,
    *,
    output: JsonOutput,
) -> None:
    """Delete requests with their answers, texts, labels and outcomes, or the labels of a person.

    The bytes leave the store's files. What stays is an event that says when and how many, and a
    number for each, by which `holdfast update` knows what it must not learn from again: rows that
    an earlier update learned from are left out of the next one.
    """
    named = {"request": request, "user": user, "who": who}
    given = {name: value for name, value in named.items() if value is not None}
    if len(given) != 1:
        rule = "needs one of --request, --user and --who"
        options_given = ", ".join(f"--{name}" for name in given) or None
        raise RecipeError(
            "what to forget", rule, options_given, "E.g. --request ID, as /predict gave it."
        )
    from holdfast.plugins.store.records import user_mark
    from holdfast.plugins.store.store import open_store

    by: Any
    ((by, value),) = given.items()
    with closing(open_store(store, make=False)) as opened:
        deleted_counts = opened.delete(
            time.time(), by=by, value=user_mark(value) if by == "user" else value
        )
        document = {
            "schema": 1,
            "by": by,
            "gone": deleted_counts,
            "erased": not opened.pending_scrubs(),
        }
    output.show(document, lambda _: _summary(document))


def _summary(document: dict[str, Any]) -> str:
    deleted_words = [
        count_phrase(n, TABLE_WORDS[name])
        for name, n in document["gone"].items()
        if n and name in TABLE_WORDS
    ]
    if not deleted_words:
        return "Nothing of it was there."
    lines = [f"Deleted: {', '.join(deleted_words)}."]
    lines.append(
        "Its bytes have left the store's files."
        if document["erased"]
        else "Another program is reading the store: the last bytes leave its files within a minute "
        "where a service runs, else as soon as a program of Holdfast opens or closes it."
    )
    lines.append("Runs that learned from them know them still: `holdfast update` leaves them out.")
    return "\n".join(lines)
