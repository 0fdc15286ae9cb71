"""A few hundred broken inputs of fixed seeds, each read as the command reads it, in a watched
process: none is a defect, none takes long or much memory, nothing is written beside.
``benchmarks/fuzz.py`` does ten thousand and says how to run one of them again."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
# The doors in turn; those that a worker does in a few milliseconds the most.
COUNTS = {
    "recipes": 60,
    "logs": 45,
    "rows": 8,
    "models": 4,
    "pictures": 2,
    "arguments": 6,
    "reports": 3,
    "evaluate": 2,
    "predict": 2,
}


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("fuzz")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def fuzzer(fuzz: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made = fuzz.Fuzzer(tmp_path_factory.mktemp("fuzz"), seed=1)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def a_worker_serves_the_tests_that_follow(
    fuzzer: Any, request: pytest.FixtureRequest
) -> Iterator[None]:
    """One that is begun anew within a test ends with the fixture, as the first does."""
    yield
    if fuzzer._worker is not None:
        request.config.pluginmanager.get_plugin("processes").SHARED.add(fuzzer._worker.process.pid)


@pytest.mark.slow
def test_no_broken_input_is_a_defect(fuzz: ModuleType, fuzzer: Any) -> None:
    failed = {}
    for door, number in fuzz.all_cases(COUNTS):
        outcome = fuzzer.one(door, number)
        if outcome.fault:
            failed[f"{door}:1:{number}"] = f"{outcome.fault}: {outcome.said[-200:]}"
    assert not failed
    fuzzer.close()
    assert not fuzzer.left


def test_a_case_is_the_same_each_time(fuzz: ModuleType, fuzzer: Any, tmp_path: Path) -> None:
    for door in COUNTS:
        made = []
        for name in ("a", "b"):
            folder = tmp_path / door / name
            case = fuzz.cases.make_case(door, 5, 3, fuzzer.place / "seeds", folder)
            files = {
                str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
                for path in fuzz.seeds.files_in(folder)
                if path.suffix != ".xlsx" and not path.is_symlink()
            }
            made.append((case, files))
        assert made[0] == made[1]


@pytest.mark.parametrize(
    ("answer", "said", "fault"),
    [
        ({"code": 0}, "", ""),
        ({"code": 2}, "holdfast: no", ""),
        ({"code": 1}, "x", "exit 1"),
        ({"code": 3}, "x", "exit 3"),
        ({"code": 2}, " ", "refuses without a word"),
        ({"code": 2}, "Traceback (most recent call last)", "a traceback"),
        ({"code": 2}, "thread '<unnamed>' panicked at x", "a traceback"),
        ({"code": 0}, "\x1b[2J", "an escape sequence"),
        ({"code": 0}, "x.py:3: RuntimeWarning: overflow", "a library's warning"),
        ({"code": 0, "seconds": 11.0}, "", "takes 11 s"),
        ({"code": 0, "mb": 1200.0}, "", "takes 1200 MB"),
        ({"code": -9, "broke": "hangs"}, "", "hangs"),
    ],
)
def test_what_counts_as_a_failure(
    fuzz: ModuleType, answer: dict[str, Any], said: str, fault: str
) -> None:
    whole = {"code": 0, "seconds": 0.1, "mb": 1.0, "broke": ""} | answer
    assert fuzz._fault(whole, said) == fault


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "argument", "fault"),
    [
        ("import time; time.sleep(60)", "", "hangs"),
        ("x = bytearray(3 * 10**9)", "", "takes memory"),
        ("import os; os._exit(1)", "", "killed itself"),
        ("open('../canary/new', 'w')", "", "writes outside"),
        ("open('../canary/a.txt', 'a').write('x')", "", "writes outside"),
        ("open('new', 'w')", "", "writes"),
        ("raise KeyError(3)", "", "KeyError"),
    ],
)
def test_the_watch_sees_what_it_is_for(
    fuzz: ModuleType,
    fuzzer: Any,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    argument: str,
    fault: str,
) -> None:
    """Planted faults, done by the worker in the place of a door."""
    if fault == "hangs":
        # The others end by themselves, on a busy machine too.
        monkeypatch.setattr(fuzz, "MOST_S", 0.5)
    monkeypatch.setattr(fuzz, "MOST_MB", 600.0)

    def planted(random: Random, root: Path, folder: Path) -> Any:
        return fuzz.cases.Case("python", (way,))

    monkeypatch.setitem(fuzz.cases.DOORS, "planted", planted)
    outcome = fuzzer.one("planted", 0)
    assert outcome.fault.startswith(fault)
    for name in ("new", "a.txt"):
        (fuzzer.place / "canary" / name).unlink(missing_ok=True)


@pytest.mark.parametrize("value", [{"a": [1, {"b": None}], "é": "x"}, [], {}, [[[]]], 3, "x"])
def test_values_are_written_as_json_writes_them(fuzz: ModuleType, value: Any) -> None:
    assert json.loads(fuzz.cases.mutate.dumped(value)) == value


def test_values_deeper_than_json_writes_are_written(fuzz: ModuleType) -> None:
    mutate = fuzz.cases.mutate
    assert mutate.dumped(mutate.deep(5000, Random(0))).count(b"1") == 1
