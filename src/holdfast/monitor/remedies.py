"""What to try for each verdict, as sentences with runnable ``--set`` strings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.core.records import Remedy, Snapshot


def for_overfit(history: Sequence[Snapshot], best: int) -> tuple[Remedy, ...]:
    epochs = max(1, math.ceil(history[best].epoch))
    return (
        Remedy("train no longer than to the best step", (f"train.epochs={epochs}",)),
        Remedy("regularise more", ("train.weight_decay=0.1", "train.label_smoothing=0.1")),
        Remedy("move the lower layers less", ("train.layer_decay=0.9",)),
    )


def for_diverging(history: Sequence[Snapshot]) -> tuple[Remedy, ...]:
    peak = max((s.learning_rate for s in history if math.isfinite(s.learning_rate)), default=0.0)
    lower = f"{peak / 3:.2g}" if peak > 0 else "2e-05"
    return (
        Remedy("lower the learning rate", (f"train.learning_rate={lower}",)),
        Remedy("warm up longer and clip", ("train.warmup=0.1", "train.clip=1.0")),
        Remedy("compute in full precision", ("train.precision=float32",)),
    )


def for_learning(history: Sequence[Snapshot]) -> tuple[Remedy, ...]:
    epochs = max(1, math.ceil(history[-1].epoch)) * 2 if history else 10
    return (Remedy("train longer", (f"train.epochs={epochs}",)),)


def for_no_progress(history: Sequence[Snapshot]) -> tuple[Remedy, ...]:
    peak = max((s.learning_rate for s in history if math.isfinite(s.learning_rate)), default=0.0)
    faster = f"{peak * 3:.2g}" if peak > 0 else "5e-05"
    raised = Remedy("raise the learning rate", (f"train.learning_rate={faster}",))
    return (*for_learning(history), raised, *for_few_rows())


def for_few_rows() -> tuple[Remedy, ...]:
    shares = ("data.split.train=0.6", "data.split.valid=0.25", "data.split.test=0.15")
    return (Remedy("give validation more rows", shares), Remedy("label more rows"))


def for_no_rows() -> tuple[Remedy, ...]:
    shares = ("data.split.train=0.7", "data.split.valid=0.15", "data.split.test=0.15")
    return (Remedy("keep rows for validation", shares),)
