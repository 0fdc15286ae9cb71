"""What an open page is told."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType

import pytest

from holdfast.plugins.dashboard.files import START_POSITION, read_new_lines
from holdfast.plugins.dashboard.news import list_news, run_news
from holdfast.plugins.dashboard.runs import Runs


def heard(
    made: Callable[..., AsyncIterator[str]], acts: list[Callable[[], object]], most: int = 40
) -> list[tuple[str, str, str]]:
    """Kind, words and place of each message while ``acts`` happen, one at each pause."""
    left = list(acts)

    async def pause(_: float) -> None:
        if not left:
            raise asyncio.CancelledError
        left.pop(0)()

    async def listen() -> list[str]:
        told = []
        try:
            async for one in made(sleep=pause):
                told.append(one)
                assert len(told) < most
        except asyncio.CancelledError:
            pass
        return told

    found = []
    for one in asyncio.run(listen()):
        named = dict(line.split(": ", 1) for line in one.strip().split("\n") if ": " in line)
        if "event" in named:
            found.append((named["event"], named.get("data", ""), named.get("id", "")))
    return found


def look(run: Path, step: int) -> Callable[[], object]:
    def write() -> None:
        with (run / "events.jsonl").open("a") as file:
            file.write(json.dumps({"event": "snapshot", "step": step, "valid_loss": 0.5}) + "\n")

    return write


def nothing() -> None:
    return None


def test_each_new_look_is_told_once_and_a_return_goes_on_behind_it(
    unfinished: Callable[..., Path], tmp_path: Path
) -> None:
    run = unfinished(tmp_path / "going", pid=1, looks=3)
    place = read_new_lines(run / "events.jsonl").position
    runs = Runs(tmp_path)
    told = heard(
        lambda **how: run_news(runs, "going", place, **how), [nothing, look(run, 100), nothing]
    )
    told = [one for one in told if one[0] == "look"]
    assert [words for _, words, _ in told] == ["Step 100: validation loss 0.5"]
    look(run, 125)()
    again = heard(lambda **how: run_news(runs, "going", told[0][2], **how), [nothing, nothing])
    assert [words for kind, words, _ in again if kind == "look"] == [
        "Step 125: validation loss 0.5"
    ]


def test_what_was_missed_is_told_at_once(unfinished: Callable[..., Path], tmp_path: Path) -> None:
    run = unfinished(tmp_path / "going", pid=1, looks=3)
    told = heard(lambda **how: run_news(Runs(tmp_path), "going", START_POSITION, **how), [nothing])
    assert told
    assert told[-1][2] == read_new_lines(run / "events.jsonl").position


def test_a_run_that_ends_goes_or_begins_anew_is_told(
    unfinished: Callable[..., Path],
    runs: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.plugins.dashboard.news.STATE_S", 0.0)
    run = unfinished(tmp_path / "going", pid=1, looks=3)
    place = read_new_lines(run / "events.jsonl").position

    def anew() -> None:
        (run / "events.jsonl").write_text("")
        look(run, 0)()

    found = Runs(tmp_path)
    told = heard(lambda **how: run_news(found, "going", place, **how), [nothing, anew, nothing])
    assert ("again", "") in [one[:2] for one in told]

    def end() -> None:
        runs.make_run(tmp_path / "other", classes=2)
        (tmp_path / "other" / "result.json").rename(run / "result.json")

    told = heard(
        lambda **how: run_news(found, "going", START_POSITION, **how), [nothing, end, nothing]
    )
    assert told[-1][:2] == ("state", "finished")
    (run / "result.json").unlink()
    told = heard(
        lambda **how: run_news(found, "going", START_POSITION, **how),
        [nothing, lambda: shutil.rmtree(run), nothing, nothing],
    )
    assert told[-1][0] == "gone"
    assert heard(lambda **how: run_news(found, "never", START_POSITION, **how), [])[0][0] == "gone"


def test_the_list_is_told_of_new_runs_and_of_nothing(
    unfinished: Callable[..., Path], runs: ModuleType, tmp_path: Path
) -> None:
    run = unfinished(tmp_path / "going", pid=1, looks=3)
    found = Runs(tmp_path)
    found.list_runs()
    quiet = heard(lambda **how: list_news(found, **how), [nothing, nothing, nothing])
    assert quiet == []
    told = heard(
        lambda **how: list_news(found, **how),
        [
            look(run, 1),
            found.list_runs,
            lambda: runs.make_run(tmp_path / "new", classes=2),
            found.list_runs,
        ],
    )
    assert [kind for kind, _, _ in told] == ["list", "list"]
