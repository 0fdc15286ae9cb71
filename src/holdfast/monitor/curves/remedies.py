"""What to try after a foreign log, as sentences with runnable ``--set`` strings."""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.curves import Curves
from holdfast.core.records import Remedy


def _keep_best(curves: Curves) -> Remedy:
    do = "stop at the best evaluation and keep that state"
    return Remedy(do, _until_best(curves), aim="best")


def for_rise(curves: Curves) -> tuple[Remedy, ...]:
    """Against overfitting and memorizing."""
    return (
        _keep_best(curves),
        Remedy("regularize more", ("train.weight_decay=0.1", "train.label_smoothing=0.1")),
        Remedy("lower the learning rate of the lower layers", ("train.layer_decay=0.9",)),
        Remedy("give it more training rows"),
    )


def for_gap(curves: Curves) -> tuple[Remedy, ...]:
    """Against training rows known by heart: nothing that fits them further."""
    regular = ("train.weight_decay=0.1", "train.label_smoothing=0.1")
    known = Remedy("give it more training rows: those it has are known already")
    tried = (
        known,
        Remedy("regularize more", regular),
        Remedy("lower the learning rate of the lower layers", ("train.layer_decay=0.9",)),
    )
    if curves.best is None or curves.best == curves.last:
        return tried
    return (*tried, _keep_best(curves))


def for_fitted() -> tuple[Remedy, ...]:
    """Validation still falls, and the training rows are at their floor: little is left to learn
    from them, whatever the rate or the length of the run."""
    return (
        Remedy("go on only while validation falls: the training rows are fitted already"),
        Remedy("give it more training rows"),
    )


def for_unknown_gap() -> tuple[Remedy, ...]:
    """Where a rise of the loss may be confidence alone, or more."""
    return (
        Remedy("log the metric on the training rows too: the gap tells which it is"),
        *for_noise()[:1],
        Remedy("until then keep the state of the best evaluation"),
    )


def for_restarts() -> tuple[Remedy, ...]:
    """Where a rise may be a part of the schedule."""
    return (
        Remedy("judge at the end of a cycle, where the rate is lowest"),
        Remedy("or train without restarts", ("train.schedule=cosine",)),
    )


def for_shift() -> tuple[Remedy, ...]:
    """Where the scale of the loss changed in the middle."""
    return (Remedy("diagnose the parts before and after the jump as two logs"), *for_few_points())


def for_confidence(curves: Curves) -> tuple[Remedy, ...]:
    """Against confidence that outgrows knowledge."""
    return (
        Remedy("scale the logits by a temperature fitted on validation rows"),
        Remedy("train towards softer labels", ("train.label_smoothing=0.1",)),
        Remedy("choose the state by the metric that matters", ("train.metric=accuracy",)),
        Remedy("or stop at the lowest validation loss", _until_best(curves)),
    )


def for_diverging() -> tuple[Remedy, ...]:
    """Against a run that diverged."""
    return (
        # Without a value: curves do not tell the peak that it must lie below.
        Remedy("use a smaller learning rate"),
        Remedy("warm up longer and clip", ("train.warmup=0.1", "train.clip=1.0")),
        Remedy("compute in full precision", ("train.precision=float32",)),
    )


def for_broken_evaluation() -> tuple[Remedy, ...]:
    """Where training goes on and only the evaluation breaks."""
    return (
        Remedy("evaluate in full precision", ("train.precision=float32",)),
        Remedy("check that every validation row has an answer left after it is cut to length"),
    )


def for_falling(curves: Curves) -> tuple[Remedy, ...]:
    """Where there is more to gain."""
    epochs = _epochs_at(curves, curves.last)
    longer = () if epochs is None else (f"train.epochs={2 * epochs}",)
    return (Remedy("train longer", longer),)


def for_no_progress(curves: Curves) -> tuple[Remedy, ...]:
    """Where hardly anything was learned. Not a larger rate: curves do not tell whether the peak was
    too low or too high."""
    return (*for_falling(curves), Remedy("check that labels and inputs belong together"))


def for_leak() -> tuple[Remedy, ...]:
    """Where validation is too good."""
    return (
        Remedy("look for copies between the training and the validation set"),
        Remedy("look for a feature that gives the answer away"),
    )


def for_no_validation() -> tuple[Remedy, ...]:
    """Where nothing is known of unseen data."""
    shares = ("data.split.train=0.7", "data.split.valid=0.15", "data.split.test=0.15")
    return (
        Remedy("keep rows for validation and evaluate on them during the run", shares),
        Remedy("or name the column: holdfast diagnose LOG --set valid=COL"),
    )


def for_few_points() -> tuple[Remedy, ...]:
    """Where the log has too few evaluations."""
    return (Remedy("evaluate more often", ("train.evaluations=20",)),)


def for_noise() -> tuple[Remedy, ...]:
    """Where noise hides the answer."""
    shares = ("data.split.train=0.6", "data.split.valid=0.25", "data.split.test=0.15")
    return (Remedy("give validation more rows", shares), *for_few_points())


def _until_best(curves: Curves) -> tuple[str, ...]:
    epochs = _epochs_at(curves, curves.best)
    if epochs is not None:
        return (f"train.epochs={epochs}",)
    steps = curves.best if curves.axis == "step" else None
    return () if steps is None or steps < 1 else (f"train.max_steps={round(steps)}",)


def _epochs_at(curves: Curves, place: float | None) -> int | None:
    """Whole epochs done at a position; programs that count from 0 have done one more."""
    if place is None:
        return None
    if curves.axis == "epoch":
        first = min(s.at[0] for s in (curves.train, curves.valid) if s is not None and len(s))
        # A setting counts epochs that are done.
        return max(1, math.ceil(place) + (1 if first == 0 else 0))
    if curves.epochs is None or not len(curves.epochs):
        return None
    return max(1, math.ceil(np.interp(place, curves.epochs.at, curves.epochs.values)))
