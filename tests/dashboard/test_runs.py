"""Runs of a folder: found, told apart, read once, and never written to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.plugins.dashboard import runs as room
from holdfast.plugins.dashboard.runs import Runs


def states(found: Runs) -> dict[str, str]:
    found._scanned_at = -1e9
    return {name: one.state for name, one in found.list_runs().summaries.items()}


def test_every_run_is_told_by_what_became_of_it(shelf: Path) -> None:
    assert states(Runs(shelf)) == {
        "fine": "finished",
        "project/worse": "finished",
        "<img src=x onerror=alert(1)>": "finished",
        "stopped": "interrupted",
        "going": "running",
        "damaged": "damaged",
    }


def test_links_are_counted_and_not_followed(shelf: Path) -> None:
    found = Runs(shelf)
    assert found.list_runs().skipped_links == 1
    assert found.path("out") is None
    assert found.path("../" + shelf.name + "/fine") is None
    assert found.path("/etc") is None


def test_a_folder_that_is_a_run_itself_is_listed_by_its_name(shelf: Path) -> None:
    found = Runs(shelf / "fine")
    assert states(found) == {"fine": "finished"}
    assert found.path("fine") == (shelf / "fine").resolve()


def test_a_number_that_another_process_got_since_is_no_sign_of_life(
    unfinished: Callable[..., Path], tmp_path: Path
) -> None:
    # This process began long after it.
    unfinished(tmp_path / "old", pid=os.getppid(), since="2001-01-01T00:00:00+00:00")
    unfinished(tmp_path / "dead", pid=2**22 - 1)
    unfinished(tmp_path / "own", pid=os.getpid())
    assert states(Runs(tmp_path)) == {"old": "interrupted", "dead": "interrupted", "own": "running"}


def test_asking_who_is_at_a_run_keeps_nobody_from_it(
    unfinished: Callable[..., Path], tmp_path: Path
) -> None:
    from holdfast.core.lock import locked

    run = unfinished(tmp_path / "own")
    with locked(run):
        assert states(Runs(tmp_path)) == {"own": "running"}
    assert states(Runs(tmp_path)) == {"own": "interrupted"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\x80\x81",
        b"[" * 3_000,
        b'{"schema": 1, "test": 7}',
        b'{"schema": 1, "task": 7, "verdict": {"label": 3}}',
        b'{"data": {"findings": [1]}}',
    ],
)
def test_a_damaged_result_is_named_and_takes_no_other_run_away(
    runs: ModuleType, tmp_path: Path, content: bytes
) -> None:
    runs.make_run(tmp_path / "good", classes=2)
    (runs.make_run(tmp_path / "bad", classes=2) / "result.json").write_bytes(content)
    found = Runs(tmp_path)
    assert states(found) == {"good": "finished", "bad": "damaged"}
    assert "result.json" in found.list_runs().summaries["bad"].problem


def test_what_a_link_points_to_is_no_result(runs: ModuleType, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    run = runs.make_run(tmp_path / "runs" / "linked", classes=2)
    (run / "result.json").rename(secret)
    (run / "result.json").symlink_to(secret)
    found = Runs(tmp_path / "runs")
    assert states(found) == {"linked": "damaged"}
    assert found.list_runs().summaries["linked"].task == ""


def test_a_result_is_read_once_and_again_when_it_changed(
    runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = room.read_summary

    def counted(run: Path, name: str, *rest: Any) -> Any:
        read.append(name)
        return real(run, name, *rest)

    monkeypatch.setattr(room, "read_summary", counted)
    for name in "ab":
        runs.make_run(tmp_path / name, classes=2)
    found = Runs(tmp_path)
    for _ in range(3):
        assert len(states(found)) == 2
    assert sorted(read) == ["a", "b"]
    path = tmp_path / "a" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"task": "image-classification"}))
    found._scanned_at = -1e9
    assert found.list_runs().summaries["a"].task == "image-classification"
    assert sorted(read) == ["a", "a", "b"]


def test_whatever_changes_is_noticed_and_nothing_else(
    unfinished: Callable[..., Path], runs: ModuleType, tmp_path: Path
) -> None:
    run = unfinished(tmp_path / "going", pid=1)
    runs.make_run(tmp_path / "done", classes=2)
    found = Runs(tmp_path)
    found.list_runs()
    assert not found.changed()
    with (run / "events.jsonl").open("a") as file:
        file.write("{}\n")
    assert found.changed()
    found.list_runs()
    assert not found.changed()
    (run / ".lock").unlink()
    assert found.changed()
    assert found.list_runs().summaries["going"].state == "interrupted"
    runs.make_run(tmp_path / "new", classes=2)
    assert found.changed()
    assert "new" in found.list_runs().summaries


def test_a_link_in_the_place_of_a_run_that_was_there_leads_nowhere(
    runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "runs" / "one", classes=2)
    found = Runs(tmp_path / "runs")
    assert found.path("one") is not None
    run.rename(tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    assert found.path("one") is None
    assert found.summary("one") is None


def test_a_run_that_goes_away_is_gone(runs: ModuleType, tmp_path: Path) -> None:
    import shutil

    run = runs.make_run(tmp_path / "short", classes=2)
    found = Runs(tmp_path)
    assert states(found) == {"short": "finished"}
    shutil.rmtree(run)
    assert found.path("short") is None
    assert found.summary("short") is None
    assert states(found) == {}


def test_a_folder_that_may_not_be_opened_is_counted(as_nobody: Callable[..., Any]) -> None:
    def prepare(folder: Path) -> None:
        (folder / "closed").mkdir()
        (folder / "open").mkdir()
        (folder / "open" / "recipe.yaml").write_text("task: text-classification\n")
        (folder / "closed").chmod(0)

    def act(folder: Path) -> Any:
        listed = Runs(folder).list_runs()
        return [listed.unreadable, sorted(listed.summaries)]

    assert as_nobody(prepare, act) == [1, ["open"]]


def test_a_large_folder_is_looked_through_beside_the_page(
    runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SLOW_SCAN_S", -1.0)
    runs.make_run(tmp_path / "a", classes=2)
    found = Runs(tmp_path)
    assert len(found.list_runs().summaries) == 1
    runs.make_run(tmp_path / "b", classes=2)
    found._scanned_at = -1e9
    with found._lock:
        # Whoever looks through it waits; the page does not.
        assert len(found.list_runs().summaries) == 1
    with found._scanning:
        pass
    assert found.version == 1
    assert len(found.list_runs().summaries) == 2


def test_the_first_page_does_not_wait_for_the_last_run(runs: ModuleType, tmp_path: Path) -> None:
    for name in "abc":
        runs.make_run(tmp_path / name, classes=2)
    found = Runs(tmp_path)
    first = found.list_runs(within_s=-1.0)
    assert (len(first.summaries), first.unread) == (0, 3)
    assert found.list_runs().unread == 0
