"""A run of another trainer, as its adapter describes it to the guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.run_facts import RunFacts
from holdfast.tasks.base import Measured

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ForeignRun:
    """A run as its adapter describes it to the guard: the module that learns, how its rows are
    measured, what is known of it, where the trainer writes, names for the report. ``log`` is the
    form of its log (see ``core.curves``), in whose words remedies are told where there are any.
    ``changes`` are the actions that the trainer lets others apply while it trains, by their class,
    ``rate`` its peak learning rate."""

    model: torch.nn.Module
    measure: Callable[[], tuple[Measured, Measured]]
    run_facts: RunFacts
    output: Path
    trainer: str
    name: str
    classes: tuple[str, ...] = ()
    rows_per_epoch: int = 0
    log: str = ""
    changes: Mapping[type[Any], Callable[[Any], None]] = field(default_factory=dict)
    rate: float | None = None
