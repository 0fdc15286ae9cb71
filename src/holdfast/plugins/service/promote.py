"""``holdfast promote``: replace the model that a store's servers serve by another run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import JsonOutput
from holdfast.core.shapes import anything, boolean, count, document, list_of, text
from holdfast.terminal.layout import entries

if TYPE_CHECKING:
    from holdfast.plugins.service.promotion import Promotion


DOCUMENT = document(
    {
        **dict.fromkeys(("from", "to", "run", "who"), text),
        "undo": boolean,
        "evidence": anything,
        "number": count,
        "told": list_of(text),
    },
    ("from", "to", "run", "who", "undo", "number"),
)


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run to serve; with --undo the one to remove.")
    ],
    store: Annotated[
        str, typer.Option(metavar="URL", help="The servers' store: an SQLite file or a URL.")
    ],
    undo: Annotated[
        bool, typer.Option("--undo", help="Restore the model that was served before.")
    ] = False,
    instead_of: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Replace this model, if the store has several."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote even against the evidence, or without it.")
    ] = False,
    *,
    output: JsonOutput,
) -> None:
    """Replace the model in service by RUN, and record in the store who did so and when.

    The latest evidence about the two models decides: the gate of the update, and a live comparison
    since then. The exit code is 2 if the evidence is against RUN (its gate rejected it, or a
    comparison found it worse) or missing (its gate is inconclusive, and no comparison found it
    better), unless --force is given. Running servers switch within seconds and lose no request;
    restarted servers serve RUN too.
    """
    from holdfast.plugins.service.promotion import promote
    from holdfast.plugins.store.store import open_store

    with closing(open_store(store, make=False)) as opened:
        promotion = promote(opened, run, undo=undo, instead_of=instead_of, force=force)
    output.show(
        promotion.to_json(), lambda columns: promotion_text(promotion, opened.name, columns)
    )


def promotion_text(promotion: Promotion, store: str, columns: int) -> str:
    """The change, who made it, and the evidence; ``store`` is named without a password."""
    direction = "back to" if promotion.undo else "to"
    lines = [("Served", f"from {promotion.before} {direction} {promotion.after} ({promotion.run})")]
    lines += [("Evidence", line) for line in promotion.notes]
    if promotion.evidence is not None:
        lines.append(("Live test", promotion.evidence["because"]))
    lines.append(("By", f"{promotion.user}; event {promotion.number} of the store"))
    if not promotion.undo:
        lines.append(("Undo", f"holdfast promote {promotion.run} --store {store} --undo"))
    lines.append(("Servers", "the running servers of this store switch within seconds"))
    return "\n".join(entries(lines, columns))
