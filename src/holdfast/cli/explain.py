"""``holdfast explain``: why a run says what it says of these rows."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import Force, Output, set_option
from holdfast.cli.run_input import LIMITS, TextOptions, piped, runs_and_data
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.machine import refuse_low_memory
from holdfast.core.printable import printable_json

if TYPE_CHECKING:
    from holdfast.analyses.explain.explanation import Explanation
    from holdfast.core.outputs import OutputFile

ENDINGS = (".html", ".jsonl")


def command(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [DATA|-]",
            help="A finished run, then the rows; without them, the words that carry each class.",
        ),
    ],
    read: TextOptions,
    rows: Annotated[
        int, typer.Option(metavar="N", help="Explain the first N rows; each takes a second or so.")
    ] = 50,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page (.html) or lines (.jsonl).")
    ] = None,
    force: Force = False,
    set_: Annotated[list[str] | None, set_option(f"{LIMITS}KEY=VALUE: read more.")] = None,
    *,
    output: Output,
) -> None:
    """Show what carries RUN's answers to the rows of DATA (or to one text a line, with -).

    Each word is taken away once; a map is shown only where it is better than random.
    """
    refuse_low_memory("torch")
    if len(given) == 1 and out is None:
        _show_carried(Path(given[0]), output)
        return
    run, data = _run_and_data(given)
    target = None if out is None else _target(out, run, data, force)
    from holdfast.analyses.explain.explain import explain
    from holdfast.contract.inference import check_limits
    from holdfast.contract.run_folder import need_run
    from holdfast.terminal.progress import ProgressLine

    # Before all that is piped in is read.
    need_run(run)
    options = read.options(check_limits(set_ or [], "explain"))
    asked = piped(run, options) if data == "-" else data
    line = ProgressLine(output.quiet)
    with output.heard():
        found = explain(
            run,
            asked,
            options,
            rows=rows,
            progress=lambda done, total: line("rows explained", done, total),
        )
    line.close()
    if target is not None:
        _write(target, found)
    output.show(found.to_json(), lambda columns: _shown(found, target, min(80, columns)))


def _shown(found: Explanation, target: OutputFile | None, columns: int) -> str:
    from holdfast.cli.explanation import shown
    from holdfast.report.explanation import answer

    if target is None:
        return shown(found.to_json(), columns)
    return "\n".join([*textwrap.wrap(answer(found.to_json()), columns), str(target.path)])


def _show_carried(run: Path, output: Output) -> None:
    """What the run found when it was made: shown as it is stored."""
    from holdfast.cli.explanation import carried
    from holdfast.contract.run_folder import open_run

    block = open_run(run).get("reasons")
    if not isinstance(block, dict):
        raise RunError(
            str(run),
            "does not say which words carry its classes: an older version made it",
            None,
            "Name rows to explain: holdfast explain RUN DATA; or train again.",
        )
    output.show(block, lambda columns: carried(block, min(80, columns)))


def _run_and_data(given: list[str]) -> tuple[Path, str]:
    runs, data = runs_and_data("explain", given)
    if len(runs) > 1:
        raise RecipeError(
            "holdfast explain",
            "explains one run at a time: the average of several has no words of its own",
            [str(run) for run in runs],
            "Name one of them.",
        )
    return runs[0], data


def _target(out: Path, run: Path, data: str, force: bool) -> OutputFile:
    from holdfast.contract.run_folder import own_files
    from holdfast.core.outputs import check_output
    from holdfast.data.raw import source_path

    if out.suffix.lower() not in ENDINGS:
        raise RecipeError(
            "--out",
            "has an ending that explain does not write",
            str(out),
            f"Choose {' or '.join(ENDINGS)}.",
        )
    source = 0 if data == "-" else source_path(data)
    return check_output(out, [source, *own_files(run)], force=force)


def _write(target: OutputFile, found: Explanation) -> None:
    from holdfast.core.outputs import open_output

    if target.path.suffix.lower() == ".html":
        text = found.page()
    else:
        lines = (json.dumps(line, ensure_ascii=False) for line in found.lines())
        text = "".join(printable_json(line) + "\n" for line in lines)
    with open_output(target) as stream:
        stream.write(text.encode("utf-8"))
