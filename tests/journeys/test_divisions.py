"""Whole small runs divided by time, source, topic and hash: what the folder says of each."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

HEADER = ("text", "label", "day", "shop", "author")


def rows_of(marked_rows: Any, n: int) -> list[tuple[str, ...]]:
    first = date(2024, 1, 1)
    return [
        (text, label, str(first + timedelta(days=(at * 37) % 97)), f"shop {at % 8}", f"a{at % 20}")
        for at, (text, label) in enumerate(marked_rows(n))
    ]


def sides(run: Path) -> list[str]:
    return pq.read_table(run / "splits.parquet")["split"].to_pylist()


def division(run: Path) -> str:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return next(e["because"] for e in events if e.get("what") == "split")


@pytest.mark.slow
def test_runs_by_time_source_and_topic(
    holdfast: Any, sets: list[str], marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    rows = rows_of(marked_rows, 160)
    source = write_csv(tmp_path / "a.csv", rows, HEADER)
    columns = ("--text", "text", "--label", "label")

    def run(name: str, *settings: str) -> tuple[list[str], str]:
        chosen = [part for setting in settings for part in ("--set", setting)]
        done = holdfast("train", source, *columns, "--out", name, "--json", *sets, *chosen)
        assert done.code == 0, done.err
        result = json.loads(done.out)
        found = sides(tmp_path / name)
        assert result["test"]["n"] == found.count("test") > 0
        return found, division(tmp_path / name)

    found, because = run("time", "data.split.by=time", "data.time=day")
    days = [row[2] for row in rows]
    oldest = min(day for day, side in zip(days, found, strict=True) if side == "test")
    assert all(side == "test" for day, side in zip(days, found, strict=True) if day >= oldest)
    assert f"test from {oldest} on" in because

    found, because = run("source", "data.split.by=source", "data.source=shop")
    test = {row[3] for row, side in zip(rows, found, strict=True) if side == "test"}
    assert test
    assert not test & {row[3] for row, side in zip(rows, found, strict=True) if side != "test"}
    assert f"{len(test)} of 8" in because

    found, because = run("topic", "data.split.by=topic", "data.split.topics=12")
    assert "12 clusters" in because
    again, _ = run("again", "data.split.by=topic", "data.split.topics=12")
    assert again == found


@pytest.mark.slow
def test_a_stable_run_keeps_its_rows_where_they_were_when_rows_come(
    holdfast: Any, sets: list[str], marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    rows = rows_of(marked_rows, 200)
    found = {}
    for name, part in (("old", rows[:140]), ("new", rows[::-1])):
        source = write_csv(tmp_path / f"{name}.csv", part, HEADER)
        done = holdfast(
            *("train", source, "--text", "text", "--label", "label", "--out", name),
            *(*sets, "--set", "data.split.stable=true"),
        )
        assert done.code == 0, done.err
        found[name] = dict(zip((row[0] for row in part), sides(tmp_path / name), strict=True))
        assert "new rows do not move existing ones" in division(tmp_path / name)
    assert all(found["new"][text] == side for text, side in found["old"].items())
    # A run's own recipe repeats it.
    again = holdfast("train", tmp_path / "old" / "recipe.yaml", "--out", "again")
    assert again.code == 0, again.err
    assert sides(tmp_path / "again") == sides(tmp_path / "old")


@pytest.mark.slow
def test_named_groups_are_held_out_and_what_cannot_be_is_told_before_a_run(
    holdfast: Any, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    rows = rows_of(marked_rows, 120)
    source = write_csv(
        tmp_path / "a.csv", [*rows[:-1], (*rows[-1][:2], "soon", *rows[-1][3:])], HEADER
    )

    def dry(*settings: str) -> Any:
        chosen = [part for setting in settings for part in ("--set", setting)]
        columns = ("--text", "text", "--label", "label")
        return holdfast("train", source, *columns, "--dry-run", "--verbose", *chosen)

    held = dry("data.split.by=group", "data.group=author", 'data.split.held=["a3","a4"]')
    assert held.code == 0, held.err
    assert "2 of 20: 'a3', 'a4'" in " ".join((held.out + held.err).split())
    for settings, words in (
        (("data.split.by=time",), "name the column with data.time"),
        (("data.split.by=time", "data.time=day"), "in 1 of 120 rows"),
        (("data.split.by=time", "data.time=dya"), "day"),
        (("data.split.by=source", "data.source=shop", "data.split.held=shop 9"), "shop 9"),
        (("data.split.by=topic", "data.split.topics=100"), "120 rows are too few"),
        (("data.split.stable=true", "data.split.by=topic"), "leave by at rows"),
        (("data.split.held=a3",), "set by to group or source"),
    ):
        refused = dry(*settings)
        assert refused.code == 2, settings
        assert words in " ".join(refused.err.split()), (settings, refused.err)
    assert not list(tmp_path.glob("runs"))


def test_whole_sources_are_held_out_whatever_their_column_is_called(
    holdfast: Any, sets: list[str], marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    rows = [row[:4] for row in rows_of(marked_rows, 160)]
    header = ("text", "label", "day", "source")
    data = write_csv(tmp_path / "a.csv", rows, header)
    done = holdfast(
        *("train", data, "--text", "text", "--label", "label", "--out", "run", *sets),
        *("--set", "data.split.by=source", "--set", "data.source=source", "--dry-run"),
        *("--set", "data.temperature=2", "--verbose"),
    )
    assert done.code == 0, done.err
    assert "test 20" in done.out  # one of the eight
    assert "weights of sources" in done.out + done.err
