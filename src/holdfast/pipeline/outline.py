"""What a person wants to know before the first step, in plain values: the rows, then the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast.models.layers import count_parameters
from holdfast.pipeline.ready import Ready
from holdfast.pipeline.rows import Divided


@dataclass(frozen=True, slots=True)
class RowsOutline:
    """The rows and their division. ``answers`` is what a row is answered with: ``2 classes``,
    ``5 labels``, ``a number``; empty where the answer is a text. ``dropped`` rows are used nowhere,
    ``moved`` ones stand beside their copies or group."""

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


def outline_rows(divided: Divided) -> RowsOutline:
    """Of rows that were loaded and divided."""
    table, splits = divided.table, divided.splits
    notes = [note for note in splits.records["note"].to_pylist() if note]
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
        moved=sum(note.startswith("moved") for note in notes),
        dropped=splits.records["split"].to_pylist().count("dropped"),
    )


def outline_model(ready: Ready) -> ModelOutline:
    """Of a model that is loaded and a plan that stands."""
    total, learning = count_parameters(ready.loaded.network)
    phases, name = ready.plan.phases, str(ready.recipe.model.name)
    passed = sum(phase.steps * phase.rows_per_step for phase in phases)
    return ModelOutline(
        name=Path(name).name if Path(name).is_dir() else name,
        task=str(ready.recipe.task),
        parameters=total,
        learning=learning,
        steps=ready.plan.steps,
        phases=len(phases),
        rows_a_step=phases[-1].rows_per_step,
        epochs=passed / max(1, len(ready.train)),
        looks=len(ready.plan.evaluate_at),
    )


def _answers(divided: Divided) -> str:
    table = divided.table
    if table.columns.label_kind == "number":
        return "a number"
    if table.names:
        return f"{len(table.names)} labels"
    return f"{len(table.classes)} classes" if len(table.classes) > 1 else ""
