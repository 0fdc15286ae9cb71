"""``holdfast distill``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from holdfast.cli.options import Seed, Verbose, check_how
from holdfast.core.machine import refuse_too_little
from holdfast.core.printable import printable
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="The teacher; of several the average teaches."),
    ],
    student: Annotated[
        str | None, typer.Option(metavar="NAME", help="The student: a Hugging Face name or folder.")
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="Or the teacher's own network with K of its blocks (half of them)."
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Texts without labels, which the teacher answers."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The student's folder.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any key of a recipe, e.g. distill.temperature=4."
        ),
    ] = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The result alone: no plan, no progress.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Make a smaller model that answers as RUN does: on its rows, its division, its test rows."""
    refuse_too_little("torch")
    check_how(quiet, verbose, None)
    from holdfast.contract.request import Request
    from holdfast.contract.run_folder import is_main_process
    from holdfast.search.student import folder_name, student_recipe
    from holdfast.terminal.say import width
    from holdfast.terminal.watch import train_watched

    recipe = student_recipe(
        runs, student=student, layers=layers, unlabelled=unlabelled, seed=seed, settings=set_ or []
    )
    request = Request(folder_name(runs), out=out, resume=resume)
    result, folder = train_watched(request, recipe, quiet=quiet, verbose=verbose, command="distill")
    if not is_main_process():
        return
    if as_json:
        typer.echo(json_text(result))
        return
    from holdfast.cli.text.result import summary

    lines = summary(result, folder, width())
    typer.echo(printable("\n".join([*lines, "", *shown(result.get("distilled") or {}, width())])))


class Sized(TypedDict, total=False):
    """A model by its size, where that is known."""

    parameters: int | None


def shown(block: Mapping[str, Any], columns: int) -> list[str]:
    """What was kept, beside whom, and how quick it is."""
    from holdfast.terminal.say import entry

    if "because" not in block:
        return entry("Distilled", str(block.get("why") or "nothing is known"), columns)
    metric = block["metric"].replace("_", " ")
    taught, student, alone = block["teacher"], block["student"], block["alone"]
    entries = [
        ("Distilled", block["because"]),
        ("Teacher", f"{metric} {taught['value']:.4g}{_size(taught)}: {', '.join(taught['runs'])}"),
        ("Student", f"{metric} {student['value']:.4g}{_size(student)}: {student['model']}"),
    ]
    agreement = block["agreement"]
    if agreement["value"] is not None:
        what = "correlation of their answers" if "what" in agreement else "says the same"
        entries.append(("Agreement", f"{agreement['value']:.3g} ({what})"))
    bare = alone.get("because") or alone.get("why")
    entries.append(("Alone", str(bare)))
    return [line for name, value in entries for line in entry(name, value, columns)]


def _size(one: Sized) -> str:
    count = one.get("parameters")
    return f", {count / 1e6:,.1f} million parameters" if count else ""
