"""``holdfast promote``: a run takes the place of the model that a store's servers serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.core.printable import printable
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from holdfast.plugins.service.promotion import Promotion


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run to serve; with --undo the one to go.")
    ],
    store: Annotated[
        str, typer.Option(metavar="URL", help="The servers' store: a file of SQLite, or a URL.")
    ],
    undo: Annotated[
        bool, typer.Option("--undo", help="Give its place back to the model before it.")
    ] = False,
    instead_of: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Whose place, where the store has servers of several."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even where the evidence is against it, or lacking.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Let RUN take the place of the model in service, as far as the live comparison has come, and
    write down who did so when. It goes by the latest evidence about the two: the gate of the
    update, and what a live comparison found since. Exit code 2 where that is against RUN (its gate
    rejected it, or a comparison found it worse) or lacking (its gate is inconclusive, and no
    comparison found it better), unless --force. Running servers change over within seconds and
    lose no request; servers that are started again serve it too."""
    from holdfast.plugins.service.promotion import promote
    from holdfast.plugins.store.store import open_store

    opened = open_store(store)
    try:
        made = promote(opened, run, undo=undo, instead_of=instead_of, force=force)
    finally:
        opened.close()
    typer.echo(json_text(made.to_json()) if as_json else printable(shown(made, opened.name)))


def shown(made: Promotion, store: str) -> str:
    """What was changed, by whom, and on what evidence; ``store`` is named without a password."""
    from holdfast.terminal.say import entry, width

    columns = width()
    back = "back to" if made.undo else "to"
    entries = [("Serves", f"from {made.before} {back} {made.after} ({made.run})")]
    entries += [("Evidence", line) for line in made.told]
    if made.evidence is not None:
        entries.append(("Compared", made.evidence["because"]))
    entries.append(("By", f"{made.who}; event {made.number} of the store"))
    if not made.undo:
        entries.append(("Take back", f"holdfast promote {made.run} --store {store} --undo"))
    entries.append(("Servers", "those of this store change over within seconds"))
    return "\n".join(line for name, value in entries for line in entry(name, value, columns))
