"""``holdfast tune``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from holdfast.cli.options import Address, EndOptions, Helps, RunOptions, RunOutput, SourceOptions
from holdfast.core.machine import refuse_low_memory
from holdfast.core.wording import count_phrase, seconds_phrase
from holdfast.terminal.layout import entries, wrap

if TYPE_CHECKING:
    from holdfast.recipe import Recipe
    from holdfast.search.learner import SearchProcedure

# Trials that the table shows; the report has all.
MAX_LINES = 12


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The budget of the search, its storage, and the engine that runs the trials."""

    trials: Annotated[int | None, typer.Option(min=1, help="The largest number of trials.")] = None
    minutes: Annotated[
        float | None, typer.Option(help="The longest time of all trials, in minutes.")
    ] = None
    study: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="Store the trials in an Optuna journal file, or a database: postgresql://…",
        ),
    ] = None
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Run the trials on this machine or on Ray.")
    ] = "local"
    address: Address = None


RUN = Helps(
    set_="Set a key of the recipe, or a range to search, e.g. "
    "'train.learning_rate={range: [1e-5, 5e-4], log: true}'."
)
ENDS = Helps(
    dry_run="Print the search space; train and write nothing.",
    fail_on="Exit 3 if the saved model has this verdict; repeatable.",
)


def command(
    rows: SourceOptions,
    run: Annotated[RunOptions, RUN],
    search: SearchOptions,
    end: Annotated[EndOptions, ENDS],
    output: RunOutput,
) -> None:
    """Search hyperparameters for SOURCE, keep the model that won, score it once on the test rows,
    and write a report."""
    refuse_low_memory("torch")
    from holdfast.search.tune import tune_request
    from holdfast.terminal.watch import train_with_progress

    request, recipe, procedure = tune_request(
        rows.request(seed=run.seed, settings=run.set_ or [], out=run.out, resume=end.resume),
        **asdict(search),
    )
    if end.dry_run:
        _show_plan(procedure, recipe, output)
        return
    result, folder = train_with_progress(
        request, recipe, quiet=output.quiet, verbose=output.verbose, procedure=procedure
    )
    output.show(result, lambda columns: _shown(result, folder, columns, output.verbose))
    end.leave([result["verdict"]["label"]], "the", output.quiet)


def _show_plan(procedure: SearchProcedure, recipe: Recipe, output: RunOutput) -> None:
    """Print the plan of ``--dry-run``."""
    from holdfast.search.learner import dry_run_plan

    with output.heard():
        plan = dry_run_plan(procedure, recipe)
    output.show(plan, lambda columns: "\n".join(_plan(plan, columns)))


def _plan(plan: Mapping[str, Any], columns: int) -> Iterator[str]:
    from holdfast.report.view.study import search_space

    split, judged = plan["division"], plan["judged_by"]
    yield "Plan (nothing was written):"
    rows = f"training {split['train']:,}, validation {split['valid']:,}, test {split['test']:,}"
    how = f" in {judged['folds']} folds" if judged["folds"] > 1 else ""
    lines = [("Rows", rows), ("Judged by", f"{count_phrase(judged['rows'], 'row')}{how}")]
    if "sizes" in plan:
        yield from entries([*lines, ("Sizes", "; ".join(plan["sizes"]))], columns)
        return
    bounds = [] if plan["trials"] is None else [f"{count_phrase(plan['trials'], 'trial')}"]
    bounds += [] if plan["minutes"] is None else [f"{plan['minutes']:g} minutes"]
    lines.append(("Trials", f"at most {' or '.join(bounds)}; the first is the default of `train`"))
    for name in ("sampler", "pruner"):
        lines.append((name.capitalize(), f"{plan[name]['chosen']}: {plan[name]['because']}"))
    yield from entries(lines, columns)
    yield "  Search space"
    yield from entries((("", f"{key}: {values}") for key, values, _ in search_space(plan)), columns)


def _shown(result: Mapping[str, object], run: Path, columns: int, verbose: bool) -> str:
    from holdfast.cli.summary import summary

    lines = [*_study_lines(result, columns), *_size_lines(result, columns)]
    return "\n".join([*lines, *summary(result, run, columns, verbose)])


def _size_lines(result: Mapping[str, object], columns: int) -> list[str]:
    """The result and one line per model size; empty where no sizes were tried."""
    block = result.get("capacity")
    if not isinstance(block, Mapping):
        return []
    from holdfast.report.view.capacity import capacity_view

    view = capacity_view(block)
    lines = ["", *textwrap.wrap(view.sentence[:1].upper() + view.sentence[1:], columns), ""]
    for name, value, gap, verdict, _, quick in view.tables[0].lines:
        values = "  ".join(map(str, filter(None, (value, gap, verdict, quick))))
        lines += wrap(f"  {name:24} {values}", columns, "", " " * 27)
    return [*lines, "", *textwrap.wrap(view.passages[1], columns)]


class TrialJson(TypedDict):
    """One trial of a study's table."""

    trial: int
    state: str
    seen: float | None
    seconds: float
    settings: dict[str, object]


def _study_lines(result: Mapping[str, object], columns: int) -> list[str]:
    """The lines of a search; empty where the run has no trials of settings."""
    study = result.get("study")
    if not isinstance(study, Mapping) or "trials_table" not in study or "capacity" in result:
        return []
    from holdfast.report.view.study import study_view

    view = study_view(study)
    entered = entries(view.entries, columns)
    return ["", *textwrap.wrap(view.answer, columns), "", *entered, "", *_table(study, columns)]


def _table(study: Mapping[str, Any], columns: int) -> Iterator[str]:
    from holdfast.report.view.study import STATES, format_score, trial_settings

    rows: Sequence[TrialJson] = study["trials_table"]
    shown = _trials_shown(study, rows)
    yield f"  {'Trial':<7}{'Score':>8}{'Time':>12}  Settings"
    for row in shown:
        mark = "*" if row["trial"] == study["best"] else " "
        value = STATES.get(row["state"]) or format_score(study, row["seen"])
        start = f" {mark}{row['trial']:<7}{value:>8}{seconds_phrase(row['seconds']):>12}  "
        if len(value) > 8:
            start = f" {mark}{row['trial']:<4}{value:>11}{seconds_phrase(row['seconds']):>12}  "
        yield from wrap(trial_settings(row), columns, start, " " * len(start), max_lines=2)
    left = len(rows) - len(shown)
    more = f"; {count_phrase(left, 'more trial')} in the report" if left else ""
    yield f"  * saved{more}"


def _trials_shown(study: Mapping[str, Any], rows: Sequence[TrialJson]) -> list[TrialJson]:
    """The saved trial, the default, and the best others, by score."""
    sign = -1 if study["higher_is_better"] else 1
    named = {study["best"], 0}

    def place(row: TrialJson) -> tuple[bool, bool, float, int]:
        score_seen = row["seen"]
        is_complete = row["state"] == "complete" and score_seen is not None
        return (row["trial"] not in named, not is_complete, sign * (score_seen or 0), row["trial"])

    first = sorted(rows, key=place)[:MAX_LINES]
    return sorted(first, key=lambda row: place(row)[1:])
