"""``holdfast forget``: delete the data of a request or a person from a service's store."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Annotated, Any

import typer

from holdfast.cli.options import JsonOutput
from holdfast.core.errors import RecipeError
from holdfast.core.shapes import boolean, count, document, mapping_of, text
from holdfast.core.wording import count_phrase

TABLE_WORDS = {"requests": "request", "answers": "prediction", "texts": "text", "feedback": "label"}


DOCUMENT = document(
    {"by": text, "gone": mapping_of(count), "erased": boolean}, ("by", "gone", "erased")
)


def command(
    store: Annotated[
        str, typer.Option("--store", metavar="URL", help="The service's store: a file, or a URL.")
    ],
    request: Annotated[
        str | None, typer.Option("--request", metavar="ID", help="Delete one request.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", metavar="NAME", help="Delete all requests of a user, as named in /predict."
        ),
    ] = None,
    who: Annotated[
        str | None, typer.Option("--who", metavar="NAME", help="Delete all labels of an annotator.")
    ] = None,
    *,
    output: JsonOutput,
) -> None:
    """Delete requests with their predictions, texts, labels and outcomes, or all labels of an
    annotator (right to erasure).

    The bytes are erased from the store's files. What remains is an event with the time and the
    counts, the id of each deleted request, and the hash of a deleted user until a service has run
    for an hour. `holdfast update` from the store leaves out the rows of an earlier update whose
    label the store no longer has.
    """
    named = {"request": request, "user": user, "who": who}
    given = {name: value for name, value in named.items() if value is not None}
    if len(given) != 1:
        rule = "needs exactly one of --request, --user and --who"
        options_given = ", ".join(f"--{name}" for name in given) or None
        raise RecipeError(
            "holdfast forget", rule, options_given, "E.g. --request ID, as /predict returned it."
        )
    from holdfast.plugins.store.records import request_id, user_mark
    from holdfast.plugins.store.store import open_store

    by: Any
    ((by, value),) = given.items()
    stored_form = {"request": request_id, "user": user_mark}.get(by, str)
    with closing(open_store(store, make=False)) as opened:
        deleted_counts = opened.delete(time.time(), by=by, value=stored_form(value))
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
        return "Nothing to delete was found."
    lines = [f"Deleted: {', '.join(deleted_words)}."]
    lines.append(
        "The data is erased from the store's files."
        if document["erased"]
        else "Another program is reading the store, so the last bytes are not erased yet. A "
        "running service erases them within a minute; without one, the next Holdfast program that "
        "opens or closes the store does."
    )
    lines.append(
        "Runs that were trained on this data still contain it; the next `holdfast update` leaves "
        "it out."
    )
    return "\n".join(lines)
