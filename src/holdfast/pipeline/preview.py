"""``--dry-run``: everything up to step 0, then the plan of the run and the resources it needs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from holdfast.contract.fit import MemoryEstimate, TrainingPlan
from holdfast.contract.result import peak_memory_mb
from holdfast.core.decisions import notify
from holdfast.core.errors import MachineError, RecipeError
from holdfast.core.machine import MB
from holdfast.core.records import Decision, Finding, to_json
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.core.updates import Draw
from holdfast.data.table import HeldOut
from holdfast.fits.compose import make_training_plan
from holdfast.fits.cross_fitting import folds_of, plan_to_try, remake_by
from holdfast.fits.duration import seconds_after_training
from holdfast.fits.fit import make_job
from holdfast.fits.plan_trial import FAR, PLAN, not_tried, settings_to_try
from holdfast.fits.row_use import LearningRows, learning_rows
from holdfast.models.layers import count_parameters
from holdfast.plan.memory import available_mb, tightest_limit
from holdfast.prepare.rows import load_and_divide
from holdfast.prepare.sources import mixed_file
from holdfast.recipe import Recipe
from holdfast.training.act import start_phase
from holdfast.training.guard import begin_run
from holdfast.training.machine.machine import make_accelerator
from holdfast.training.plan import FORWARD_SHARE
from holdfast.training.step import train_step

# Fewer steps are timed where they take so long together.
TIMED_STEPS, ENOUGH_S = 3, 5.0


def preview(recipe: Recipe) -> dict[str, Any]:
    """The plan: split, findings, decisions, phases, parameters, memory and time.

    Memory and time come from a few real steps on the longest rows, on a model that is thrown away.
    No run folder is written.
    """
    with mixed_file(recipe) as one_table:
        divided = load_and_divide(one_table)
    learning = learning_rows(divided.recipe, divided)
    divided, folds = learning.divided, learning.folds
    training_plan = make_training_plan(
        learning.prepared, learning.train, learning.valid, cross_fitted=bool(folds)
    )
    notify(*training_plan.decisions, *training_plan.findings)
    decisions: tuple[Decision, ...] = (*divided.decisions, *training_plan.decisions)
    prepared = learning.prepared
    base_models = prepared.base_models
    if base_models is not None and base_models.folds and not settings_to_try(prepared.recipe):
        because = (
            f"train first fine-tunes MiniLM (embedded) in {base_models.folds} folds, and its gain "
            "over the linear probe may change this choice"
        )
        provisional = Decision("base model", "may change", because, prominent=True)
        notify(provisional)
        decisions = (*decisions, provisional)
    usual, trial = _plan_to_try(learning, training_plan)
    notify(*trial)
    decisions = (*decisions, *trial)
    # K runs on all rows except one fold, and one run on all rows, cost as much as K runs on all.
    fit_costs = max(1, folds) + (0 if usual is None else (folds - 1) / folds)
    repetitions = fit_costs * max(1, len(learning.outer))
    splits = divided.splits
    of_test = _test_findings(training_plan, splits.test)
    notify(*of_test)
    findings: tuple[Finding, ...] = (*divided.findings, *training_plan.findings, *of_test)
    total, trainable = count_parameters(training_plan.loaded.network)
    seconds = _seconds_per_row(training_plan)
    return {
        "rows": divided.table.source_rows,
        "classes": list(training_plan.task.classes),
        "division": {
            "train": len(splits.train),
            "valid": len(splits.valid),
            "test": len(splits.test),
        },
        "findings": to_json(findings),
        "decisions": to_json(decisions),
        "phases": [to_json(phase) for phase in training_plan.plan.phases],
        "evaluate_at": list(training_plan.plan.evaluate_at),
        "parameters": {"total": total, "trainable": trainable, "share": trainable / total},
        "memory_mb": _memory_parts(training_plan.memory),
        "memory_limit": tightest_limit().description,
        "time_s": _time_parts(training_plan, seconds, len(splits.test), repetitions),
        "settings": training_plan.recipe.public_settings(),
    }


def _test_findings(training_plan: TrainingPlan, test: HeldOut) -> tuple[Finding, ...]:
    """Which test rows a generative model would read in part or not at all. Nothing is trained on
    the plan's model, so these rows may be opened; a run counts them when it scores them."""
    recipe, loaded, definition = (
        training_plan.recipe,
        training_plan.loaded,
        training_plan.definition,
    )
    if recipe.task not in GENERATIVE_TASKS or not len(test):
        return ()
    rows = test.open()
    examples = definition.transform_examples(definition.encode(rows, loaded, recipe), loaded, rows)
    return definition.check_examples(examples, loaded, "test")


