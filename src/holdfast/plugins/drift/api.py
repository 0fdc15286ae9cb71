"""``holdfast.drift``: the command as a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.api.arguments import check_number, file_of, options_of, rows_name
from holdfast.api.trained_run import TrainedRun, run_folder
from holdfast.contract.advice import in_python

if TYPE_CHECKING:
    from holdfast.plugins.drift.drift import Drifted


@in_python()
def drift(
    run: str | Path | TrainedRun,
    data: str | Path,
    *,
    between_alarms: int = 100_000,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    encoding: str | None = None,
) -> Drifted:
    """Do what ``holdfast drift`` does: compare the rows of ``data`` with the run's reference rows,
    and estimate the model's accuracy on them.

    Parameters
    ----------
    run : a finished run, its folder or a ``TrainedRun``.
    data : a file by its name, a data frame or a list of texts: rows in the order in which they
        arrived, with labels or without.
    between_alarms : mean number of clean rows between false alarms.

    The other parameters are the options of the command. ``to_json()`` of the result is what
    ``--json`` prints. Raises ``holdfast.InputError`` where the command would exit with
    2.
    """
    from holdfast.plugins.drift.drift import drift as drifted

    check_number("between_alarms", between_alarms, whole=True)
    folder = run_folder(run)
    options = options_of(text, label, encoding, ())
    with file_of(data) as source:
        found = drifted(folder, source, options, between=between_alarms)
    return replace(found, data=rows_name(data))
