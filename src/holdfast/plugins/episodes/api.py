"""``holdfast.meta``: the command as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.api.arguments import RowArguments, Settings
from holdfast.api.trained_run import TrainedRun
from holdfast.contract.advice import in_python
from holdfast.contract.request import TrainingRequest
from holdfast.contract.run_folder import reserve_folder
from holdfast.core.decisions import decisions_to
from holdfast.core.records import Decision, Finding
from holdfast.terminal.messages import MessagePrinter, needs_attention


@in_python()
def meta(
    source: Any,
    labels: Any = None,
    *,
    task_column: str | None = None,
    test: Any = None,
    model: str | Path | None = None,
    task: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    settings: Settings = (),
    out: str | Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> TrainedRun:
    """Learn a base model from many small tasks, as ``holdfast meta`` does; it adapts to a new task
    in a few steps.

    Returns a run whose ``folder / "model"`` is that base model, for ``train(…, model=…)``.

    Parameters
    ----------
    source, labels, test : as for ``train``; ``test`` holds tasks (or classes) of their own.
    task_column : the column that separates the tasks; left out, the classes are split, or in a
    folder
        ``task/class/picture`` the tasks.

    The others are the options of the command. ``result["meta"]`` says which model was chosen and
    why. Raises ``holdfast.InputError`` where the command would exit with 2.
    """
    from holdfast.recipe import as_settings

    task_settings = [] if task_column is None else [f"meta.task_column={task_column}"]
    rows = RowArguments(source, labels, None, test, text, label, None)
    all_settings = [*task_settings, *as_settings(settings)]
    request = rows.request(model, task, seed, all_settings, out, resume)
    return TrainedRun(run_meta(request, quiet=quiet)[1])


def run_meta(
    request: TrainingRequest, *, quiet: bool = False, verbose: bool = False
) -> tuple[dict[str, Any], Path]:
    """Learn the base model for ``request``; returns the result and the run's folder."""
    from holdfast.plugins.episodes.meta import meta

    teller, full_teller = MessagePrinter(quiet, verbose), MessagePrinter(quiet)

    def notify(item: Decision | Finding) -> None:
        # This run has no outline under which important decisions could be listed.
        person = isinstance(item, Finding) and needs_attention(item)
        (full_teller if person else teller)(item)

    recipe = request.recipe()
    with reserve_folder(request.source, request.out, request.resume) as folder:
        teller.title(f"holdfast meta → {folder}")
        in_memory = request.in_memory
        with decisions_to(notify):
            return meta(recipe, folder, resume=request.resume, held=in_memory), folder