def _plan_to_try(
    learning: LearningRows, own: TrainingPlan
) -> tuple[TrainingPlan | None, tuple[Decision, ...]]:
    """The default plan, where the first fold is run with it too, and what is said of it."""
    if not learning.folds:
        return None, ()
    remake = remake_by(learning.prepared, learning.prepared.recipe, learning.train)
    try:
        usual = plan_to_try(own, folds_of(own, learning.train, learning.folds), remake)
    except (MachineError, RecipeError) as error:
        return None, (not_tried(error),)
    if usual is None:
        return None, ()
    because = (
        "summed over all updates, the learning rates of this plan differ from the default plan's "
        f"by a factor of {FAR:g} or more: `holdfast train` first runs one fold with both plans, "
        "and keeps the default plan unless it is significantly worse"
    )
    return usual, (Decision(PLAN, "may change", because, prominent=True),)


def _seconds_per_row(training_plan: TrainingPlan) -> float:
    """The median time in seconds that a training row takes, over one or a few steps with rows of
    median length."""
    job, _ = make_job(training_plan, make_accelerator(training_plan.recipe.train.precision))
    run = begin_run(job)
    run.phase_index = len(training_plan.plan.phases) - 1
    start_phase(run)
    size = min(run.phase.rows_per_step, len(training_plan.train))
    order = np.argsort(training_plan.train.lengths, kind="stable")
    first = max(0, len(order) // 2 - size // 2)
    train_step(run, Draw(order[-size:]))
    timed: list[float] = []
    while len(timed) < TIMED_STEPS and sum(timed) < ENOUGH_S:
        start = time.perf_counter()
        train_step(run, Draw(order[first : first + size]))
        timed.append(time.perf_counter() - start)
    return float(np.median(timed)) / (size * run.phase.passes)


def _peak_mb() -> float:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MB
    return peak_memory_mb()


def _memory_parts(need: MemoryEstimate) -> dict[str, float]:
    """The memory estimate in its parts, with the measured peak of a few steps and the limit."""
    parts = {name: getattr(need, name) for name in MemoryEstimate.__slots__}
    peak = _peak_mb()
    parts |= {"peak_after_timed_steps": peak, "available": available_mb()}
    parts["estimate"] = max(need.total, peak + need.copies)
    return {name: round(value, 1) for name, value in parts.items()}


def _time_parts(
    training_plan: TrainingPlan, seconds_a_row: float, test_rows: int, repetitions: float
) -> dict[str, float]:
    """The time estimate; ``repetitions`` is how often the run's steps are made, over all folds."""
    rows = sum(phase.rows_passed for phase in training_plan.plan.phases) * repetitions
    evaluated_rows = (
        len(training_plan.plan.evaluate_at)
        * (training_plan.plan.probe_rows + len(training_plan.valid))
        * repetitions
    )
    train = rows * seconds_a_row
    evaluate = evaluated_rows * seconds_a_row * FORWARD_SHARE
    network = training_plan.loaded.network
    device = next(network.parameters()).device
    later = seconds_after_training(
        training_plan, test_rows, network, device, seconds_a_row * FORWARD_SHARE
    )
    texts = len(training_plan.plan.evaluate_at) * later.pop("evaluation") * repetitions
    parts = {"steps": train, "snapshots": evaluate + texts, **later}
    parts["estimate"] = sum(parts.values())
    return {name: round(value, 1) for name, value in parts.items()}
