"""A run of another trainer, as its adapter describes it to the guard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import MachineError
from holdfast.core.run_facts import RunFacts
from holdfast.training.task import Measurements

if TYPE_CHECKING:
    import torch


class UserCodeError(RuntimeError):
    """An error of the user's rows, collator, model or loss during measurement: not a defect of
    Holdfast.
    """


@contextmanager
def user_code(source: str) -> Iterator[None]:
    """Report any error inside the block, raised by the user's code, as a failure of ``source``."""
    try:
        yield
    except Exception as error:
        message = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise UserCodeError(f"{source} raised {message}") from error


def refuse_several_processes(count: int, sharded: bool = False) -> None:
    """Raise ``MachineError`` where more than one process trains, or the model is ``sharded`` in a
    way that the guard cannot follow.
    """
    if count > 1 or sharded:
        remedy = "Train in one process, or without the guard's callback."
        rule = (
            "watches several processes of a transformers.Trainer (or TRL's), with whole weights "
            "(DDP) or FSDP version 2, and other trainers in one process"
        )
        raise MachineError("the guard", rule, f"{count} processes", remedy)


@dataclass(frozen=True, slots=True)
class ForeignRun:
    """A run as its adapter describes it to the guard.

    The module that learns, how its rows are measured, its known facts, where the trainer writes,
    and names for the report. ``log`` is the form of its log (see ``core.curves``), whose argument
    names remedies use where there are any. ``changes`` are the actions that the trainer allows
    during training, by their class, ``rate`` its peak learning rate.
    """

    model: torch.nn.Module
    measure: Callable[[], tuple[Measurements, Measurements]]
    run_facts: RunFacts
    output: Path
    trainer: str
    name: str
    classes: tuple[str, ...] = ()
    rows_per_epoch: int = 0
    log: str = ""
    changes: Mapping[type[Any], Callable[[Any], None]] = field(default_factory=dict)
    rate: float | None = None
