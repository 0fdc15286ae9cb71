"""Reading a run folder: what is needed, what may be absent, what is refused and how."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import polars
import pytest

from holdfast.core.errors import RunError
from holdfast.report import card, page
from holdfast.report.page import write_report
from holdfast.report.run_files import read_run
from holdfast.report.view import headline


@pytest.mark.parametrize("name", ["result.json", "events.jsonl"])
def test_a_missing_needed_file_is_named(runs: ModuleType, tmp_path: Path, name: str) -> None:
    run = runs.make_run(tmp_path / "run")
    (run / name).unlink()
    with pytest.raises(RunError, match=f"{name}: is missing"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", b"{", "is not JSON"),
        ("result.json", b"[]", "must hold a JSON object"),
        ("result.json", b'{"schema": 2}', "schema"),
        ("result.json", b"\xff\xfe", "cannot be read"),
        ("events.jsonl", b'{"event": "note"}\n{"ev', "line 2"),
        ("events.jsonl", b"3\n", "must hold a JSON object"),
        ("recipe.yaml", b"a: [", "is broken"),
        ("recipe.yaml", b"- a\n", "is broken"),
        ("splits.parquet", b"nonsense", "is broken"),
        ("predictions.parquet", b"", "is broken"),
    ],
)
def test_a_broken_file_is_refused(
    runs: ModuleType, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    run = runs.make_run(tmp_path / "run")
    (run / name).write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        read_run(run)
    assert caught.value.exit_code == 2
    assert name in str(caught.value)


def test_a_parquet_without_a_needed_column_is_refused(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    polars.DataFrame({"row": [1]}).write_parquet(run / "predictions.parquet")
    with pytest.raises(RunError, match="'label'"):
        read_run(run)


def test_absent_files_are_named_not_invented(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    for name in ("recipe.yaml", "splits.parquet", "predictions.parquet"):
        (run / name).unlink()
    files = read_run(run)
    assert files.absent == ("recipe.yaml", "splits.parquet", "predictions.parquet")
    assert files.noted == ()
    assert "splits.parquet" in write_report(run).read_text()


def test_notes_of_the_split_file_are_counted_by_part(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    frame = polars.read_parquet(run / "splits.parquet").filter(polars.col("note") != "")
    files = read_run(run)
    for group in files.noted:
        rows = frame.filter(
            (polars.col("split") == group.split) & (polars.col("note") == group.note)
        )["row"]
        assert (group.count, group.first) == (len(rows), rows.min())
    assert sum(group.count for group in files.noted) == len(frame)


def test_notes_beyond_the_limit_are_counted(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    notes = [f"reason {i}" for i in range(100)] + [None, ""]
    polars.DataFrame({"row": range(102), "split": "dropped", "note": notes}).write_parquet(
        run / "splits.parquet"
    )
    files = read_run(run)
    assert len(files.noted) + files.noted_left_out == 100


def test_notes_that_differ_in_the_row_they_name_are_one(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    moved = "moved, to stay with the 1 other row of its group (first: row {})"
    notes = [*(moved.format(n) for n in range(5)), "copy of row 3", "copy of row 12"]
    polars.DataFrame({"row": range(7), "split": "train", "note": notes}).write_parquet(
        run / "splits.parquet"
    )
    found = {one.note: one.count for one in read_run(run).noted}
    assert found == {
        "moved, to stay with the 1 other row of its group": 5,
        "copy of another row": 2,
    }


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place of a JSON document, of lists the first element only, estimates as a whole."""
    if path:
        yield path
    if isinstance(value, dict) and "value" in value:
        return
    listed = enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in value.items() if isinstance(value, dict) else listed:
        yield from paths(item, (*path, key))


@pytest.mark.slow
def test_any_one_missing_field_is_tolerated(runs: ModuleType, tmp_path: Path) -> None:
    """Each place is set to null in turn; only a torn confusion matrix may be refused. The views
    are built, not the page, to keep this quick."""
    files = read_run(runs.make_run(tmp_path / "run", classes=2, n_test=6, looks=1))
    refused = []
    for path in paths(dict(files.result)):
        result = copy.deepcopy(dict(files.result))
        place: Any = result
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = None
        changed = dataclasses.replace(files, result=result)
        try:
            page.sections(changed)
            headline.headline(changed)
            card.metadata(changed)
        except RunError:
            refused.append(path)
    assert all(path[:3] == ("test", "confusion", "counts") for path in refused)
