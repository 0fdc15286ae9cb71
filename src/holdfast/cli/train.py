"""``holdfast train``."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.cli.options import EndOptions, RunOptions, RunOutput, SourceOptions
from holdfast.core.machine import refuse_low_memory
from holdfast.core.wording import count_phrase, percent_phrase, seconds_phrase
from holdfast.terminal.layout import entries, short_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.contract.request import TrainingRequest
    from holdfast.recipe import Recipe


def command(rows: SourceOptions, run: RunOptions, end: EndOptions, output: RunOutput) -> None:
    """Fine-tune a model on SOURCE.

    Holdfast audits the rows, splits them so that duplicates and groups stay together, trains under
    a guard against overfitting, scores the best checkpoint once on the test rows, and writes a
    report.
    """
    refuse_low_memory("torch")
    request = rows.request(seed=run.seed, settings=run.set_ or [], out=run.out, resume=end.resume)
    recipe = request.recipe()
    if end.dry_run:
        _dry_run(request, recipe, output)
        return
    from holdfast.contract.run_folder import is_main_process
    from holdfast.terminal.summary import summary
    from holdfast.terminal.watch import train_with_progress

    result, folder = train_with_progress(
        request, recipe, quiet=output.quiet, verbose=output.verbose
    )
    if is_main_process():
        output.show(result, partial(summary, result, folder, verbose=output.verbose))
    end.leave([result["verdict"]["label"]], "the", output.quiet)


def _dry_run(request: TrainingRequest, recipe: Recipe, output: RunOutput) -> None:
    from holdfast.cli.cv import show_folds
    from holdfast.contract.run_folder import check_place
    from holdfast.pipeline.preview import preview
    from holdfast.terminal.watch import recipe_cross_validation

    if request.out is not None:
        # No plan is printed for a folder in which the run would be refused.
        check_place(request.out, request.resume)
    if (procedure := recipe_cross_validation(recipe)) is not None:
        show_folds(procedure, recipe, output, verbose=False)
        return
    with output.heard(verbose=True):
        plan = preview(recipe)
    output.show(plan, lambda columns: _plan(plan, columns, quiet=output.quiet))


def _plan(plan: Mapping[str, Any], columns: int, *, quiet: bool = False) -> str:
    """The plan in a dozen lines; unless ``quiet``, the findings were printed before it."""
    split, parameters, memory = plan["division"], plan["parameters"], plan["memory_mb"]
    classes, steps = len(plan["classes"] or ()), plan["evaluate_at"]
    trainable, total = short_count(parameters["trainable"]), short_count(parameters["total"])
    share = f"{trainable} of {total} parameters"
    at = f"at {'step' if len(steps) == 1 else 'steps'} {', '.join(map(str, steps))}"
    parts = ", ".join(
        f"{name} {memory[name]:,.0f}"
        for name in ("weights", "gradients", "optimizer", "activations")
    )
    lines = [
        (
            "Rows",
            f"{plan['rows']:,}: training {split['train']:,}, validation {split['valid']:,}, "
            f"test {split['test']:,}",
        ),
        *([("Classes", str(classes))] if classes > 1 else []),
        ("Trainable", f"{share} ({percent_phrase(parameters['share'])})"),
        *(("Training", _phase(phase)) for phase in plan["phases"]),
        ("Evaluated", f"{count_phrase(len(steps), 'time')}, {at}"),
        (
            "Memory",
            f"about {memory['estimate']:,.0f} MB (including {parts}) of "
            f"{memory['available']:,.0f} MB ({plan['memory_limit']})",
        ),
        (
            "Time",
            f"about {seconds_phrase(plan['time_s']['estimate'])} after loading, of which "
            f"{seconds_phrase(plan['time_s']['steps'] + plan['time_s']['snapshots'])} for training "
            "and evaluations (estimated from timed steps)",
        ),
        ("Findings", _findings(plan["findings"], quiet)),
    ]
    return "\n".join(["Plan (nothing was written):", *entries(lines, columns)])


def _phase(phase: Mapping[str, Any]) -> str:
    rows = phase["batch_size"] * phase["accumulate"]
    return (
        f"{phase['name']}: {count_phrase(phase['steps'], 'step')} of "
        f"{count_phrase(rows, 'row')} at a "
        f"learning rate of {phase['learning_rate']:g}"
    )


def _findings(findings: list[dict[str, object]], quiet: bool) -> str:
    if not findings:
        return "none"
    counts = Counter(finding["severity"] for finding in findings)
    words = {"error": "error", "warn": "warning", "info": "remark"}
    counts_text = [count_phrase(counts[name], word) for name, word in words.items() if counts[name]]
    where = "not shown because of --quiet" if quiet else "printed above with remedies"
    return f"{', '.join(counts_text)}, {where}"
