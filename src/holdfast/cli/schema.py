"""``holdfast schema``: the JSON Schema of ``result.json`` and of what commands print."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from holdfast.cli.commands import COMMANDS, Commands
from holdfast.cli.documents import DOCUMENTS
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.shapes import Shape, json_schema
from holdfast.terminal.layout import entries, width
from holdfast.terminal.streams import json_text

WHAT = {
    "result": "result.json of a run; train, cv, tune, distill, meta and update print it",
    "plan": "what --dry-run --json prints",
    "event": "a line of events.jsonl",
    "predict": "a line that holdfast predict prints or writes to a .jsonl file",
    "chat": "a line that holdfast chat --json prints",
}


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The document; without it, their list.")
    ] = None,
) -> None:
    """Print the JSON Schema of a document: result.json, or what a command prints with --json.

    Fields are added at any time, so a schema allows fields that it does not name.
    """
    if name is None:
        known = [(one, WHAT.get(one, f"what holdfast {one} --json prints")) for one in names()]
        typer.echo("\n".join(entries(known, width())))
        return
    typer.echo(json_text(schema_of(name)))


def names() -> list[str]:
    """The names of all documents."""
    return [*DOCUMENTS, *(name for name, _ in _plugin_shapes())]


def shape_of(name: str) -> Shape:
    """The shape of the document. Raises ``RecipeError`` for an unknown name."""
    shapes = {**DOCUMENTS, **dict(_plugin_shapes())}
    if name not in shapes:
        raise RecipeError(
            f"holdfast schema {name}", "is no document", name, suggest_name(name, names())
        )
    return shapes[name]


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the document. Raises ``RecipeError`` for an unknown
    name."""
    return json_schema(shape_of(name), f"holdfast {name}")


def _plugin_shapes() -> Iterator[tuple[str, Shape]]:
    commands = Commands()
    for name in commands:
        if name not in COMMANDS:
            module = importlib.import_module(commands.entry(name).module)
            if hasattr(module, "DOCUMENT"):
                yield name, module.DOCUMENT
