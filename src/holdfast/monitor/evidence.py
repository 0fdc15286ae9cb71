"""What a history of snapshots shows, as paired numbers: the facts that a rule reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Snapshot
from holdfast.core.seeds import generator
from holdfast.stats.paired import Difference, paired_bootstrap
from holdfast.stats.path import Rise, rise_from_best
from holdfast.stats.temperature import best_temperature, losses_at, recover_labels
from holdfast.stats.trend import Trend, trend

WINDOW = 3


@dataclass(frozen=True, slots=True)
class Facts:
    """The paired facts of one history.

    ``refined`` says whether validation losses are taken after each snapshot's best temperature.
    ``best`` is the position of the smallest mean validation loss. ``rise`` tests the last state
    against it under the choice of the best and repeated looks; ``against_best`` is the same
    difference with its plain interval. ``recent`` is the last state against the one three
    snapshots before, ``learned`` the best against the first, ``probe`` the train probe now against
    the train probe at the best step, ``probe_rise`` now against its own first and lowest states,
    ``probe_trend`` its slope per step over the last snapshots, ``probe_means``
    its mean losses [snapshots].
    """

    steps: tuple[int, ...]
    refined: bool
    losses: Floats
    best: int
    rise: Rise
    against_best: Difference
    recent: Difference
    learned: Difference
    probe: Difference
    probe_from_first: Difference
    probe_from_lowest: Difference
    probe_trend: Trend
    probe_means: Floats

    @property
    def best_step(self) -> int:
        return self.steps[self.best]


def gather(history: Sequence[Snapshot]) -> Facts:
    """The facts of a history of at least two snapshots whose losses are all finite and which has
    validation rows."""
    losses, refined = validation_losses(history)
    probe = np.stack([snapshot.train_losses for snapshot in history], axis=1)
    best = int(np.argmin(losses.mean(axis=0)))
    before = max(0, len(history) - 1 - WINDOW)
    lowest = int(np.argmin(probe.mean(axis=0))) if len(probe) else 0
    recent = slice(before, None)
    steps = np.array([snapshot.step for snapshot in history], dtype=np.float64)
    return Facts(
        steps=tuple(snapshot.step for snapshot in history),
        refined=refined,
        losses=losses,
        best=best,
        rise=rise_from_best(losses, seed=generator(0, "plain rule", "rise")),
        against_best=_gap(losses, -1, best),
        recent=_gap(losses, -1, before),
        learned=_gap(losses, best, 0),
        probe=_gap(probe, -1, best),
        probe_from_first=_gap(probe, -1, 0),
        probe_from_lowest=_gap(probe, -1, lowest),
        probe_trend=trend(steps[recent], _means(probe)[recent]),
        probe_means=_means(probe),
    )


def validation_losses(history: Sequence[Snapshot]) -> tuple[Floats, bool]:
    """Per-row validation losses [n, snapshots], after each snapshot's best temperature where all
    of them kept their logits, else raw; and which."""
    if any(snapshot.valid_logits is None for snapshot in history):
        return np.stack([snapshot.valid_losses for snapshot in history], axis=1), False
    return np.stack([_refined(snapshot) for snapshot in history], axis=1), True


def _refined(snapshot: Snapshot) -> Floats:
    logits = np.asarray(snapshot.valid_logits)
    labels = recover_labels(logits, snapshot.valid_losses)
    temperature = snapshot.temperature
    if not np.isfinite(temperature) or temperature <= 0:
        temperature = best_temperature(logits, labels)[0]
    return losses_at(logits, labels, temperature)


def _gap(losses: Floats, first: int, second: int) -> Difference:
    return paired_bootstrap(
        losses[:, first], losses[:, second], seed=generator(0, "plain rule", "gap"), resamples=1000
    )


def _means(table: Floats) -> Floats:
    return table.mean(axis=0) if len(table) else np.full(table.shape[1], np.nan)
