"""``holdfast update --every``: the same loop on a schedule, in one process.

    wait → enough new feedback? → test the served model again → update, behind its gate → write it
    down → wait

What was done stands in ``rounds.jsonl`` of the folder, a line a round, and in the store's events
where there is one. A process that was killed goes on where it was: the next time counts from the
last line, and an update that was begun is continued.
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

from holdfast.analyses.row_texts import kind_of_rows, labels_of_rows
from holdfast.contract.run_folder import RESULT, open_run
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import InputError, Interrupted, RecipeError, RunError, StoreError
from holdfast.core.files import disk_errors, refuse_link
from holdfast.core.input_errors import door, lacking
from holdfast.core.lock import locked
from holdfast.core.wording import GATE_OUTCOMES, counted
from holdfast.plugins.update.candidates import predictions
from holdfast.plugins.update.feedback import is_store, tell_store
from holdfast.plugins.update.merge import labelled_rows
from holdfast.plugins.update.options import UpdateOptions
from holdfast.plugins.update.retest import Retest, retest
from holdfast.runs.finished_run import FinishedRun
from holdfast.runs.predictor import Predictor
from holdfast.runs.procedure import read_search_start

ROUNDS = "rounds.jsonl"
DIGITS = 4
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
LONGEST = 366 * 86400.0
Do = Callable[[UpdateOptions, Path, bool], Mapping[str, Any]]
Ended = Callable[[Mapping[str, Any], Mapping[str, Any] | None], None]


def seconds_of(text: str) -> float:
    """``90s``, ``30m``, ``6h``, ``1d`` or ``1w`` as seconds; raises ``RecipeError`` for others."""
    found = _TIME.fullmatch(text.strip().lower())
    seconds = float(found[1]) * UNITS[found[2]] if found else math.nan
    if not 0 < seconds <= LONGEST:
        rule = "must be a time of at most a year, a number with s, m, h, d or w"
        raise RecipeError("--every", rule, text, "E.g. --every 6h, or --every 1d.")
    return seconds


def moment(at: float) -> str:
    """A time in seconds since 1970 as a person reads it, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@dataclass(frozen=True, slots=True)
class RoundSchedule:
    """Every so many seconds, into folders below ``folder``; a round needs ``least`` new rows."""

    every: float
    folder: Path
    least: int


def schedule_of(asking: UpdateOptions, every: str, out: Path | None, least: int) -> RoundSchedule:
    """What ``--every`` asks for. Raises ``RecipeError`` for what cannot be."""
    seconds = seconds_of(every)
    if asking.feedback is None:
        rule = "needs feedback that grows"
        raise RecipeError("--every", rule, None, "Name a file or a store with --feedback.")
    if out is None:
        rule = "needs a folder for its rounds, by which it goes on after a restart"
        raise RecipeError("--every", rule, None, "Name it with --out.")
    if (out / RESULT).exists():
        rule = "is a run, and --every writes runs below a folder"
        raise RunError(str(out), rule, None, "Name another folder with --out.")
    open_run(asking.run)
    return RoundSchedule(seconds, out, least)


