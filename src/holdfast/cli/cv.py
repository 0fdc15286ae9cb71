"""``holdfast cv``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import Address, EndOptions, Helps, RunOptions, RunOutput, SourceOptions
from holdfast.core.labels import VERDICTS
from holdfast.core.machine import refuse_low_memory
from holdfast.core.wording import count_phrase
from holdfast.terminal.layout import entries, run_lines, wrap

if TYPE_CHECKING:
    from holdfast.recipe import Recipe
    from holdfast.search.folds.cross_validation import CrossValidation

# Scores that are printed; the others are in the report.
MAX_METRICS = 4


@dataclass(frozen=True, slots=True)
class FoldOptions:
    """The folds, and the engine that runs them."""

    folds: Annotated[
        int | None, typer.Option(min=2, max=100, help="The number of folds. Default: 5.")
    ] = None
    repeats: Annotated[
        int | None, typer.Option(min=1, max=100, help="Repeat with other random folds. Default: 1.")
    ] = None
    nested: Annotated[
        bool, typer.Option("--nested", help="Choose the checkpoint of each fold by inner folds.")
    ] = False
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Run the folds on this machine or on Ray.")
    ] = "local"
    address: Address = None


ENDS = Helps(
    dry_run="Print the folds; train and write nothing.",
    fail_on=f"Exit 3 if a fold has this verdict; repeatable: {', '.join(VERDICTS)}.",
)


def command(
    rows: SourceOptions,
    folds: FoldOptions,
    run: RunOptions,
    end: Annotated[EndOptions, ENDS],
    output: RunOutput,
) -> None:
    """Cross-validate on SOURCE: each row is predicted by a model that was not trained on it. Then
    train the saved model on all rows."""
    refuse_low_memory("torch")
    from holdfast.search.folds.cross_validation import cross_validation_of
    from holdfast.terminal.watch import train_with_progress

    request = rows.request(seed=run.seed, settings=run.set_ or [], out=run.out, resume=end.resume)
    recipe = request.recipe()
    procedure = cross_validation_of(recipe, *astuple(folds))
    if end.dry_run:
        show_folds(procedure, recipe, output)
        return
    result, folder = train_with_progress(
        request, recipe, quiet=output.quiet, verbose=output.verbose, procedure=procedure
    )
    output.show(result, lambda columns: "\n".join(cv_text(result, folder, columns)))
    end.leave(result["cv"]["verdicts"]["labels"], "a fold's", output.quiet)


def show_folds(
    procedure: CrossValidation, recipe: Recipe, output: RunOutput, verbose: bool | None = None
) -> None:
    """Print the plan of ``--dry-run``."""
    from holdfast.search.learner import dry_run_plan

    with output.heard(verbose=verbose):
        plan = dry_run_plan(procedure, recipe)
    output.show(plan, lambda columns: "\n".join(_plan_lines(plan, columns)))


def cv_text(result: Mapping[str, Any], run: Path, columns: int) -> list[str]:
    """The result first, at the width of a terminal."""
    from holdfast.report.view.folds import folds_answer

    answer = wrap(folds_answer(result["cv"]), columns)
    return ["", *answer, "", *entries(_entries(result), columns), *run_lines(run)]


def _plan_lines(plan: Mapping[str, Any], columns: int) -> list[str]:
    lines = [
        ("Folds", str(plan["how"])),
        ("Fits", f"{plan['fits']}, the last on all {plan['rows']:,} rows"),
    ]
    for one in plan["folds"]:
        repeat = f", repeat {one['repeat'] + 1}" if one["repeat"] else ""
        rows = count_phrase(one["train"], "row")
        text = f"{rows} for training, {one['valid']:,} for validation, {one['held']:,} held out"
        lines.append((f"{one['fold'] + 1}{repeat}", text))
    return ["Plan (nothing was written):", *entries(lines, columns)]


def _entries(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from holdfast.report.numbers import estimate, interval, metric_name, number

    cv, name = result["cv"], result["cv"]["metric"]
    values = [
        "–" if (value := fold["metrics"][name]["value"]) is None else number(value, name)
        for fold in cv["per_fold"]
    ]
    yield "Folds", f"{metric_name(name)} {', '.join(values)}"
    yield "Verdicts", cv["verdicts"]["sentence"]
    others = [other for other in cv["metrics"] if other != name][:MAX_METRICS]
    estimates = {other: estimate(cv["metrics"][other]) for other in others}
    scores = [
        f"{metric_name(other)} {number(one.value, other)} ({interval(one, other)})"
        for other, one in estimates.items()
        if one.value is not None
    ]
    if scores:
        yield "Scores", "; ".join(scores)
    final = cv["final"]
    rows = count_phrase(final["rows"], "row")
    step = f"step {final['step']} of {final['planned']}"
    yield "Saved", f"a model trained on all {rows}, checkpoint of {step}"
    yield "Because", final["because"]
    if result["test"]["n"]:
        one = estimate(result["test"]["metrics"].get(name))
        if one.value is not None:
            given = count_phrase(result["test"]["n"], "given test row")
            yield "Test", f"{metric_name(name)} {number(one.value, name)} on {given}"
