"""Scalar curves of a training run: what a log holds without losses per row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.records import Decision, Floats

PERCENT_ABOVE = 1.001  # of a share; no run is so bad that its best accuracy is 0.1 %
TRANSFORMERS = "hf_trainer_state"  # the source of a log of the Hugging Face Trainer


@dataclass(frozen=True, slots=True)
class Series:
    """One logged number over a run.

    ``positions`` [points] are the positions on the log's axis, strictly increasing; ``values``
    [points] hold NaN and infinities where the log says so. A point that was not logged is absent,
    not NaN. ``higher_is_better`` marks a metric that is better when larger.
    """

    name: str
    positions: Floats
    values: Floats
    higher_is_better: bool = False

    @property
    def finite(self) -> Series:
        """The points whose value is a finite number."""
        is_finite = np.isfinite(self.values)
        return replace(self, positions=self.positions[is_finite], values=self.values[is_finite])

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Curves:
    """The chosen series of one log, from any program.

    ``axis`` is the unit of the positions: ``step``, ``epoch`` or ``row`` (0-based). ``valid`` may
    be a metric that increases. ``train_metric`` and ``valid_metric`` measure the same quantity on
    both sets. ``comparable``: ``train`` and ``valid`` have the same name except for the set, so
    their levels may be compared. ``clean``: the training loss was measured in evaluation mode on
    fixed rows, as Holdfast does. ``planned_end`` is the position at which the run was planned to
    end, ``epochs`` the epoch at each position, ``seconds`` the time that the logged part took,
    ``valid_rows`` the number of rows behind a validation value, where the log gives it.
    ``decisions`` record how the series were chosen; ``checkpoint`` is the position of the
    checkpoint that the run saved, where it is known.
    """

    source: str
    axis: str
    train: Series | None = None
    valid: Series | None = None
    train_metric: Series | None = None
    valid_metric: Series | None = None
    comparable: bool = True
    clean: bool = False
    planned_end: float | None = None
    epochs: Series | None = None
    seconds: float | None = None
    valid_rows: int | None = None
    decisions: tuple[Decision, ...] = ()
    checkpoint: float | None = None

    @property
    def points(self) -> int:
        """Evaluations, or logged training losses where there are none."""
        series = self.valid if self.valid is not None else self.train
        return 0 if series is None else len(series)

    @property
    def best(self) -> float | None:
        """The position of the checkpoint that the run saved, else of the best finite validation
        value, the earliest on a tie; ``None`` when there is no such value."""
        if self.checkpoint is not None:
            return self.checkpoint
        if self.valid is None or not len(self.valid.finite):
            return None
        known = self.valid.finite
        # Both take the first of equals, so the earliest state.
        best_point = np.argmax(known.values) if known.higher_is_better else np.argmin(known.values)
        return float(known.positions[best_point])

    @property
    def last(self) -> float | None:
        """The largest position that either loss has; ``None`` without any."""
        ends = [s.positions[-1] for s in (self.train, self.valid) if s is not None and len(s)]
        return float(max(ends)) if ends else None


def is_percentage(values: Floats) -> bool:
    """Whether a metric of at least 0 is in per cent: its largest value exceeds 1 by more than
    rounding (a mean of float32 may be 1.0000001), and is at most 100."""
    return bool(len(values) and values.min() >= 0 and PERCENT_ABOVE < values.max() <= 100)


def logged_position(value: float | None) -> int | float | None:
    """A position as the log wrote it: a whole number without a decimal point."""
    if value is None:
        return None
    return int(value) if float(value).is_integer() else float(value)
