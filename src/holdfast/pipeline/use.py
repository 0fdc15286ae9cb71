"""Using finished runs: score them on other rows, predict with one or several."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from holdfast.core.errors import InputError, RecipeError, RunError
from holdfast.pipeline.folder import RECIPE, open_run, unsealed
from holdfast.pipeline.kinds import kind_of
from holdfast.pipeline.predicted import Predicted, json_object
from holdfast.pipeline.rows import Notify, notify_all
from holdfast.pipeline.seen import seen_rows
from holdfast.pipeline.using import Data, Options, Predictor, data_part, within_limits
from holdfast.recipe import read_recipe
from holdfast.training.machine import flushed_subnormals


def evaluate(
    runs: Path | Sequence[Path],
    data: str,
    options: Options | None = None,
    notify: Notify = lambda _: None,
) -> dict[str, Any]:
    """A ``test`` block for the labelled rows of ``data``, scored by the saved model of a run, or by
    the average of several.

    ``seen`` says how many of the rows the runs were trained on or chosen by (the same rows, or
    copies of them); where there are any, ``without_seen`` is the score of the others.
    """
    paths = [runs] if isinstance(runs, Path) else list(runs)
    task, options = _same_task(paths, "evaluate"), options or Options()
    limited = within_limits(data_part(paths[0]), options.limits)
    with flushed_subnormals(), advising(), limited:
        judged = kind_of(task).judge(paths, data, options)
        notify_all(notify, (*unsealed(paths), *judged.decisions), judged.table.findings)
        block = judged.score().to_json()
        seen = seen_rows(paths, judged.table)
        block["seen"] = seen.to_json()
        if seen.unseen is not None and len(seen.unseen) < len(judged.table):
            block["without_seen"] = judged.score(seen.unseen).to_json()
    return block


def predictor(runs: Sequence[Path]) -> Predictor:
    """What answers for these runs of the same task, loaded once."""
    task = _same_task(runs, "predict")
    with flushed_subnormals():
        return kind_of(task).predictor(runs)


def predict(
    runs: Sequence[Path],
    data: Data,
    options: Options | None = None,
    *,
    probabilities: bool = False,
    notify: Notify = lambda _: None,
) -> Predicted:
    """The predictions for a file as ``train`` reads them, or a list of texts: one a row, made part
    by part as they are read off."""
    answering, options = predictor(runs), options or Options()
    with advising(), within_limits(data_part(runs[0]), options.limits):
        predicted = Predicted(answering, data, options, probabilities)
    notify_all(notify, (*unsealed(runs), *predicted.decisions), ())
    return predicted


def predict_lines(runs: Sequence[Path], data: Data, options: Options | None = None) -> list[str]:
    """The predictions as one JSON object a row."""
    predicted = predict(runs, data, options)
    return [
        json.dumps(row, ensure_ascii=False)
        for part in predicted.parts()
        for row in json_object(predicted, part)
    ]


@contextlib.contextmanager
def advising() -> Iterator[None]:
    """An error that advises ``--set data.encoding=`` says ``--encoding`` here, where that is the
    option."""
    try:
        yield
    except InputError as error:
        remedy = error.remedy.replace("--set data.encoding=", "--encoding ")
        what = "--encoding" if error.what == "data.encoding" else error.what
        remedy = remedy.replace("Leave data.encoding out", "Leave --encoding out")
        if (what, remedy) == (error.what, error.remedy):
            raise
        raise type(error)(what, error.rule, error.value, remedy) from error


def _task_of(run: Path) -> str:
    task = read_recipe(run / RECIPE).task
    if task is None:
        raise RunError(
            str(run / RECIPE),
            "names no task, which a run's recipe does",
            None,
            "The file is damaged; restore it from a copy.",
        )
    return task


def _same_task(runs: Sequence[Path], command: str) -> str:
    for run in runs:
        open_run(run)
    tasks = sorted({_task_of(run) for run in runs})
    if len(tasks) > 1:
        raise RecipeError(
            f"holdfast {command}",
            "averages only runs of the same task",
            tasks,
            "Give runs that were trained alike.",
        )
    return tasks[0]
