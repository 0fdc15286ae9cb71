"""What a person wants to know before the first step, in plain values: the rows, then the model. It
goes to whoever listens, with the context, as decisions do."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from holdfast.contract.fit import TrainingPlan
from holdfast.models.layers import count_parameters
from holdfast.prepare.rows import Divided
from holdfast.training.plan import Phase


@dataclass(frozen=True, slots=True)
class RowsOutline:
    """The rows and their division. ``answers`` is what a row is answered with: ``2 classes``,
    ``5 labels``, ``a number``; empty where the answer is a text. ``dropped`` rows are used nowhere,
    most of them because of ``why_dropped``; ``moved`` ones stand beside their copies or group.
    ``folded``: all but the test rows are dealt into folds, and no side is one for good."""

    source: str
    rows: int
    text: tuple[str, ...]
    label: str | None
    answers: str
    group: str | None
    train: int
    valid: int
    test: int
    moved: int
    dropped: int
    why_dropped: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class ModelOutline:
    """The model and the plan. ``rows_a_step`` are those of the last phase, ``epochs`` the passes
    over the training rows of all phases together."""

    name: str
    task: str
    parameters: int
    learning: int
    steps: int
    phases: int
    rows_a_step: int
    epochs: float
    looks: int


Outline = RowsOutline | ModelOutline
_LISTENER: ContextVar[Callable[[Outline], None]] = ContextVar("outline", default=lambda _: None)


@contextlib.contextmanager
def outlines_to(listener: Callable[[Outline], None]) -> Iterator[None]:
    """What is outlined inside goes to ``listener``, a part as soon as it stands."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def show_outline(part: Outline) -> None:
    """Hand a part to whoever listens."""
    _LISTENER.get()(part)


def outline_rows(divided: Divided, folded: bool = False) -> RowsOutline:
    """Of rows that were loaded and divided, or are to be ``folded``."""
    table, splits = divided.table, divided.splits
    gone = Counter(
        note or ""
        for note, split in zip(
            splits.records["note"].to_pylist(), splits.records["split"].to_pylist(), strict=True
        )
        if split == "dropped"
    )
    return RowsOutline(
        source=Path(table.source).name or table.source,
        rows=table.source_rows,
        text=tuple(table.columns.text),
        label=table.columns.label,
        answers=_answers(divided),
        group=table.columns.group,
        train=len(splits.train),
        valid=len(splits.valid),
        test=len(splits.test),
        moved=splits.moved,
        dropped=sum(gone.values()),
        why_dropped=max(gone, key=lambda note: gone[note], default=""),
        folded=folded,
    )


def outline_model(ready: TrainingPlan) -> ModelOutline:
    """Of a model that is loaded and a plan that stands."""
    total, learning = count_parameters(ready.loaded.network)
    phases, name = ready.plan.phases, str(ready.recipe.model.name)
    passes = sum(_passes(phase, len(ready.train)) for phase in phases)
    return ModelOutline(
        name=Path(name).name if Path(name).is_dir() else name,
        task=str(ready.recipe.task),
        parameters=total,
        learning=learning,
        steps=ready.plan.steps,
        phases=len(phases),
        rows_a_step=phases[-1].rows_per_step,
        epochs=passes,
        looks=len(ready.plan.evaluate_at),
    )


def _passes(phase: Phase, rows: int) -> float:
    """Passes over the training rows: the last batch of one is partial, but a source without
    epochs has none."""
    if not phase.source.has_epochs:
        return phase.steps * phase.rows_per_step / max(1, rows)
    return phase.steps / max(1, math.ceil(rows / phase.rows_per_step))


def _answers(divided: Divided) -> str:
    table = divided.table
    if table.columns.label_kind == "number":
        return "a number"
    if table.names:
        return f"{len(table.names)} labels"
    return f"{len(table.classes)} classes" if len(table.classes) > 1 else ""
