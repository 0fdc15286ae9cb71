"""``holdfast explain``: why a run says what it says of these rows."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import Force, Output, set_option
from holdfast.cli.run_input import LIMITS, TextOptions, check_target, piped_texts, runs_and_data
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.printable import printable_json
from holdfast.terminal.layout import wrap

if TYPE_CHECKING:
    from holdfast.analyses.explain.explanation import Explanation
    from holdfast.core.outputs import OutputFile

ENDINGS = (".html", ".jsonl")


def command(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [DATA|-]",
            help="A finished run, then rows; without rows, the most important words per class.",
        ),
    ],
    read: TextOptions,
    rows: Annotated[
        int | None,
        typer.Option(metavar="N", help="Explain the first N rows, a second each. Default: 50."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the explanations to a .html or .jsonl file."),
    ] = None,
    force: Force = False,
    set_: Annotated[
        list[str] | None, set_option(f"{LIMITS}KEY=VALUE: larger limits for the data.")
    ] = None,
    *,
    output: Output,
) -> None:
    """Show which words or image regions decide RUN's predictions for DATA (with -, one text per
    line from standard input).

    An attribution is shown only if removing words in its order lowers the score faster than
    random orders do.
    """
    if len(given) == 1 and (out, rows, set_ or None, read) == (None, None, None, TextOptions()):
        _show_class_words(Path(given[0]), output)
        return
    run, data = _run_and_data(given)
    target = None if out is None else check_target(out, ENDINGS, "explain", [run], data, force)
    from holdfast.analyses.explain.explain import ROWS, explain
    from holdfast.contract.inference import check_limits
    from holdfast.terminal.progress import ProgressLine

    options = read.options(check_limits(set_ or [], "explain"))
    texts_or_data = piped_texts(run, options) if data == "-" else data
    line = ProgressLine(output.quiet)
    with output.heard(progress=True):
        explanation = explain(
            run,
            texts_or_data,
            options,
            rows=ROWS if rows is None else rows,
            progress=partial(line, "rows explained"),
        )
    line.close()
    if target is not None:
        _write(target, explanation)
    output.show(
        explanation.to_json(),
        lambda columns: _explanation_text(explanation, target, min(80, columns)),
    )


def _explanation_text(explanation: Explanation, target: OutputFile | None, columns: int) -> str:
    from holdfast.cli.explanation import explanation_text
    from holdfast.report.explanation import explanation_answer

    if target is None:
        return explanation_text(explanation.to_json(), columns)
    return "\n".join([*wrap(explanation_answer(explanation.to_json()), columns), str(target.path)])


def _show_class_words(run: Path, output: Output) -> None:
    """Print the words per class that the run stored."""
    from holdfast.cli.explanation import class_words_text
    from holdfast.contract.run_folder import open_run

    block = open_run(run).get("reasons")
    if not isinstance(block, dict):
        rule = "does not store the words of its classes: it was made by an older version"
        remedy = "Give rows to explain: holdfast explain RUN DATA; or train again."
        raise RunError(str(run), rule, None, remedy)
    output.show(block, lambda columns: class_words_text(block, min(80, columns)))


def _run_and_data(given: list[str]) -> tuple[Path, str]:
    runs, data = runs_and_data("explain", given)
    if len(runs) > 1:
        rule = "explains one run at a time, not the average of several"
        raise RecipeError("holdfast explain", rule, [str(run) for run in runs], "Give one of them.")
    return runs[0], data


def _write(target: OutputFile, explanation: Explanation) -> None:
    from holdfast.core.outputs import open_output

    if target.path.suffix.lower() == ".html":
        text = explanation.page()
    else:
        lines = (json.dumps(line, ensure_ascii=False) for line in explanation.lines())
        text = "".join(printable_json(line) + "\n" for line in lines)
    with open_output(target) as stream:
        stream.write(text.encode("utf-8"))
