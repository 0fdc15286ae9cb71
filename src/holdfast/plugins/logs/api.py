"""``holdfast.diagnose``: the command as a function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.contract.advice import in_python

if TYPE_CHECKING:
    from holdfast.core.records import Verdict


@in_python()
def diagnose(path: str | Path, *, train: str | None = None, valid: str | None = None) -> Verdict:
    """Diagnose a training log, as ``holdfast diagnose`` does, and return the verdict.

    Parameters
    ----------
    path : a training log, a file or a folder, of any program that ``docs/diagnose.md`` lists.
    train, valid : the names of the columns to read; found by name where left out.

    Raises ``holdfast.core.errors.InputError`` where the command would exit with 2.
    """
    from holdfast.plugins.logs.reader import read_verdict

    named = {"train": train, "valid": valid}
    return read_verdict(Path(path), {k: v for k, v in named.items() if v is not None})[1]
