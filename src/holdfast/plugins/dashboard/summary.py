"""A run in one line of a list: its state (running, finished, interrupted, damaged) and a summary of
its files, read once and cached until they change."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from holdfast.core.errors import HoldfastError
from holdfast.core.input_errors import first_line
from holdfast.core.labels import verdict_title
from holdfast.core.lock import LOCK_FILE as LOCK
from holdfast.core.printable import printable
from holdfast.core.records import Estimate
from holdfast.core.run_files import EVENTS_FILE, RESULT_FILE
from holdfast.core.run_shapes import RESULT_SHAPE
from holdfast.core.shapes import parse_object
from holdfast.core.yaml_values import from_yaml
from holdfast.plugins.dashboard.files import read_end, read_file
from holdfast.report.answer.answer import answer
from holdfast.report.answer.score import headline_score
from holdfast.report.numbers import EVALUATION_METRICS, HEADLINE_METRICS, count, metrics
from holdfast.report.public import base_name, public_name
from holdfast.report.view.headline import VERDICT_SENTENCES

State = Literal["running", "finished", "interrupted", "damaged"]
STATES: tuple[State, ...] = ("running", "finished", "interrupted", "damaged")
RECIPE, CHECKPOINTS = "recipe.yaml", "checkpoints"
# A folder with one of them is a run.
MARKS = frozenset({RESULT_FILE, EVENTS_FILE, RECIPE})
# Tolerance between two clocks of one machine: a process starts before it writes its name.
SLACK_S = 2.0
# The end of events.jsonl that is read of an unfinished run: some tens of lines.
TAIL_BYTES = 65_536
MAX_RECIPE_BYTES = 1_000_000
MAX_FINDINGS, MAX_REASON = 40, 400
NOT_MEASURED = Estimate(None, why="not measured")


@dataclass(frozen=True, slots=True)
class Summary:
    """One run. ``score`` is its task's metric, on test rows where it is finished and on validation
    rows of the last evaluation where it is not, as ``score_source`` says; ``when`` is the time of
    its last update, in seconds since 1970; ``problem`` says why it cannot be read; ``tone`` colours
    the verdict; ``findings`` are the audit's warnings and errors: severity, check, reason, whether
    it was fixed."""

    name: str
    state: State
    when: float
    task: str = ""
    model: str = ""
    data: str = ""
    rows: int | None = None
    metric: str = ""
    score: Estimate = NOT_MEASURED
    score_source: str = ""
    verdict: str = ""
    tone: str = "unsure"
    step: int | None = None
    findings: tuple[tuple[str, str, str, bool], ...] = ()
    problem: str = ""

    @property
    def searched(self) -> str:
        """The text that a search covers, in lower case."""
        parts = (self.name, self.task, self.model, self.data, self.verdict, self.state)
        return "\n".join(parts).casefold()


def is_being_written(run: Path) -> bool:
    """Whether a live process holds the run, according to the folder's lock file. The lock itself is
    not taken: a training that starts at that moment would be refused. A reused process id is
    detected by the process's start time. A lock of another machine is trusted."""
    try:
        holder = json.loads(read_end(run / LOCK, 1_000))
        pid, host = int(holder["pid"]), str(holder["host"])
        since = datetime.fromisoformat(holder["since"]).timestamp()
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return False
    if host != socket.gethostname() or pid == os.getpid():
        return True
    import psutil

    try:
        began: float = psutil.Process(pid).create_time()
    except (psutil.Error, ValueError, OverflowError):
        return False
    return began <= since + SLACK_S


def state_of(run: Path, names: frozenset[str]) -> State:
    """The state according to the files in the folder, whether or not they can be read."""
    if RESULT_FILE in names and CHECKPOINTS not in names:
        return "finished"
    if LOCK in names and is_being_written(run):
        return "running"
    return "interrupted"


