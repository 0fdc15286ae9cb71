"""The tree of errors, each with its exit code.

ErrorMessage
├── HoldfastError
│   ├── InputError            exit 2: the input is at fault, and the message says what to do
│   │   ├── DataError             a file, a column or a row cannot be used
│   │   ├── RecipeError           a setting is unknown, mistyped or contradicts another
│   │   ├── ModelError            a model cannot be found, read or fitted to the task
│   │   ├── SplitError            the rows cannot be split as requested
│   │   ├── RunError              a run folder is missing, in use, unfinished or foreign
│   │   ├── MachineError          memory, disk or a missing optional package
│   │   ├── StoreError            the store of a service is foreign, or cannot be reached
│   │   │   └── StoreGone             temporarily locked, full or gone; the same may work later
│   │   └── TrainingError         the training failed: the loss is not a number
│   └── Defect                exit 1: a bug in Holdfast
└── Interrupted           exit 130: stopped by the user, a ``KeyboardInterrupt``
"""

from __future__ import annotations

import contextlib
import itertools
import os
import traceback
from pathlib import Path
from typing import Self

from holdfast.core.printable import bounded_repr, printable

# Of a name of 5,000 characters nobody reads the middle; a remedy may list columns or classes.
MAX_WHAT, MAX_RULE = 400, 2000


PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep


class ErrorMessage(BaseException):
    """A message for the person who typed the command.

    Parameters
    ----------
    what : the thing at fault, e.g. ``"reviews.csv, line 12"``.
    rule : the rule that it breaks, e.g. ``"has 3 columns where the header names 2"``.
    value : the offending value as found, or ``None`` when the thing itself is the value.
    remedy : what to do about it, as an instruction.
    """

    exit_code = 1

    def __init__(self, what: str, rule: str, value: object = None, remedy: str = "") -> None:
        self.what = what
        self.rule = rule
        self.value = value
        self.remedy = remedy
        super().__init__(what, rule, value, remedy)

    def reworded(
        self, *, what: str | None = None, rule: str | None = None, remedy: str | None = None
    ) -> Self:
        """The same error in other words; what is not given stays."""
        return type(self)(
            self.what if what is None else what,
            self.rule if rule is None else rule,
            self.value,
            self.remedy if remedy is None else remedy,
        )

    def __str__(self) -> str:
        value_note = "" if self.value is None else f" (found: {bounded_repr(self.value)})"
        what, rule = printable(self.what, MAX_WHAT), printable(self.rule, MAX_RULE)
        remedy = f"\n  {printable(self.remedy, MAX_RULE)}" if self.remedy else ""
        return f"{what}: {rule}{value_note}{remedy}"

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter print: the caller's own lines and the message, since nobody
        corrects the name of a column by reading Holdfast. The whole traceback of a defect, and with
        ``HOLDFAST_TRACEBACK=1``."""
        if self.exit_code == 1 or os.environ.get("HOLDFAST_TRACEBACK") == "1":
            return "".join(traceback.format_exception(self)).splitlines()
        frames = traceback.extract_tb(self.__traceback__)
        calling = itertools.takewhile(lambda frame: not frame.filename.startswith(PACKAGE), frames)
        lines = [_caller_line(frame) for frame in calling if not _is_machinery(frame.filename)]
        return [*lines, "", *f"{type(self).__name__}: {self}".splitlines()]


class HoldfastError(ErrorMessage, Exception):
    """An error of the input, the machine or Holdfast itself."""


def _caller_line(frame: traceback.FrameSummary) -> str:
    is_cell = "ipykernel_" in frame.filename or frame.filename.startswith("<ipython")
    place = "cell" if is_cell else frame.filename
    return f"{place}, line {frame.lineno}: {frame.line}"


def _is_machinery(filename: str) -> bool:
    return filename == contextlib.__file__ or f"{os.sep}IPython{os.sep}" in filename


class InputError(HoldfastError):
    """The input is at fault: where the command exits with 2.

    ``what`` names the input, ``rule`` says what is wrong with it, ``value`` is the value found (or
    ``None``), and ``remedy`` says what to do.
    """

    exit_code = 2


class DataError(InputError):
    """A file, a column or a row cannot be used."""


class RecipeError(InputError):
    """A setting is unknown, mistyped or contradicts another."""


class ModelError(InputError):
    """A model cannot be found, read or fitted to the task."""


class SplitError(InputError):
    """The rows cannot be split as requested."""


class RunError(InputError):
    """A run folder is missing, in use, unfinished or was not written by Holdfast."""


class MachineError(InputError):
    """The machine lacks memory, disk space or an optional package."""


class StoreError(InputError):
    """The store of a service cannot be reached or written, is full, or was not written by
    Holdfast."""


class StoreGone(StoreError):
    """The store cannot be reached or written at the moment: it is locked, full or gone. The same
    write may succeed later."""


class TrainingError(InputError):
    """The training failed: a loss or a weight is no longer a number."""


class Interrupted(ErrorMessage, KeyboardInterrupt):
    """The user stopped the run. The message says whether a checkpoint was written, and how to
    continue.

    Not an ``Exception``: a search of scikit-learn, and a loop that catches ``Exception``, would
    take the interrupt for one failed fit and continue.
    """

    exit_code = 130


class Defect(HoldfastError):
    """A bug in Holdfast, to be reported."""
