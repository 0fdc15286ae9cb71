"""``holdfast.update``: the command as a function."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from holdfast.api.arguments import Settings, check_number, file_of, name_or_none
from holdfast.api.trained_run import TrainedRun, run_folder
from holdfast.contract.advice import in_python


@in_python()
def update(
    run: str | Path | TrainedRun,
    feedback: Any = None,
    *,
    margin: float | None = None,
    start: str = "anew",
    hold: float | None = None,
    own: float = 0.2,
    out: str | Path | None = None,
    seed: int | None = None,
    settings: Settings = (),
    resume: bool = False,
    quiet: bool = False,
) -> TrainedRun:
    """Do what ``holdfast update`` does once, and return the new run.
    ``run.result["update"]["gate"]["outcome"]`` says whether it may replace the served run:
    accepted, rejected or inconclusive. A run that is not accepted is returned too, where the
    command exits with 3.

    Parameters
    ----------
    run : the served run.
    feedback : a file of labelled rows, a data frame, or the store of a service (its file or URL).
    margin : allowed loss on old rows, in points; by default 2 to 5, by the number of rows.
    start : ``anew`` (from the base model), or ``warm`` (from the served model).
    hold, own : shares: of the feedback held out for the gate; of training rows that a model may
        have labelled.

    The other parameters are those of ``train``. Raises ``holdfast.InputError`` where
    the command would exit with 2.
    """
    from holdfast.data.memory.frames import is_frame
    from holdfast.plugins.update.options import UpdateOptions, run_update

    for name, value in (("margin", margin), ("hold", hold), ("own", own)):
        check_number(name, value)
    folder = run_folder(run)
    in_file = file_of(feedback) if is_frame(feedback) else nullcontext(name_or_none(feedback))
    with in_file as where:
        options = UpdateOptions(folder, where, margin, start, hold, own, seed, settings)
        new_folder = Path(out) if out else None
        _, updated_folder = run_update(options, new_folder, resume=resume, quiet=quiet)
    return TrainedRun(updated_folder)
