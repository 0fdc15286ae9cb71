"""``holdfast lr``: learning-rate range test, in a hundred updates.

The rows are read, split and encoded, and the run begins, as in ``train``. Then the learning rate
increases from update to update, on training rows only (``training/sweep.py``), and the decrease of
the loss shows which rates train the model without divergence (``stats/rate_curve.py``). Nothing is
written, and the network is discarded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify
from holdfast.core.printable import brief_repr
from holdfast.core.records import Decision, Ints
from holdfast.fits.compose import make_training_plan
from holdfast.fits.fit import make_job
from holdfast.prepare.model import prepare_divided
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe
from holdfast.search.context import run_environment
from holdfast.stats.rate_curve import suggest
from holdfast.training.loop import memory_errors
from holdfast.training.machine.machine import make_accelerator
from holdfast.training.sweep import SweepStep, sweep

if TYPE_CHECKING:
    import pyarrow as pa

LOWEST, HIGHEST, UPDATES = 1e-7, 1.0, 100
# So much above the start, in shares of it and in nats, higher rates say nothing any more.
DIVERGED_SHARE, DIVERGED_NATS, DIVERGED_UPDATES = 2.0, 1.0, 3


@dataclass(frozen=True, slots=True)
class RatePoint:
    """One update: its learning ``rate``, the ``loss`` of the next rows, and ``smoothed``, the
    smoothed loss relative to the loss of the same rows before the test."""

    rate: float
    loss: float
    smoothed: float


@dataclass(frozen=True, slots=True)
class RateRange:
    """The result of a range test, in values of ``train.learning_rate``.

    ``suggested`` is the suggested rate, ``None`` if the curve is inconclusive (``because`` says
    why); ``low`` and ``high`` bound the rates at which the loss decreases. ``planned`` is the rate
    of ``train``, ``phase`` the tested phase, ``rows`` the number of training rows.
    """

    suggested: float | None
    low: float | None
    high: float | None
    points: tuple[RatePoint, ...]
    because: str
    planned: float
    phase: str
    rows: int

    def __repr__(self) -> str:
        rate = "no rate suggested" if self.suggested is None else f"{self.suggested:.2g} suggested"
        return brief_repr("RateRange", rate, self.because)

    def to_json(self) -> dict[str, Any]:
        return {"schema": 1, **asdict(self), "points": [asdict(one) for one in self.points]}


def range_test(
    recipe: Recipe, in_memory: Mapping[str, pa.Table] = MappingProxyType({})
) -> RateRange:
    """The range test of a recipe; ``in_memory`` are rows in memory, see ``prepare.sources``.

    Raises what ``train`` raises for its rows, model and settings, except ``Interrupted``: there is
    nothing to resume.
    """
    with run_environment(recipe, in_memory) as recipe:
        divided = load_and_divide(recipe)
        known = divided.tables
        prepared, train, valid = prepare_divided(
            divided.recipe, divided.splits, divided.findings, divided.unlabelled, known
        )
        return find_rate_range(prepared, train, valid)


def find_rate_range(prepared: PreparedData, train: Ints, valid: Ints) -> RateRange:
    """The range test of a fit on these rows, by position, for the phase of its plan that passes
    most rows. Rates of a method's phase are converted to the ``train.learning_rate`` that leads to
    them."""
    # What is kept of frozen layers pays over a run, not over a hundred updates.
    uncached = prepared.recipe.with_changes(train={"cache_frozen": "off"})
    training_plan = make_training_plan(
        replace(prepared, recipe=uncached), train, valid, {"control.policy": "off"}
    )
    notify(*training_plan.decisions, *training_plan.findings)
    phases, planned = training_plan.plan.phases, training_plan.recipe.train.learning_rate
    place = max(range(len(phases)), key=lambda i: phases[i].rows_passed)
    share = phases[place].learning_rate / planned
    rates = [float(rate) for rate in np.geomspace(LOWEST, HIGHEST, UPDATES)]
    job, _ = make_job(training_plan, make_accelerator(training_plan.recipe.train.precision))
    # Before the wait, which is a minute and more on a slow machine.
    because = "compares the loss of each batch before and after; seconds to minutes on a CPU"
    size = f"up to {UPDATES} updates of {phases[place].rows_per_step} rows each"
    notify(Decision("range test", size, because, prominent=True))
    with memory_errors("the range test"):
        updates = sweep(job, place, [rate * share for rate in rates], has_diverged)
    rates_tried = np.array(rates[: len(updates)])
    losses, starts = (
        np.array([getattr(one, key) for one in updates]) for key in ("loss", "initial_loss")
    )
    suggestion = suggest(rates_tried, losses, starts)
    points = tuple(
        RatePoint(*map(float, one))
        for one in zip(rates_tried, losses, suggestion.smoothed, strict=True)
    )
    return RateRange(
        suggestion.rate,
        suggestion.low,
        suggestion.high,
        points,
        suggestion.because,
        planned,
        phases[place].name,
        len(training_plan.train),
    )


def has_diverged(updates: Sequence[SweepStep]) -> bool:
    """Whether the loss has risen so far above its initial value that higher rates add nothing."""
    if len(updates) < DIVERGED_UPDATES:
        return False
    risen = np.mean([one.loss - one.initial_loss for one in updates[-DIVERGED_UPDATES:]])
    return bool(
        risen
        > max(DIVERGED_NATS, DIVERGED_SHARE * float(np.mean([one.initial_loss for one in updates])))
    )
