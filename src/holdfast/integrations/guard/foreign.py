"""A run of another trainer, as its adapter describes it to the guard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.core.run_facts import RunFacts
from holdfast.tasks.base import Measured

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ForeignRun:
    """A run as its adapter describes it to the guard: the module that learns, how its rows are
    measured, what is known of it, where the trainer writes, names for the report. ``log`` is the
    form of its log (see ``core.curves``), in whose words remedies are told where there are any."""

    model: torch.nn.Module
    measure: Callable[[], tuple[Measured, Measured]]
    run_facts: RunFacts
    output: Path
    trainer: str
    name: str
    classes: tuple[str, ...] = ()
    rows_per_epoch: int = 0
    log: str = ""