class Rounds:
    """The loop. ``do`` makes one update into a folder (or continues it), ``say`` hears a line for
    the log. ``ended`` hears each round that is written down: its line, and the result of its
    update (``None`` of one that was skipped). A round is the update of the run that is in service
    by then. No decision of a gate ends the loop."""

    def __init__(
        self,
        asking: UpdateOptions,
        schedule: RoundSchedule,
        do: Do,
        say: Callable[[str], None],
        ended: Ended,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._first = self._asking = asking
        self._schedule, self._do, self._say = schedule, do, say
        self._ended, self._clock = ended, clock
        self.stopped = threading.Event()
        self._busy = False

    def run(self, most: int | None = None) -> None:
        """Go on until SIGTERM or Ctrl-C, or for ``most`` rounds. While it waits either ends it at
        once; within an update it is an interrupt, and the update can be continued."""
        with disk_errors(self._schedule.folder):
            self._schedule.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            with decisions_to(lambda one: self._say(one.because)):
                stack.enter_context(locked(self._schedule.folder))
            stack.enter_context(self._ended_by_signals())
            done = 0
            while most is None or done < most:
                lines = self._lines()
                due = self._clock()
                if lines and self._begun() is None:
                    due = float(lines[-1]["at"]) + self._schedule.every
                if not self._wait(due):
                    self._say("stopped between two rounds")
                    return
                self._busy = True
                self._round()
                self._busy = False
                done += 1

    def _soon(self, due: float) -> float:
        """``due``, or a time from now where it is later: a clock that was set back since the last
        line, or was ahead when it was written, must not put the next round off by years."""
        return min(due, self._clock() + self._schedule.every)

    def _wait(self, due: float) -> bool:
        """Until it is due; whether it came to that."""
        due = self._soon(due)
        if due > self._clock():
            self._say(f"next round: {moment(due)}")
        while (left := due - self._clock()) > 0 and not self.stopped.is_set():
            # A clock that is set, or a machine that sleeps, is noticed within the hour.
            self.stopped.wait(min(left, 3600.0))
            due = self._soon(due)
        return not self.stopped.is_set()

    def _round(self) -> None:
        begun = self._begun()
        if begun is not None:
            folder = self._schedule.folder / str(begun["begun"])
            self._say(f"continued: {folder}")
            known = {key: begun[key] for key in begun if key in ("count", "new", "retest")}
            self._update(folder, True, known)
            return
        try:
            run = in_service(self._first)
            if run != self._asking.run:
                self._say(f"in service by now: {run}")
                self._asking = replace(self._first, run=run)
            count = count_feedback(self._asking)
        except (StoreError, InputError) as error:
            self._note({"skipped": f"{error.what} {error.rule}"})
            return
        before = next((x["count"] for x in reversed(self._lines()) if "run" in x), 0)
        tested = self._retested()
        new = count - before
        line = {"count": count, "new": new, **({"retest": tested.to_json()} if tested else {})}
        if new < self._schedule.least:
            least = counted(self._schedule.least, "new row")
            told = f"{counted(new, 'row')} {'is' if new == 1 else 'are'} new"
            told = "no row is new" if new <= 0 else told
            self._note({**line, "skipped": f"{told}, and a round needs {least}"})
            return
        numbers = [int(path.name) for path in self._schedule.folder.iterdir() if _is_round(path)]
        folder = self._schedule.folder / f"{max(numbers, default=0) + 1:0{DIGITS}d}"
        self._note({**line, "begun": folder.name})
        self._update(folder, False, line)

    def _retested(self) -> Retest | None:
        """The served model on labelled rows that it has not learned from."""
        try:
            found = retested(self._asking)
        except InputError as error:
            self._say(f"not re-tested: {error.what} {error.rule}")
            return None
        self._say(("alarm: " if found.alarm else "re-tested: ") + found.because)
        body = {**found.to_json(), "run": str(self._asking.run)}
        try:
            tell_store(self._asking.feedback, "retest", body, self._clock())
        except StoreError as error:
            self._say(f"not written into the store: {error.what} {error.rule}")
        return found

    def _update(self, folder: Path, resume: bool, line: Mapping[str, Any]) -> None:
        try:
            result = self._do(self._asking, folder, resume)
        except Interrupted:
            raise
        except Exception as error:
            # What is at fault may be right the next time: a file half written, too few rows, no
            # memory left for now.
            fault = error if isinstance(error, InputError) else lacking(error)
            if fault is not None:
                self._note({**line, "skipped": f"{fault.what} {fault.rule}"})
                return
            # A defect ends the loop. Whoever starts it again must not meet it at once, and for
            # ever: the round has its line.
            self._note({**line, "skipped": f"an internal error stopped it: {type(error).__name__}"})
            raise
        gate = result["update"]["gate"]
        forgot = gate["first"] or gate["old"]
        self._note(
            {
                **(line or {"count": result["update"]["feedback"]["n"]}),
                "run": folder.name,
                "decision": gate["decision"],
                "because": gate["because"],
                "forgetting": {"beside": result["update"]["first"], **forgot["difference"]},
            },
            result,
        )

    def _note(self, line: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> None:
        """Write down what was done, and say it."""
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
            self._say(f"begun: {self._schedule.folder / line['begun']}")
        elif "skipped" in line:
            self._say(f"skipped: {line['skipped']}")
        else:
            outcome = GATE_OUTCOMES.get(line["decision"], line["decision"])
            self._say(f"{line['run']}: {outcome}: {line['because']}")
        if "begun" not in line:
            self._ended(line, result)

    def _lines(self) -> list[dict[str, Any]]:
        return read_rounds(self._schedule.folder)

    def _begun(self) -> dict[str, Any] | None:
        """The line of a round that was begun and has none of its end: its update was killed, or is
        whole and was not written down. A round that failed has its line, and is not tried again."""
        lines = self._lines()
        name = lines[-1].get("begun") if lines else None
        if name is None or read_search_start(self._schedule.folder / str(name)) is None:
            return None
        return lines[-1]

    @contextmanager
    def _ended_by_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: object) -> None:
            self.stopped.set()
            if self._busy:
                raise KeyboardInterrupt

        before = {n: signal.signal(n, ask) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``rounds.jsonl``, oldest first; half a line (a kill) is none."""
    path, found = folder / ROUNDS, []
    if not path.is_file():
        return []
    with door(str(path), RunError, remedy="Restore it, or take another --out."):
        for text in path.read_text("utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and isinstance(line.get("at"), (int, float)):
                found.append(line)
    return found


def count_feedback(asking: UpdateOptions) -> int:
    """How many rows of feedback there have been so far; what was deleted counts on."""
    from holdfast.data.source import read_source
    from holdfast.plugins.store.store import open_store

    where, last = str(asking.feedback), 0
    if not is_store(where):
        return len(read_source(where, None, None))
    with closing(open_store(where)) as store:
        while more := store.feedback(after=last):
            last = int(more[-1].id or 0)
    return last


def in_service(asking: UpdateOptions) -> Path:
    """The run that took the place of the one that was asked for, by the store that the feedback
    comes of; else that one."""
    from holdfast.plugins.service.promotion import standings
    from holdfast.plugins.store.store import open_store
    from holdfast.runs.threshold import served_name

    if asking.feedback is None or not is_store(asking.feedback):
        return asking.run
    with closing(open_store(asking.feedback)) as store:
        found = standings(store).get(served_name(asking.run))
    return asking.run if found is None else found.run


def retested(asking: UpdateOptions) -> Retest:
    """The served model on labelled rows, drawn evenly, that it has not learned from."""
    table = labelled_rows(asking.run, str(asking.feedback))
    test = (FinishedRun(asking.run).result.get("test") or {}).get("metrics") or {}
    if kind_of_rows(table) != "class":
        why = "its answers are not right or wrong; the gate compares them"
        return Retest(len(table), why=why)
    promised = (test.get("accuracy") or {}).get("low")
    said = predictions(Predictor.load(asking.run), table) if len(table) else []
    labels = labels_of_rows(table) if len(table) else []
    return retest([a == b for a, b in zip(said, labels, strict=True)], promised)


def _is_round(path: Path) -> bool:
    return path.is_dir() and path.name.isdecimal()
