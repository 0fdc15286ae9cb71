"""``holdfast update --every``: the update on a schedule, in one process.

    wait → enough new feedback? → test the served model again → update, behind its gate → record
    it → wait

Each round is one line of ``rounds.jsonl`` in the folder, and an event of the store where there is
one. A process that was killed continues: the next time counts from the last line, and an update
that was started is continued.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast.analyses.row_texts import label_type_of, labels_of_rows
from holdfast.contract.run_folder import RESULT, open_run
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import InputError, RecipeError, RunError, StoreError
from holdfast.core.files import disk_errors, refuse_link
from holdfast.core.input_errors import reading_errors, resource_error
from holdfast.core.lock import locked
from holdfast.core.wording import GATE_OUTCOMES, count_phrase
from holdfast.plugins.update.feedback import append_event, is_store
from holdfast.plugins.update.merge import unseen_labelled_rows
from holdfast.plugins.update.options import UpdateOptions
from holdfast.plugins.update.retest import Retest, retest
from holdfast.runs.finished_run import FinishedRun
from holdfast.runs.predictor import Predictor
from holdfast.runs.procedure import read_search_start

ROUNDS = "rounds.jsonl"
DIGITS = 4
MIN_NEW_ROWS = 50
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
MAX_INTERVAL = 366 * 86400.0
UpdateOnce = Callable[[UpdateOptions, Path, bool], Mapping[str, Any]]
RoundListener = Callable[[Mapping[str, Any], Mapping[str, Any] | None], None]


def seconds_of(text: str) -> float:
    """``90s``, ``30m``, ``6h``, ``1d`` or ``1w`` as seconds; raises ``RecipeError`` otherwise."""
    match = _TIME.fullmatch(text.strip().lower())
    seconds = float(match[1]) * UNITS[match[2]] if match else math.nan
    if not 0 < seconds <= MAX_INTERVAL:
        rule = "must be a time of at most a year, a number with s, m, h, d or w"
        raise RecipeError("--every", rule, text, "E.g. --every 6h, or --every 1d.")
    return seconds


def format_time(at: float) -> str:
    """A time in seconds since 1970 as a date and time in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@dataclass(frozen=True, slots=True)
class RoundSchedule:
    """One round every ``interval`` seconds, into folders below ``folder``, where there are at least
    ``min_new_rows`` new rows."""

    interval: float
    folder: Path
    min_new_rows: int


def round_schedule(
    options: UpdateOptions, every: str, out: Path | None, min_new_rows: int
) -> RoundSchedule:
    """The schedule that ``--every`` requests. Raises ``RecipeError`` for invalid options."""
    seconds = seconds_of(every)
    if options.feedback is None:
        rule = "needs feedback to update from"
        raise RecipeError("--every", rule, None, "Name a file or a store with --feedback.")
    if out is None:
        rule = "needs a folder for its runs, from which it continues after a restart"
        raise RecipeError("--every", rule, None, "Name it with --out.")
    if (out / RESULT).exists():
        rule = "is a run; --every needs a folder for several runs"
        raise RunError(str(out), rule, None, "Name another folder with --out.")
    open_run(options.run)
    return RoundSchedule(seconds, out, min_new_rows)


