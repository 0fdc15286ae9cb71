"""What to try for each verdict and cause, the likeliest to help first, as sentences with runnable
``--set`` strings. A test reads every one of them with the recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.core.records import Remedy, Snapshot

if TYPE_CHECKING:
    from holdfast.monitor.case import Case

Remedies = tuple[Remedy, ...]


def for_overfit(history: Sequence[Snapshot], best: int) -> Remedies:
    epochs = max(1, math.ceil(history[best].epoch))
    return (
        Remedy("train no longer than to the best step", (f"train.epochs={epochs}",)),
        Remedy("regularise more", ("train.weight_decay=0.1", "train.label_smoothing=0.1")),
        Remedy("move the lower layers less", ("train.layer_decay=0.9",)),
        Remedy("let fewer weights learn", ("model.adapter.kind=lora",)),
    )


def for_diverging(history: Sequence[Snapshot]) -> Remedies:
    peak = _peak(history)
    lower = f"{peak / 3:.2g}" if peak > 0 else "2e-05"
    return (
        Remedy("lower the learning rate", (f"train.learning_rate={lower}",)),
        Remedy("warm up longer and clip", ("train.warmup=0.1", "train.clip=1.0")),
        Remedy("compute in full precision", ("train.precision=float32",)),
    )


def for_slow(history: Sequence[Snapshot]) -> Remedies:
    return (_faster(history), *for_learning(history))


def for_learning(history: Sequence[Snapshot]) -> Remedies:
    epochs = max(1, math.ceil(history[-1].epoch)) * 2 if history else 10
    return (Remedy("train longer", (f"train.epochs={epochs}",)),)


def for_no_progress(history: Sequence[Snapshot]) -> Remedies:
    return (*for_learning(history), _faster(history), *for_few_rows())


def for_miscalibrated() -> Remedies:
    """The temperature that mends it is fitted and saved with the model by itself."""
    return (
        Remedy("nothing where the answers count: the saved model has the temperature in it"),
        Remedy("choose by what is known, not by confidence", ("train.metric=refined_loss",)),
        Remedy("keep the confidence down", ("train.label_smoothing=0.1",)),
    )


def for_noisy_labels() -> Remedies:
    return (
        Remedy("look at the rows with the largest losses in the report, and correct their labels"),
        Remedy("fit labels less closely", ("train.label_smoothing=0.1", "train.epochs=3")),
    )


def for_leaks() -> Remedies:
    return (
        Remedy("look for validation rows that training knows: holdfast audit DATA --against FILE"),
        Remedy("keep rows of one source together: name the source column", ("data.group=COLUMN",)),
    )


def for_copied_targets() -> Remedies:
    return (
        Remedy("name the column that holds the targets", ("data.target=COLUMN",)),
        Remedy("take out the rows whose target is their source"),
    )


def for_giveaway() -> Remedies:
    return (Remedy("take the word that gives the label away out of the texts"),)


def for_forgetting(history: Sequence[Snapshot]) -> Remedies:
    peak = _peak(history)
    lower = f"{peak / 3:.2g}" if peak > 0 else "1e-05"
    return (
        Remedy("train an adapter and leave the model as it is", ("model.adapter.kind=lora",)),
        Remedy("lower the learning rate", (f"train.learning_rate={lower}",)),
        Remedy("mix some general rows into the training rows"),
    )


def for_primacy(history: Sequence[Snapshot]) -> Remedies:
    return (
        Remedy("warm up longer", ("train.warmup=0.2",)),
        Remedy("move the lower layers less", ("train.layer_decay=0.9",)),
        *for_learning(history),
    )


def for_too_large() -> Remedies:
    return (
        Remedy("let fewer weights learn", ("model.adapter.kind=lora",)),
        Remedy("freeze the first layers", ("model.freeze=0.75",)),
    )


def for_copying() -> Remedies:
    return (
        Remedy("look at the texts in the report beside their sources and references"),
        Remedy("lower the learning rate and train less", ("train.epochs=2",)),
        Remedy("let fewer weights learn", ("model.adapter.kind=lora",)),
    )


def for_repeating() -> Remedies:
    return (
        Remedy("search for texts with beams", ("generate.beams=4",)),
        Remedy("train longer: a model that has learned little repeats itself"),
    )


def for_few_rows() -> Remedies:
    shares = ("data.split.train=0.6", "data.split.valid=0.25", "data.split.test=0.15")
    return (Remedy("label more rows"), Remedy("give validation more rows", shares))


def for_no_rows() -> Remedies:
    shares = ("data.split.train=0.7", "data.split.valid=0.15", "data.split.test=0.15")
    return (Remedy("keep rows for validation", shares),)


def _faster(history: Sequence[Snapshot]) -> Remedy:
    peak = _peak(history)
    faster = f"{peak * 3:.2g}" if peak > 0 else "5e-05"
    return Remedy("raise the learning rate", (f"train.learning_rate={faster}",))


def _peak(history: Sequence[Snapshot]) -> float:
    return max((s.learning_rate for s in history if math.isfinite(s.learning_rate)), default=0.0)


def pushes_on(case: Case, remedy: Remedy) -> bool:
    """Whether a remedy asks for more steps or a higher rate of a run whose training rows are at
    their floor: there is nothing left for these to teach, and only memory to gain."""
    if not case.at_floor:
        return False
    last = case.history[-1]
    for setting in remedy.set:
        key, _, value = setting.partition("=")
        if key == "train.epochs" and float(value) > last.epoch:
            return True
        if key == "train.learning_rate" and float(value) > _peak(case.history):
            return True
    return False
