"""Which checkpoint a run keeps, by its recipe, and in words why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from holdfast.contract.fit import TrainingPlan
from holdfast.control.choice import (
    Choose,
    last,
    lowest,
    lowest_calibrated,
    newest_unless_worse,
    reason,
)
from holdfast.core.records import Decision, Floats, Snapshot
from holdfast.methods.heads.closed_form import HeadRefit
from holdfast.methods.schedules.schedules import build_schedule
from holdfast.models.layers import count_parameters
from holdfast.plan.defaults import measured_phases
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.training.loop import Trained
from holdfast.training.offers import AVERAGE
from holdfast.training.plan import Phase

if TYPE_CHECKING:
    from holdfast.core.events import Listener


# Of the learning of the measured recipe: rounding to whole steps is no other recipe.
SLACK = 1.05


def choice(ready: TrainingPlan, listeners: Sequence[Listener]) -> Choose:
    """Which state the run keeps, by ``train.keep``; ``listeners`` are those of its kind of
    task."""
    keep = ready.recipe.train.keep
    if keep == "newest_unless_worse":
        return partial(newest_unless_worse, gains=_gains(ready, listeners))
    if keep == "last":
        return last
    calibrated = ready.recipe.train.metric == "refined_loss"
    return lowest_calibrated if calibrated else lowest(criterion(ready))


def kept_state(ready: TrainingPlan, listeners: Sequence[Listener], trained: Trained) -> Decision:
    """Which state the run keeps, in words, and why."""
    if trained.average is not None:
        last = next(made for made in reversed(trained.offers) if made.kept)
        chosen = f"step {trained.best_step} of {trained.last_step}, {last.decision.what}"
        if last.decision.what == AVERAGE:
            chosen = f"the average {last.name}, up to {chosen.partition(',')[0]}"
        return Decision("kept state", chosen, last.decision.because)
    at = next(i for i, s in enumerate(trained.history) if s.step == trained.best_step)
    chosen = f"step {trained.best_step} of {trained.last_step}"
    if at == 0 and begins_as_probe(listeners):
        chosen += f", before any update, with {start_probe(ready)} as its last layer"
    keep = ready.recipe.train.keep
    if keep == "last":
        because = "train.keep=last keeps the last checkpoint, whatever it is worth"
    elif keep == "newest_unless_worse" or ready.recipe.train.metric == "refined_loss":
        newest = keep == "newest_unless_worse"
        because = reason(trained.history, at, gains=newest and _gains(ready, listeners))
    else:
        because = (
            f"its {ready.recipe.train.metric} on the validation rows is the best of all evaluations"
        )
    return Decision("kept state", chosen, because)


def begins_as_probe(listeners: Sequence[Listener]) -> bool:
    """Whether the head is fitted to the training rows before the first step."""
    return any(isinstance(listener, HeadRefit) and listener.first for listener in listeners)


def start_probe(ready: TrainingPlan) -> str:
    """What the last layer of a run is that begins as a linear probe: the baseline's, unless rows
    were added, which the baseline never learns from."""
    return "a linear probe fitted to the added rows too" if ready.added else "a linear probe"


def _gains(ready: TrainingPlan, listeners: Sequence[Listener]) -> bool:
    """Whether the run begins as a linear probe over which such runs were measured to gain."""
    total, _ = count_parameters(ready.loaded.network)
    sizes = (total, len(ready.train), ready.classes)
    measured = is_measured(ready.recipe, ready.plan.phases, sizes, ready.loaded.defaults)
    return begins_as_probe(listeners) and measured


def rule_of(
    recipe: ResolvedRecipe, phases: Sequence[Phase], sizes: tuple[int, int, int], model: str | None
) -> Literal["newest_unless_worse", "lowest"]:
    """``train.keep`` of a plan where the recipe leaves it open; see ``is_measured``."""
    as_measured = recipe.train.metric == "refined_loss" and recipe.methods.get("probe_first")
    newest = as_measured and is_measured(recipe, phases, sizes, model)
    return "newest_unless_worse" if newest else "lowest"


def is_measured(
    recipe: ResolvedRecipe, phases: Sequence[Phase], sizes: tuple[int, int, int], model: str | None
) -> bool:
    """Whether a plan learns no more (Σ learning rate over steps) than the default recipe of this
    kind of model, of ``sizes`` (parameters, training rows, classes), and that recipe was measured:
    to gain over its linear probe, and to be better where ``newest_unless_worse`` chooses."""
    parameters, rows, classes = sizes
    usual = measured_phases(recipe, parameters, rows, model, classes)
    if usual is None:
        return False
    learning = [float(planned_rates(one).sum()) for one in (phases, usual)]
    return learning[0] <= SLACK * learning[1]


def criterion(ready: TrainingPlan) -> Callable[[Snapshot], float]:
    """A snapshot to a number, smaller is better, by ``train.metric``.

    ``refined_loss`` and ``loss`` are as they are; a metric that rises is negated. Where the metric
    ties (accuracy often does on few rows) or is undefined, the refined loss decides.
    """
    name = ready.recipe.train.metric
    if name == "refined_loss":
        return lambda snapshot: snapshot.refined_loss + 1e-6 * snapshot.valid_loss
    if name == "loss":
        return lambda snapshot: snapshot.valid_loss
    metric = ready.metric
    assert metric is not None
    sign = -1.0 if metric.higher_is_better else 1.0
    return lambda s: sign * s.valid_metrics[metric.name] + 1e-6 * s.refined_loss


def planned_rates(phases: Sequence[Phase]) -> Floats:
    """The backbone's learning rate at every step of the plan, one phase after the other."""
    rates = []
    for phase in phases:
        schedule = build_schedule(phase.schedule, phase.steps, phase.warmup_steps)
        rates += [phase.learning_rate * schedule.scale(step) for step in range(phase.steps)]
    return np.array(rates)