def read_summary(run: Path, name: str, state: State, when: float) -> Summary:
    """The summary of ``run``'s files; one that cannot be read is ``damaged``, with its problem."""
    try:
        if state == "finished":
            return _finished(run, name, when)
        return _unfinished(run, name, state, when)
    except HoldfastError as error:
        problem = f"{error.what}: {error.rule}"
    # An untrusted file must not break the list.
    except Exception as error:
        problem = f"cannot be shown: {type(error).__name__}: {first_line(error)}"
    problem = problem.replace(f"{run}/", "")
    return Summary(name, "damaged", when, problem=printable(problem, 300))


def _finished(run: Path, name: str, when: float) -> Summary:
    raw = read_file(run / RESULT_FILE)
    try:
        result = parse_object(raw)
        RESULT_SHAPE(result, "")
    except ValueError as error:
        return Summary(name, "damaged", when, problem=printable(f"{RESULT_FILE} {error}", 300))
    verdict = _part(result, "verdict")
    label = str(verdict.get("label") or "")
    main_answer, score = answer(result), headline_score(result)
    tone = VERDICT_SENTENCES.get(label, ("unsure", ""))[0]
    if tone == "good" and main_answer.use == "no":
        tone = "unsure"
    folds = metrics(_part(result, "cv"))
    if score is None and folds:
        first = next((one for one in HEADLINE_METRICS if one in folds), next(iter(folds)))
        metric_and_score, score_source = (first, folds[first]), "folds"
    else:
        metric_and_score = (score.name, score.value) if score else ("", NOT_MEASURED)
        score_source = f"{count(_part(result, 'test').get('n'))} test rows" if score else ""
    data = _part(result, "settings", "data").get("path")
    return Summary(
        name,
        "finished",
        when,
        task=str(result.get("task") or ""),
        model=public_name(str(result.get("model") or "")),
        data=base_name(str(data)) if data else "",
        rows=_part(result, "data").get("used"),
        metric=metric_and_score[0],
        score=metric_and_score[1],
        score_source=score_source,
        verdict=verdict_title(label),
        tone=tone,
        step=result.get("last_step"),
        findings=tuple(
            (
                str(one["severity"]),
                str(one.get("check")),
                printable(str(one.get("because") or ""), MAX_REASON),
                bool(one.get("fixed")),
            )
            for one in _part(result, "data").get("findings") or ()
            if one.get("severity") in ("error", "warn")
        )[:MAX_FINDINGS],
    )


def _unfinished(run: Path, name: str, state: State, when: float) -> Summary:
    evaluation, verdict = _last_events(run)
    recipe: Any = {}
    if (run / RECIPE).exists():
        recipe = from_yaml(read_file(run / RECIPE, MAX_RECIPE_BYTES).decode())
    metric_values = evaluation.get("valid_metrics") or {}
    metric = next((one for one in EVALUATION_METRICS if one in metric_values), "")
    value = metric_values.get(metric)
    score = Estimate(float(value)) if isinstance(value, (int, float)) else Estimate(None)
    data = _part(recipe, "data").get("path")
    label = str(verdict.get("label") or "")
    return Summary(
        name,
        state,
        when,
        task=str(_part(recipe).get("task") or ""),
        model=public_name(str(_part(recipe, "model").get("name") or "")),
        data=base_name(str(data)) if data else "",
        metric=metric,
        score=score,
        score_source=f"{count(evaluation.get('valid_rows'))} validation rows, so far"
        if metric
        else "",
        verdict=verdict_title(label),
        tone=VERDICT_SENTENCES.get(label, ("unsure", ""))[0],
        step=evaluation.get("step") if isinstance(evaluation.get("step"), int) else None,
    )


def _last_events(run: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The last evaluation and the last verdict, where the end of the file contains them."""
    events: dict[str, Mapping[str, Any]] = {}
    try:
        raw = read_end(run / EVENTS_FILE, TAIL_BYTES)
    except FileNotFoundError:
        raw = b""
    # The first line may be cut, the last one half written.
    for line in reversed(raw.split(b"\n")):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        event_type = event.get("event") if isinstance(event, dict) else None
        if event_type in ("snapshot", "verdict"):
            events.setdefault(event_type, event)
        if len(events) == 2:
            break
    return events.get("snapshot", {}), events.get("verdict", {})


def _part(value: object, *keys: str) -> Mapping[str, Any]:
    """The object at ``keys``, empty where it is absent."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}
