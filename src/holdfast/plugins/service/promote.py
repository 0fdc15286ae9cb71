"""``holdfast promote``: a run takes the place of the model that a store's servers serve."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import JsonOutput
from holdfast.terminal.layout import entries

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
    *,
    output: JsonOutput,
) -> None:
    """Let RUN take the place of the model in service, as far as the live comparison has come, and
    write down who did so when. It goes by the latest evidence about the two: the gate of the
    update, and what a live comparison found since. Exit code 2 where that is against RUN (its gate
    rejected it, or a comparison found it worse) or lacking (its gate is inconclusive, and no
    comparison found it better), unless --force. Running servers change over within seconds and
    lose no request; servers that are started again serve it too."""
    from holdfast.plugins.service.promotion import promote
    from holdfast.plugins.store.store import open_store

    with closing(open_store(store)) as opened:
        promotion = promote(opened, run, undo=undo, instead_of=instead_of, force=force)
    output.show(
        promotion.to_json(), lambda columns: promotion_text(promotion, opened.name, columns)
    )


def promotion_text(promotion: Promotion, store: str, columns: int) -> str:
    """The change, who made it, and the evidence; ``store`` is named without a password."""
    direction = "back to" if promotion.undo else "to"
    lines = [("Serves", f"from {promotion.before} {direction} {promotion.after} ({promotion.run})")]
    lines += [("Evidence", line) for line in promotion.notes]
    if promotion.evidence is not None:
        lines.append(("Compared", promotion.evidence["because"]))
    lines.append(("By", f"{promotion.user}; event {promotion.number} of the store"))
    if not promotion.undo:
        lines.append(("Take back", f"holdfast promote {promotion.run} --store {store} --undo"))
    lines.append(("Servers", "those of this store change over within seconds"))
    return "\n".join(entries(lines, columns))
