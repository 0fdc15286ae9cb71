"""Which state a run keeps, by its recipe, and in words why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from holdfast.control.choice import Choose, last, lowest, newest_unless_worse, reason
from holdfast.core.records import Decision, Floats, Snapshot
from holdfast.methods.head_refit import HeadRefit
from holdfast.methods.schedules import build_schedule
from holdfast.models.layers import count_parameters
from holdfast.pipeline.defaults import measured_phases
from holdfast.pipeline.ready import Ready
from holdfast.training.loop import Trained
from holdfast.training.offers import AVERAGE
from holdfast.training.plan import Phase

# Of the learning of the measured recipe: rounding to whole steps is no other recipe.
SLACK = 1.05


def choice(ready: Ready, listeners: Sequence[Any]) -> Choose:
    """Which state the run keeps, by ``train.keep``; ``listeners`` are those of its kind of
    task."""
    keep = ready.recipe.train.keep
    if keep == "newest_unless_worse":
        proves, gains = _of_probe(ready, listeners)
        return partial(newest_unless_worse, prove=proves, gains=gains)
    return last if keep == "last" else lowest(criterion(ready))


def kept_state(ready: Ready, listeners: Sequence[Any], trained: Trained) -> Decision:
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
        chosen += f", the base model with {start_probe(ready)} as its last layer"
    keep = ready.recipe.train.keep
    if keep == "newest_unless_worse":
        proves, gains = _of_probe(ready, listeners)
        because = reason(trained.history, at, prove=proves, gains=gains)
    elif keep == "last":
        because = "train.keep=last keeps the last state, whatever it is worth"
    else:
        because = f"its {ready.recipe.train.metric} on the validation rows is the best of all looks"
    return Decision("kept state", chosen, because)


def begins_as_probe(listeners: Sequence[Any]) -> bool:
    """Whether the head is fitted to the training rows before the first step."""
    return any(isinstance(listener, HeadRefit) and listener.first for listener in listeners)


def start_probe(ready: Ready) -> str:
    """What the last layer of a run is that begins as a linear probe: the baseline's, unless rows
    were added, which the baseline never learns from."""
    return "a linear probe fitted to the added rows too" if ready.added else "a linear probe"


def _of_probe(ready: Ready, listeners: Sequence[Any]) -> tuple[bool, bool]:
    """Whether a later state must prove itself against the probe that the run begins as, and whether
    such runs were measured to gain over theirs."""
    proves = must_prove(ready, listeners)
    return proves, begins_as_probe(listeners) and not proves


def must_prove(ready: Ready, listeners: Sequence[Any]) -> bool:
    """Whether a later state must prove itself against the linear probe that the run begins as: not
    where the plan learns no more (Σ rate over steps) than the default recipe of this kind of model
    and so many rows, which has been measured to gain over its probe."""
    if not begins_as_probe(listeners):
        return False
    total, _ = count_parameters(ready.loaded.network)
    usual = measured_phases(
        ready.recipe, total, len(ready.train), ready.loaded.defaults, ready.classes
    )
    if usual is None:
        return True
    learning = [float(planned_rates(phases).sum()) for phases in (ready.plan.phases, usual)]
    return learning[0] > SLACK * learning[1]


def criterion(ready: Ready) -> Callable[[Snapshot], float]:
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
