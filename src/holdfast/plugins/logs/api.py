"""``holdfast.diagnose``: the command as a function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.api.trained_run import TrainedRun, run_folder
from holdfast.contract.advice import in_python
from holdfast.core.errors import DataError
from holdfast.core.input_errors import reading_errors

if TYPE_CHECKING:
    from holdfast.core.records import Verdict

READABLE = (
    "Give the path of a log, a TrainedRun, trainer.state.log_history, the History of Keras, or a "
    "data frame."
)


@in_python()
def diagnose(log: Any, *, train: str | None = None, valid: str | None = None) -> Verdict:
    """Diagnose a training log, as ``holdfast diagnose`` does, and return the verdict.

    Parameters
    ----------
    log : a training log, a file or a folder, of any program that ``docs/diagnose.md`` lists; or in
        memory: a ``TrainedRun``, ``trainer.state.log_history``, the ``History`` of Keras, or a data
        frame.
    train, valid : the names of the columns to read; found by name where left out.

    Raises ``holdfast.InputError`` where the command would exit with 2.
    """
    from holdfast.data.memory.texts import naming_data_frame
    from holdfast.data.scratch import scratch_file
    from holdfast.plugins.logs.reader import read_verdict

    named = {"train": train, "valid": valid}
    columns = {k: v for k, v in named.items() if v is not None}
    if isinstance(log, (str, Path, TrainedRun)):
        return read_verdict(run_folder(log), columns)[1]
    path = scratch_file("log", ".json")
    try:
        with reading_errors("the log", DataError, "cannot be read as a training log", READABLE):
            path.write_text(json.dumps(_document(log), default=float), "utf-8")
        with naming_data_frame(path, "the log"):
            return read_verdict(path, columns)[1]
    finally:
        path.unlink(missing_ok=True)


def _document(log: Any) -> Any:
    """What a program would have written of a log in memory: the state of a Trainer for a list of
    entries, the columns of a dictionary, the rows of a data frame."""
    from holdfast.data.memory.frames import frame_table, is_frame

    if isinstance(log, (list, tuple)):
        return {"log_history": log}
    # What ``fit`` of Keras returns.
    log = getattr(log, "history", log) if not is_frame(log) else log
    if not is_frame(log) and not isinstance(log, Mapping):
        rule = "cannot be read as a training log"
        raise DataError("the log", rule, type(log).__name__, READABLE)
    return log if isinstance(log, Mapping) else frame_table(log, "the log").to_pylist()
