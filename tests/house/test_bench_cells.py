"""The store of benchmark cells resumes, and repeats nothing."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, root / "benchmarks" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cells(root: Path) -> ModuleType:
    return load(root, "cells")


class Runner:
    """Squares a number, and remembers what it was asked."""

    def __init__(self, broken: frozenset[int] = frozenset()) -> None:
        self.asked: list[int] = []
        self.broken = broken

    def __call__(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(cell["x"])
        if cell["x"] in self.broken:
            raise ValueError("cannot")
        return {"square": cell["x"] ** 2}


def test_a_second_run_repeats_nothing(cells: ModuleType, tmp_path: Path) -> None:
    first, second = Runner(), Runner()
    grid = cells.grid(x=[1, 2, 3])
    assert cells.run_cells("t", grid, first, tmp_path / "t.jsonl") == [
        {"square": 1},
        {"square": 4},
        {"square": 9},
    ]
    assert cells.run_cells("t", grid, second, tmp_path / "t.jsonl")[2] == {"square": 9}
    assert (first.asked, second.asked) == ([1, 2, 3], [])


def test_a_killed_line_is_run_again_and_spoils_no_other(cells: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    cells.run_cells("t", cells.grid(x=[1, 2]), Runner(), out)
    out.write_bytes(out.read_bytes()[:-20])
    runner = Runner()
    assert cells.run_cells("t", cells.grid(x=[1, 2]), runner, out) == [{"square": 1}, {"square": 4}]
    assert runner.asked == [2]
    assert cells.stored(out).keys() == {cells.key({"x": 1}), cells.key({"x": 2})}


def test_cells_past_the_time_limit_are_not_run(
    cells: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.jsonl"
    cells.run_cells("t", cells.grid(x=[1]), Runner(), out)
    assert cells.run_cells("t", cells.grid(x=[1, 2]), Runner(), out, minutes=0)[1] is None
    printed = capsys.readouterr().out
    assert "1 of 2 cells" in printed
    assert "| 2 |" not in printed


def test_a_cell_that_fails_is_told_and_tried_again(
    cells: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.jsonl"
    results = cells.run_cells("t", cells.grid(x=[1, 2]), Runner(frozenset({1})), out)
    assert results == [None, {"square": 4}]
    assert "failed, not recorded" in capsys.readouterr().out
    assert cells.run_cells("t", cells.grid(x=[1, 2]), Runner(), out)[0] == {"square": 1}


def test_cells_run_in_several_processes_are_kept_like_others(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gives itself: a spawned process finds the functions by the names of their modules."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    cells = importlib.import_module("cells")
    grid = cells.grid(x=[1, 2, 3])
    assert cells.run_cells("t", grid, dict, tmp_path / "t.jsonl", jobs=2) == grid
    assert cells.stored(tmp_path / "t.jsonl").keys() == {cells.key(cell) for cell in grid}


def test_the_order_of_a_cells_keys_does_not_matter(cells: ModuleType) -> None:
    assert cells.key({"a": 1, "b": 2}) == cells.key({"b": 2, "a": 1})


def test_the_last_axis_changes_fastest(cells: ModuleType) -> None:
    systems = [cell["system"] for cell in cells.grid(seed=[0, 1], system=["ours", "theirs"])]
    assert systems == ["ours", "theirs", "ours", "theirs"]


def test_a_line_names_the_machine_and_the_time(cells: ModuleType, tmp_path: Path) -> None:
    cells.run_cells("t", [{"x": 1}], Runner(), tmp_path / "t.jsonl")
    record = json.loads((tmp_path / "t.jsonl").read_text())
    assert {"cell", "result", "when", "machine"} == set(record)
    assert {"cpu", "threads", "torch", "holdfast"} <= set(record["machine"])


def test_run_all_goes_on_after_a_failure_and_names_what_is_missing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    (tmp_path / "good.py").write_text("")
    assert load(root, "run_all").main(["bad.py", "good.py", "absent.py"], tmp_path) == 1
    printed = capsys.readouterr().out
    assert "failed with exit code 3" in printed
    assert "done" in printed
    assert "not run: no such script" in printed
