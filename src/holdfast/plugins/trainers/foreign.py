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

# By the guard itself, where the trainer never evaluates.
MOST_EVALUATIONS = 20


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


def unsupported_setup(setup: str) -> MachineError:
    """The error for processes, or shards of a model, that the guard cannot follow."""
    rule = (
        "does not support this setup: it needs one process, or transformers.Trainer (or TRL's) "
        "with DDP or FSDP version 2"
    )
    remedy = "Change the setup, or train without the guard's callback."
    return MachineError("the guard", rule, setup, remedy)


@dataclass(frozen=True, slots=True)
class ForeignRun:
    """A run as its adapter describes it to the guard.

    The module that learns, how its rows are measured, its known facts, where the trainer writes,
    and names for the report. ``log`` is the form of its log (see ``core.curves``), whose argument
    names remedies use where there are any. ``by_row`` says whether each row goes through the
    trainer's own loss by itself, ``evaluated_rows`` how many rows an evaluation measures.
    ``changes`` are the actions that the trainer allows during training, by their class, ``rate``
    its peak learning rate, ``evaluation_steps`` when it is evaluated during training, ascending,
    where that is known.
    """

    model: torch.nn.Module
    measure: Callable[[], tuple[Measurements, Measurements]]
    run_facts: RunFacts
    output: Path
    trainer: str
    name: str
    classes: tuple[str, ...] = ()
    rows_per_epoch: int = 0
    evaluated_rows: int = 0
    by_row: bool = False
    log: str = ""
    changes: Mapping[type[Any], Callable[[Any], None]] = field(default_factory=dict)
    rate: float | None = None
    evaluation_steps: tuple[int, ...] = ()
