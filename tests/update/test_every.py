"""The schedule: when a round is due, what is skipped, what a restart goes on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import DataError, RecipeError
from holdfast.plugins.update.options import UpdateOptions
from holdfast.plugins.update.rounds import (
    ROUNDS,
    Rounds,
    RoundSchedule,
    format_time,
    read_rounds,
    round_schedule,
    seconds_of,
    served_run,
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), (" 1.5D", 129600)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "0s", "-1h", "6 hours", "400d", "1e9d", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--every"):
        seconds_of(text)


def test_a_moment_is_told_in_utc() -> None:
    assert format_time(0) == "1970-01-01 00:00:00 UTC"


class Clock:
    """A clock that jumps to whatever is waited for."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def block(decision: str = "undecided") -> dict[str, Any]:
    difference = {"value": 0.0, "low": -0.01, "high": 0.01}
    gate = {"decision": decision, "because": "why", "old": {"difference": difference}}
    gate["first"] = None
    return {"update": {"gate": gate, "first": "runs/a", "feedback": {"n": 200}}}


@pytest.fixture
def loop(served: Path, tmp_path: Path, odd_rows: Any, write_csv: Any) -> Any:
    """A loop over a growing file, whose updates are made up."""
    path = tmp_path / "feedback.csv"
    clock, said, done = Clock(), [], []

    def do(asking: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        done.append((folder.name, resume))
        return block()

    def make(rows: int, act: Any = do, ended: Any = lambda line, result: None) -> Rounds:
        write_csv(path, odd_rows(rows))
        asking = UpdateOptions(served, str(path))
        schedule = RoundSchedule(3600, tmp_path / "rounds", 50)
        made = Rounds(asking, schedule, act, said.append, ended, clock)

        def wait(seconds: float) -> bool:
            clock.now += seconds
            return False

        made.stopped.wait = wait  # type: ignore[method-assign,assignment]
        return made

    make.said, make.done, make.clock, make.folder = said, done, clock, tmp_path / "rounds"  # type: ignore[attr-defined]
    return make


def test_a_round_is_due_a_time_after_the_last_and_needs_new_rows(loop: Any) -> None:
    loop(120).run(2)
    begun, first, second = read_rounds(loop.folder)
    assert begun["begun"] == "0001"
    assert loop.done == [("0001", False)]
    assert (first["run"], first["new"], first["decision"]) == ("0001", 120, "undecided")
    assert first["forgetting"] == {"beside": "runs/a", "value": 0.0, "low": -0.01, "high": 0.01}
    assert second["at"] - first["at"] == 3600
    assert second["skipped"] == "no new rows; a round needs at least 50 new rows"
    assert first["retest"]["n"] == 120
    assert any("next round: 1970-01-01 01:16:40 UTC" in line for line in loop.said)


def test_a_round_gets_the_next_number_however_the_disk_lists_the_others(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("0002", "0011"):
        (loop.folder / name).mkdir(parents=True)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path), reverse=True)))
    loop(120).run(1)
    assert loop.done == [("0012", False)]


def test_a_restart_goes_on_where_it_was(loop: Any) -> None:
    loop(120).run(1)
    loop.clock.now += 600
    # Half a line, as a kill leaves it.
    with (loop.folder / ROUNDS).open("a") as file:
        file.write('{"at": 9')
    loop(200).run(1)
    lines = [line for line in read_rounds(loop.folder) if "run" in line]
    assert [line["new"] for line in lines] == [120, 80]
    assert lines[1]["at"] - lines[0]["at"] == 3600


def test_an_update_that_was_begun_is_continued_first(loop: Any) -> None:
    unfinished = loop.folder / "0007" / "checkpoints"
    unfinished.mkdir(parents=True)
    (unfinished / "search.yaml").write_text("command: update\n")
    begun = {"at": 5.0, "begun": "0007", "count": 90, "new": 90}
    (loop.folder / ROUNDS).write_text(json.dumps(begun) + "\n")
    loop(120).run(1)
    assert loop.done == [("0007", True)]
    # It had begun with the feedback of then.
    assert read_rounds(loop.folder)[-1]["count"] == 90


