"""An update with a person watching, once or on a schedule."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
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
    from holdfast.plugins.update.options import begin, folder_name, no_update

    source = folder_name(asking.run)
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


def rounds(
    asking: UpdateOptions,
    every: str,
    out: Path | None,
    least: int,
    told: Callable[[Mapping[str, Any], Mapping[str, Any] | None, Path], None],
    *,
    quiet: bool = False,
    most: int | None = None,
) -> None:
    """Do what ``holdfast update --every`` does, until it is ended. ``told`` hears each round: its
    line of ``rounds.jsonl``, the result of its update and the run's folder (of a round that was
    skipped ``None``, and the folder of all)."""
    from holdfast.plugins.update.rounds import Rounds, schedule_of

    schedule = schedule_of(asking, every, out, least)

    def do(asking: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        return updated(asking, folder, resume=resume, quiet=True)[0]

    def ended(line: Mapping[str, Any], result: Mapping[str, Any] | None) -> None:
        told(line, result, schedule.folder / line.get("run", ""))

    def say(line: str) -> None:
        if not quiet:
            sys.stderr.write(printable(f"holdfast update: {line}") + "\n")
            sys.stderr.flush()

    Rounds(asking, schedule, do, say, serving=in_service, ended=ended).run(most)


def in_service(asking: UpdateOptions) -> Path:
    """The run that took the place of the one that was asked for, by the store that the feedback
    comes of; else that one."""
    from holdfast.plugins.service.promotion import standings
    from holdfast.plugins.store.store import open_store
    from holdfast.plugins.update.feedback import is_store
    from holdfast.runs.threshold import served_name

    if asking.feedback is None or not is_store(asking.feedback):
        return asking.run
    store = open_store(asking.feedback)
    try:
        found = standings(store).get(served_name(asking.run))
    finally:
        store.close()
    return asking.run if found is None else found.run
