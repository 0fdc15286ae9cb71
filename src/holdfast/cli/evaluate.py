"""``holdfast evaluate``: score finished runs on other labelled rows."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.options import Output, set_option
from holdfast.cli.run_input import ENSEMBLE, LIMITS, DataOptions, runs_and_data, split_ensemble


def command(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [RUN]... DATA",
            help="Finished runs (several are averaged), then labelled rows in any format that "
            "train reads, or, for a language model, a task file of lm-evaluation-harness (.yaml).",
        ),
    ],
    rows: DataOptions,
    set_: Annotated[
        list[str] | None,
        set_option(
            "predict.ensemble=stack or soup: how several runs are combined; "
            f"{LIMITS}KEY=VALUE: larger limits for the data."
        ),
    ] = None,
    start: Annotated[
        bool, typer.Option("--start", help="Also score the base model (language models, seq2seq).")
    ] = False,
    *,
    output: Output,
) -> None:
    """Score RUN on the labelled rows of DATA, with confidence intervals.

    Rows of the run's training and validation sets, and their duplicates, are counted and reported;
    the other rows are also scored separately.
    """
    runs, data = runs_and_data("evaluate", given)
    from holdfast.analyses.evaluation import evaluate
    from holdfast.contract.inference import check_limits
    from holdfast.terminal.results.evaluate import evaluate_text

    ensemble, others = split_ensemble(set_ or [])
    limits = check_limits(others, "evaluate", f"{ENSEMBLE}=stack|soup|average and ")
    with output.heard(progress=True):
        block = evaluate(runs, data, rows.options(limits), ensemble, start=start)
    output.show(block, lambda columns: evaluate_text(block, columns, data=data))