class Rounds:
    """The update loop. ``update_once`` makes one update in a folder (or continues it), ``log``
    receives a line for the log. ``on_round`` receives each recorded round: its line, and the result
    of its update (``None`` where it was skipped). A round updates the run that is in service at
    that time. No decision of a gate stops the loop."""

    def __init__(
        self,
        options: UpdateOptions,
        schedule: RoundSchedule,
        update_once: UpdateOnce,
        log: Callable[[str], None],
        on_round: RoundListener,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._first = self._options = options
        self._schedule, self._update_once, self._log = schedule, update_once, log
        self._on_round, self._clock = on_round, clock
        self.stopped = threading.Event()
        self._busy = False

    def run(self, max_rounds: int | None = None) -> None:
        """Run until SIGTERM or Ctrl-C, or for ``max_rounds`` rounds. A signal stops a waiting loop
        at once; during an update it is an interrupt, and the update can be continued."""
        with disk_errors(self._schedule.folder):
            self._schedule.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            with decisions_to(lambda one: self._log(one.because)):
                stack.enter_context(locked(self._schedule.folder))
            stack.enter_context(self._stopped_by_signals())
            done = 0
            while max_rounds is None or done < max_rounds:
                lines = self._lines()
                due = self._clock()
                if lines and self._unfinished_round() is None:
                    due = float(lines[-1]["at"]) + self._schedule.interval
                if not self._wait_until(due):
                    self._log("stopped between two rounds")
                    return
                self._busy = True
                self._run_round()
                self._busy = False
                done += 1

    def _next_due(self, due: float) -> float:
        """``due``, or one interval from now if that is earlier. A clock that was set back since the
        last line, or was ahead when it was written, must not delay the next round by years."""
        return min(due, self._clock() + self._schedule.interval)

    def _wait_until(self, due: float) -> bool:
        """Wait until ``due``; ``False`` if the loop was stopped before."""
        due = self._next_due(due)
        if due > self._clock():
            self._log(f"next round: {format_time(due)}")
        while (left := due - self._clock()) > 0 and not self.stopped.is_set():
            # A clock that is set, or a machine that sleeps, is noticed within the hour.
            self.stopped.wait(min(left, 3600.0))
            due = self._next_due(due)
        return not self.stopped.is_set()

    def _run_round(self) -> None:
        unfinished = self._unfinished_round()
        if unfinished is not None:
            folder = self._schedule.folder / str(unfinished["begun"])
            self._log(f"continuing {folder}")
            line_so_far = {
                key: unfinished[key] for key in unfinished if key in ("count", "new", "retest")
            }
            self._update(folder, True, line_so_far)
            return
        try:
            run = served_run(self._first)
            if run != self._options.run:
                self._log(f"now in service: {run}")
                self._options = replace(self._first, run=run)
            count = count_feedback(self._options)
        except (StoreError, InputError) as error:
            self._record({"skipped": f"{error.what} {error.rule}"})
            return
        before = next((x["count"] for x in reversed(self._lines()) if "run" in x), 0)
        test_result = self._retest()
        new = count - before
        line = {
            "count": count,
            "new": new,
            **({"retest": test_result.to_json()} if test_result else {}),
        }
        if new < self._schedule.min_new_rows:
            least = count_phrase(self._schedule.min_new_rows, "new row")
            new_count = "no new rows" if new <= 0 else count_phrase(new, "new row")
            self._record({**line, "skipped": f"{new_count}; a round needs at least {least}"})
            return
        numbers = [int(path.name) for path in self._schedule.folder.iterdir() if _is_round(path)]
        folder = self._schedule.folder / f"{max(numbers, default=0) + 1:0{DIGITS}d}"
        self._record({**line, "begun": folder.name})
        self._update(folder, False, line)

    def _retest(self) -> Retest | None:
        """Test the served model on labelled rows that it was not trained on."""
        try:
            test_result = retest_served_model(self._options)
        except InputError as error:
            self._log(f"not re-tested: {error.what} {error.rule}")
            return None
        status = "" if test_result.value is None else "re-tested: "
        self._log(("alarm: " if test_result.alarm else status) + test_result.because)
        body = {**test_result.to_json(), "run": str(self._options.run)}
        try:
            append_event(self._options.feedback, "retest", body, self._clock())
        except StoreError as error:
            self._log(f"the re-test was not written to the store: {error.what} {error.rule}")
        return test_result

    def _update(self, folder: Path, resume: bool, line: Mapping[str, Any]) -> None:
        try:
            result = self._update_once(self._options, folder, resume)
        except Exception as error:
            # The cause may be gone the next time: a file half written, too few rows, no free
            # memory.
            fault = error if isinstance(error, InputError) else resource_error(error)
            if fault is not None:
                self._record({**line, "skipped": f"{fault.what} {fault.rule}"})
                return
            # A defect stops the loop. The round is recorded, so that a restarted loop does not run
            # into the same defect at once.
            self._record(
                {**line, "skipped": f"an internal error stopped it: {type(error).__name__}"}
            )
            raise
        gate = result["update"]["gate"]
        forgot = gate["first"] or gate["old"]
        self._record(
            {
                **(line or {"count": result["update"]["feedback"]["n"]}),
                "run": folder.name,
                "decision": gate["decision"],
                "because": gate["because"],
                "forgetting": {"beside": result["update"]["first"], **forgot["difference"]},
            },
            result,
        )

    def _record(self, line: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> None:
        """Append the round to ``rounds.jsonl``, and log it."""
        line = {"at": self._clock(), **line}
        path = self._schedule.folder / ROUNDS
        with disk_errors(path):
            refuse_link(path)
            halved = path.is_file() and not path.read_bytes().endswith(b"\n")
            with path.open("a", encoding="utf-8") as stream:
                # A kill may have left half a line.
                stream.write("\n" if halved else "")
                stream.write(json.dumps(line) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        if "begun" in line:
            self._log(f"started {self._schedule.folder / line['begun']}")
        elif "skipped" in line:
            self._log(f"skipped: {line['skipped']}")
        else:
            outcome = GATE_OUTCOMES.get(line["decision"], line["decision"])
            self._log(f"{line['run']}: {outcome}: {line['because']}")
        if "begun" not in line:
            self._on_round(line, result)

    def _lines(self) -> list[dict[str, Any]]:
        return read_rounds(self._schedule.folder)

    def _unfinished_round(self) -> dict[str, Any] | None:
        """The line of a round that was started but has no result: its update was killed, or is
        complete and was not recorded. A round that failed has a result, and is not repeated."""
        lines = self._lines()
        name = lines[-1].get("begun") if lines else None
        if name is None or read_search_start(self._schedule.folder / str(name)) is None:
            return None
        return lines[-1]

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: object) -> None:
            self.stopped.set()
            if self._busy:
                raise KeyboardInterrupt

        before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``rounds.jsonl``, oldest first; an incomplete line (after a kill) is skipped."""
    path, lines = folder / ROUNDS, []
    if not path.is_file():
        return []
    with reading_errors(str(path), RunError, remedy="Restore it, or use another --out."):
        for text in path.read_text("utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and isinstance(line.get("at"), (int, float)):
                lines.append(line)
    return lines


def count_feedback(options: UpdateOptions) -> int:
    """The number of feedback rows that ever existed; deleted rows still count."""
    from holdfast.data.source import read_source
    from holdfast.plugins.store.store import open_store

    where = str(options.feedback)
    if not is_store(where):
        return len(read_source(where, None, None))
    with closing(open_store(where)) as store:
        return store.last_feedback()


def served_run(options: UpdateOptions) -> Path:
    """The run that is now in service in place of the requested one, by the store that the feedback
    comes from; the requested run where there is none."""
    from holdfast.plugins.service.promotion import served_models
    from holdfast.plugins.store.store import open_store
    from holdfast.runs.threshold import served_name

    if options.feedback is None or not is_store(options.feedback):
        return options.run
    with closing(open_store(options.feedback)) as store:
        standing = served_models(store).get(served_name(options.run))
    return options.run if standing is None else standing.run


def retest_served_model(options: UpdateOptions) -> Retest:
    """Test the served model on labelled rows, drawn uniformly, that it was not trained on."""
    table = unseen_labelled_rows(options.run, str(options.feedback))
    test = (FinishedRun(options.run).result.get("test") or {}).get("metrics") or {}
    if label_type_of(table) != "class":
        why = "its predictions are not correct or wrong; the gate compares them"
        return Retest(len(table), reason=why)
    promised = (test.get("accuracy") or {}).get("low")
    predicted = Predictor.load(options.run).predict_table(table).predictions if len(table) else []
    labels = labels_of_rows(table) if len(table) else []
    return retest([a == b for a, b in zip(predicted, labels, strict=True)], promised)


def _is_round(path: Path) -> bool:
    return path.is_dir() and path.name.isdecimal()
