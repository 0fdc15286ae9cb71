"""One update with a person watching."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.request import Request
from holdfast.contract.run_folder import default_folder, is_finished
from holdfast.core.printable import printable
from holdfast.terminal.watch import train_watched

if TYPE_CHECKING:
    from holdfast.plugins.update.options import UpdateOptions


def updated(
    asking: UpdateOptions,
    out: Path | None,
    *,
    resume: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Do what ``holdfast update`` does once: the result, and the new run's folder."""
    from holdfast.core.run_files import read_result
    from holdfast.plugins.update.options import begin, no_update

    # What a default folder is called after.
    source = f"{asking.run.resolve().name}-updated"
    if resume:
        out = out or default_folder(source, True)
        if is_finished(out):
            result = read_result(out)
            if "update" not in result:
                raise no_update(out)
            _tell(asking.feedback, result, out)
            return result, out
    elif out is not None:
        from holdfast.contract.run_folder import check_place

        # Before the rows are read and joined.
        check_place(out, False)
    begun = begin(asking, out, resume=resume)
    request = Request(source, out=out, resume=resume, held=begun.held)
    result, folder = train_watched(
        request, begun.recipe, quiet=quiet, verbose=verbose, procedure=begun.procedure
    )
    _tell(asking.feedback, result, folder)
    return result, folder


def _tell(where: str | None, result: Mapping[str, Any], folder: Path) -> None:
    """The gate's decision joins the events of the store that the feedback came of, once."""
    import time

    from holdfast.core.errors import StoreError
    from holdfast.plugins.update.rounds import tell_store

    block = result["update"]
    body = {"run": str(folder), "from": block["from"]}
    body |= {key: block["gate"][key] for key in ("decision", "because")}
    try:
        tell_store(where, "gate", body, time.time(), once=True)
    except StoreError as error:
        told = f"the gate's decision was not written into the store: {error.what} {error.rule}"
        sys.stderr.write(printable(f"holdfast update: {told}") + "\n")
