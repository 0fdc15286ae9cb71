"""Training logs of other programs; ``reader`` lists the formats."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast.core.discovery import Entry
from holdfast.core.errors import DataError

if TYPE_CHECKING:
    from holdfast.core.curves import Series


@dataclass(frozen=True, slots=True)
class Log:
    """Everything numeric in a log, before columns are chosen.

    ``columns`` are series by their name in the log. A metric whose name has no split belongs to
    ``default_split``: Keras writes ``accuracy`` for training, fastai for validation. Others as in
    ``Curves``.
    """

    source: str
    axis: str
    columns: Mapping[str, Series]
    default_split: Literal["train", "valid"] = "train"
    clean: bool = False
    planned: float | None = None
    epochs: Series | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LogReader:
    """How one log format is recognised and read.

    ``accepts`` looks at the name, the folder or the first lines, and never raises. ``read`` returns
    everything numeric, records its decisions, and raises ``DataError`` where the file breaks its
    format. Of several readers that accept a log, the one with the largest ``priority`` reads it: a
    special format before the general one. ``description`` names the format in a few words, for the
    error message.
    """

    accepts: Callable[[Path], bool]
    read: Callable[[Path], Log]
    description: str
    priority: int = 1


def not_a_log(name: str, rule: str, value: object = None) -> DataError:
    """The error for something that is not a log; it says what a log looks like."""
    # By its name, since the readers import this module.
    readers = importlib.import_module(f"{__name__}.reader").READERS
    known = "; ".join(dict.fromkeys(reader.description for reader in readers.values()))
    return DataError(
        name, rule, value, f"A log has a loss over steps or epochs, for example: {known}."
    )


DIAGNOSE = Entry(
    "holdfast.plugins.logs.command",
    "Diagnose a training log: verdict, evidence and what to do",
    "holdfast diagnose trainer_state.json",
    "holdfast diagnose history.csv --set train=loss --set valid=dev_loss",
    "holdfast diagnose runs/reviews-1 --html diagnosis.html",
    imports="numpy",
)
