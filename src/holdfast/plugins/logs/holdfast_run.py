"""Holdfast's own run folder, or its ``events.jsonl``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from holdfast.contract.run_folder import RESULT, unchecked_decisions
from holdfast.core.branches import snapshot_events_on_branch
from holdfast.core.decisions import notify
from holdfast.core.errors import RunError
from holdfast.core.labels import Label
from holdfast.core.records import Decision, Evidence, Remedy, Verdict
from holdfast.core.run_files import check_files, is_sealed, read_events, read_result
from holdfast.monitor.confirmation import confirm_on_test_rows
from holdfast.monitor.judge import judge
from holdfast.plugins.logs import Log, not_a_log
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import first_line_holds
from holdfast.report.answer.answer import DISCARDED, discarded_sentence
from holdfast.training.evaluation_file import EVALUATIONS_FILE, WITHOUT, read_evaluations

FILE = "events.jsonl"
LOSSES = {"train_loss": "train_rows", "valid_loss": "valid_rows", "refined_loss": "valid_rows"}


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """A run's own verdict, and the step of its best checkpoint, where that is known."""

    verdict: Verdict
    best_step: int | None


def read(path: Path) -> Log:
    """Read the evaluations of a run.

    Losses of both sets are means over fixed rows in evaluation mode. An evaluation writes a loss
    that is not a number as ``null``; it becomes NaN again here if there were rows.
    """
    folder, file = (path, path / FILE) if path.is_dir() else (path.parent, path)
    if file.name == FILE:
        result = _finished_result(folder)
        # The folder of another trainer's run never has checksums: nothing is loaded from it.
        if result is not None and not is_sealed(result) and "trainer" not in result:
            notify(*unchecked_decisions([folder], "the run's files"))
        if unused := discarded_sentence(result or {}):
            notify(Decision(DISCARDED, "the model of step 0 is kept", unused))
    rows = [_row(event) for event in snapshot_events_on_branch(read_events(file, partial_end=True))]
    if not rows:
        raise not_a_log(str(file), "contains no evaluation")
    seconds = rows[-1].get("seconds")
    return from_rows(rows, "holdfast", str(file), clean=True, seconds=seconds)


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    if path.is_dir():
        return os.path.lexists(path / FILE)
    return first_line_holds(path, '"event"')


def _finished_result(folder: Path) -> dict[str, Any] | None:
    """``result.json`` of a finished run whose files are unchanged since its end, ``None`` for other
    folders; raises ``RunError`` where a file was changed.
    """
    if not os.path.lexists(folder / RESULT):
        return None
    result = read_result(folder)
    check_files(folder, result, [FILE])
    # Without its evaluations a run has only the verdict that it stored.
    check_files(
        folder,
        result,
        [EVALUATIONS_FILE] if os.path.lexists(folder / EVALUATIONS_FILE) else [],
        WITHOUT,
    )
    return result


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: event.get(name) for name in ("step", "epoch", "seconds")}
    for name, rows in LOSSES.items():
        is_nan = event.get(name) is None and bool(event.get(rows))
        row[name] = math.nan if is_nan else event.get(name)
    for split in ("train", "valid"):
        metrics = event.get(f"{split}_metrics") or {}
        row |= {f"{split}_{name}": value for name, value in metrics.items()}
    return row


def run_verdict(path: Path) -> RunVerdict | None:
    """The verdict of the run itself, where ``path`` is a run's folder or its ``events.jsonl``.

    Computed again from the run's stored evaluations (``looks.npz``), else as the run stored it
    (``result.json``, for an unfinished run the last verdict in ``events.jsonl``). ``None`` where
    there is none, as for a log of means only. For another trainer's run under the guard the stored
    verdict is returned: its remedies name that trainer's arguments.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.name != FILE:
        return None
    try:
        return _read_verdict(folder)
    except RunError:
        raise
    except Exception as error:
        # The user may have changed files of the run: each can fail in its own way.
        rule = f"contains no readable verdict ({type(error).__name__})"
        remedy = "Name a series, e.g. --set valid=valid_loss, to diagnose its log like any other."
        raise RunError(str(folder), rule, None, remedy) from error


def _read_verdict(folder: Path) -> RunVerdict | None:
    result = _finished_result(folder) or {}
    if os.path.lexists(folder / EVALUATIONS_FILE) and "trainer" not in result:
        evaluations = read_evaluations(folder / EVALUATIONS_FILE)
        verdict = judge(evaluations.history, evaluations.run_facts, evaluations.best_step)
        comparison = (result.get("verdict") or {}).get("test_comparison")
        if comparison is not None:
            # The comparison with test rows came from predictions that are not computed again; older
            # runs have none.
            verdict = confirm_on_test_rows(verdict, comparison)
        return RunVerdict(verdict, evaluations.best_step)
    if result:
        return RunVerdict(_verdict(result["verdict"]), int(result["best_step"]))
    events = read_events(folder / FILE, partial_end=True)
    verdicts = [event for event in events if event["event"] == "verdict"]
    if not verdicts:
        return None
    last_verdict, steps = (
        _verdict(verdicts[-1]),
        [event["step"] for event in snapshot_events_on_branch(events)],
    )
    if steps and steps[-1] > verdicts[-1]["step"]:
        # The journal has a line for each change: the label still holds, its numbers are from that
        # step.
        prefix = f"Reported at step {verdicts[-1]['step']} and unchanged since: "
        last_verdict = replace(last_verdict, because=prefix + last_verdict.because)
    return RunVerdict(last_verdict, None)


def _verdict(event: Mapping[str, Any]) -> Verdict:
    if event["label"] not in get_args(Label):
        raise ValueError(f"unknown label {event['label']!r}")
    return Verdict(
        label=event["label"],
        because=event["because"],
        confidence=event["confidence"],
        since_step=event.get("since_step"),
        cause=event.get("cause"),
        harm=event.get("harm"),
        evidence=tuple(Evidence(**x) for x in event.get("evidence", ())),
        remedies=tuple(Remedy(x["do"], tuple(x.get("set", ()))) for x in event.get("remedies", ())),
        test_agrees=event.get("test_agrees"),
        test_comparison=event.get("test_comparison"),
    )