def test_what_is_at_fault_ends_no_loop(loop: Any) -> None:
    def broken(asking: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        raise DataError("feedback.csv", "is cut short", None, "Fetch it again.")

    loop(120, broken).run(1)
    _, line = read_rounds(loop.folder)
    assert line["skipped"] == "feedback.csv is cut short"
    loop(120).run(1)
    # What no round has learned from is new the next time.
    assert loop.done == [("0001", False)]


def begun_by(folder: Path) -> None:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "search.yaml").write_text("command: update\n")


@pytest.mark.slow
def test_an_update_that_fails_half_way_is_not_tried_at_every_moment(loop: Any) -> None:
    """It leaves a folder that could be continued: the next round begins anew, a time later."""
    tried: list[tuple[str, bool, float]] = []

    def broken(asking: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        tried.append((folder.name, resume, loop.clock.now))
        begun_by(folder)
        raise DataError("the run", "came to a loss that is no number", None, "Lower the rate.")

    loop(120, broken).run(3)
    assert [(name, resume) for name, resume, _ in tried] == [
        ("0001", False),
        ("0002", False),
        ("0003", False),
    ]
    times = [at for _, _, at in tried]
    assert np.diff(times).tolist() == [3600, 3600]
    assert [line["new"] for line in read_rounds(loop.folder) if "skipped" in line] == [120] * 3


def test_a_clock_that_was_ahead_costs_one_time_at_most(loop: Any) -> None:
    """A machine that began with a wrong date wrote a line of then: no round waits years for it."""
    loop(120).run(1)
    loop.clock.now -= 10 * 365 * 86400.0
    right = loop.clock.now
    loop(240).run(1)
    assert len(loop.done) == 2
    assert loop.clock.now - right == 3600


def test_a_clock_that_is_set_back_while_it_waits_costs_one_time_at_most(loop: Any) -> None:
    loop(120).run(1)
    rounds = loop(240)
    asleep = rounds.stopped.wait
    set_back: list[float] = []

    def wait(seconds: float) -> bool:
        if not set_back:
            loop.clock.now -= 10 * 365 * 86400.0
            set_back.append(loop.clock.now)
        assert loop.clock.now - set_back[0] < 86400, "waits for a time that is years away"
        return bool(asleep(seconds))

    rounds.stopped.wait = wait
    rounds.run(1)
    assert len(loop.done) == 2
    # The time that it waited for first, and the one from the new now on.
    assert loop.clock.now - set_back[0] <= 2 * 3600


def test_a_defect_in_a_round_ends_the_loop_and_is_not_met_again_at_once(loop: Any) -> None:
    """Whatever starts the command again (systemd, Kubernetes) waits for the next round with it."""
    tried: list[tuple[str, bool, float]] = []

    def broken(asking: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        tried.append((folder.name, resume, loop.clock.now))
        begun_by(folder)
        raise ZeroDivisionError("of a library")

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            loop(120, broken).run(1)
    assert [(name, resume) for name, resume, _ in tried] == [("0001", False), ("0002", False)]
    assert tried[1][2] - tried[0][2] == 3600
    lines = [line for line in read_rounds(loop.folder) if "begun" not in line]
    assert lines[0]["skipped"] == "an internal error stopped it: ZeroDivisionError"


def test_no_memory_for_a_round_ends_no_loop(loop: Any) -> None:
    def broken(asking: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        loop.done.append((folder.name, resume))
        begun_by(folder)
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:66] can't allocate memory")

    loop(120, broken).run(2)
    assert loop.done == [("0001", False), ("0002", False)]
    lines = [line for line in read_rounds(loop.folder) if "begun" not in line]
    assert all("was given no more memory" in line["skipped"] for line in lines)


@pytest.mark.slow
def test_an_update_without_its_page_is_done(loop: Any) -> None:
    """A defect in the report costs the report, and no round after it."""

    def paged(asking: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        loop.done.append((folder.name, resume))
        folder.mkdir()
        (folder / "search.yaml").write_text("command: update\n")
        return block()

    loop(120, paged).run(1)
    loop(240, paged).run(2)
    assert loop.done == [("0001", False), ("0002", False)]
    assert [line.get("run") for line in read_rounds(loop.folder) if "begun" not in line] == [
        "0001",
        "0002",
        None,
    ]


def test_a_kill_before_the_line_of_an_update_writes_it_and_repeats_nothing(loop: Any) -> None:
    def killed(asking: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        loop.done.append((folder.name, resume))
        if not resume:
            folder.mkdir()
            (folder / "search.yaml").write_text("command: update\n")
            raise KeyboardInterrupt
        return block()

    with pytest.raises(KeyboardInterrupt):
        loop(120, killed).run(1)
    loop(120, killed).run(2)
    assert loop.done == [("0001", False), ("0001", True)]
    _, written, skipped = read_rounds(loop.folder)
    assert (written["run"], written["new"]) == ("0001", 120)
    assert "no new rows" in skipped["skipped"]


@pytest.mark.slow
@pytest.mark.parametrize("decision", ["kept_aside", "undecided"])
def test_no_decision_of_a_gate_ends_the_loop(loop: Any, decision: str) -> None:
    heard: list[tuple[Any, Any]] = []
    done: list[str] = []

    def refused(asking: UpdateOptions, folder: Path, resume: bool) -> Mapping[str, Any]:
        folder.mkdir()
        done.append(folder.name)
        return block(decision)

    def ended(line: Any, result: Any) -> None:
        heard.append((line.get("run"), result))
        # As many new rows again for the next round.
        loop(120 * (len(heard) + 1))

    loop(120, refused, ended).run(3)
    assert done == ["0001", "0002", "0003"]
    assert heard == [(name, block(decision)) for name in done]
    lines = [one for one in read_rounds(loop.folder) if "run" in one]
    assert [one["decision"] for one in lines] == [decision] * 3


def test_with_json_each_round_prints_a_line_of_its_own(
    served: Path, tmp_path: Path, odd_rows: Any, write_csv: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rejected round, one that is skipped, and the end between two rounds: exit code 0."""
    from typer.testing import CliRunner

    from holdfast.cli.main import app

    path = write_csv(tmp_path / "feedback.csv", odd_rows(120))
    turns = iter([True, True, False])
    monkeypatch.setattr(Rounds, "_wait_until", lambda self, due: next(turns))
    made = {"schema": 1, **block("kept_aside")}
    monkeypatch.setattr(
        "holdfast.plugins.update.options.run_update", lambda *_, **__: (made, tmp_path)
    )
    args = ["update", str(served), "--feedback", str(path), "--every", "1h", "--json"]
    done = CliRunner().invoke(app, [*args, "--out", str(tmp_path / "rounds")])
    assert done.exit_code == 0, done.output
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert {**first, "round": None} == {**made, "round": None}
    assert (first["round"]["run"], first["round"]["decision"]) == ("0001", "kept_aside")
    assert (second["schema"], "update" in second) == (1, False)
    assert second["round"]["skipped"] == "no new rows; a round needs at least 50 new rows"
    written = read_rounds(tmp_path / "rounds")
    assert [one for one in written if "begun" not in one] == [first["round"], second["round"]]


def test_a_signal_between_two_rounds_ends_it(loop: Any) -> None:
    rounds = loop(120)
    rounds.run(1)
    rounds.stopped.set()
    rounds.run()
    assert loop.said[-1] == "stopped between two rounds"
    assert len(read_rounds(loop.folder)) == 2


def test_a_round_updates_the_run_that_is_in_service_by_now(
    served: Path, served_once: Path, tmp_path: Path
) -> None:
    from holdfast.plugins.service.promotion import PROMOTION, record_start
    from holdfast.plugins.store.records import Event
    from holdfast.plugins.store.store import open_store
    from holdfast.runs.threshold import served_name

    where, later = str(tmp_path / "service.db"), served_once / "run"
    store = open_store(where)
    asking = UpdateOptions(served, where)
    assert served_run(asking) == served
    record_start(store, served_name(served), {}, served)
    assert served_run(asking) == served
    body = {"from": served_name(served), "to": "run@1", "run": str(later)}
    store.append(Event(PROMOTION, 2.0, body))
    store.close()
    assert served_run(asking) == later
    assert served_run(UpdateOptions(served, "feedback.csv")) == served


def test_what_a_schedule_needs(served: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs a folder"):
        round_schedule(UpdateOptions(served, "x.csv"), "1d", None, 50)
    with pytest.raises(RecipeError, match="needs feedback"):
        round_schedule(UpdateOptions(served), "1d", tmp_path, 50)
    lines = [json.dumps({"at": 1.0, "skipped": "x"}), "no json", "[]"]
    (tmp_path / ROUNDS).write_text("\n".join(lines))
    assert read_rounds(tmp_path) == [{"at": 1.0, "skipped": "x"}]
