"""Whatever a process that runs code answers, it is a result, or an error of that program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.metrics import Texts
from holdfast.plugins.sandbox import runner
from holdfast.plugins.sandbox.messages import MAX_DEPTH, MOST_BYTES, parse, result_problem
from holdfast.plugins.sandbox.metric import execution_metric, same_result
from holdfast.plugins.sandbox.runner import ProgramOutcome, run_programs


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"garbage",
        b"\xff\xfe",
        b"[1]",
        b"null",
        b"1",
        b'"result"',
        b"{}",
        b'{"number": 1}',
        b'{"result": 1, "error": "x"}',
        b'{"result": 1}{"result": 2}',
        b'{"result": ' + b"[" * 100_000,
        b'{"result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"result": 1' + b"0" * 400 + b"}",
        b'{"result": 1' + b"0" * 9_000 + b"}",
        b'{"result": -1' + b"0" * 400 + b"}",
        b'{"result": "' + b"a" * MOST_BYTES + b'"}',
        b'{"error": ' + b"[" * 99 + b"]" * 99 + b"}",
        b'{"error": null}',
        json.dumps({"result": nested(1, MAX_DEPTH + 1)}).encode(),
        json.dumps({"result": {"a": nested({"b": 1}, 40)}}).encode(),
        b'{"result": 1',
        b"\0",
    ],
)
def test_what_is_no_answer_is_an_error(told: bytes) -> None:
    held = parse(told)
    assert "result" not in held
    assert isinstance(held["error"], str)
    assert held["error"]
    assert len(held["error"]) <= 300


@pytest.mark.parametrize(
    "result",
    [
        None,
        True,
        3,
        -2.5,
        "x",
        [],
        [[1, "a"], [None, 2.0]],
        {"a": [1]},
        10**308,
        float("inf"),
        nested(1, MAX_DEPTH - 1),
    ],
)
def test_an_answer_is_what_it_was(result: Any) -> None:
    assert parse(json.dumps({"result": result}).encode())["result"] == result
    assert result_problem(result) is None


def test_no_bytes_make_it_raise() -> None:
    """Answers with some of their bytes changed, dropped or doubled."""
    rng = np.random.default_rng(0)
    seeds = [
        json.dumps(one).encode()
        for one in (
            {"result": [[1, "a"], [2.5, None]], "number": 3},
            {"error": "ValueError: x"},
            {"result": {"a": [1e308, -1]}},
            {"result": nested(10**300, 20)},
        )
    ]
    for _ in range(2000):
        told = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(told)))
            told[at : at + int(rng.integers(3))] = rng.bytes(int(rng.integers(3)))
        held = parse(bytes(told))
        assert ("result" in held) != ("error" in held)
        if "result" in held:
            assert same_result(held["result"], [1], ordered=False) in (True, False)


STRANGE = [
    10**400,
    -(10**400),
    [10**400],
    [[10**400, 1]],
    nested(1, 400),
    nested("x", 100_000),
    float("inf"),
    float("nan"),
    [float("nan"), 1],
    {"a": 1},
    [{"a": [1]}],
    [[1], 1, None, "x"],
    [True, "True", 1],
    "\ud800",
    b"x",
    object(),
    [object(), 1],
]


@pytest.mark.parametrize("ordered", [True, False])
def test_what_cannot_be_compared_is_not_equal(ordered: bool) -> None:
    """And never ends a training."""
    for first in STRANGE:
        for second in (*STRANGE, 1, [1], None, [[1, 2], [3, 4]]):
            assert isinstance(same_result(first, second, ordered), bool)
    assert not same_result(10**400, 1.5, ordered)
    assert not same_result(nested(1, 100_000), nested(2, 100_000), ordered)


CHILD = """
import json, sys, time
def say(text):
    sys.stdout.buffer.write(text if isinstance(text, bytes) else text.encode())
    sys.stdout.flush()
sys.stdin.readline()
say('{"result": {"network": false}, "number": 0}\\n')
for line in sys.stdin:
    job = json.loads(line)
    number = job["number"]
    good = json.dumps({"result": number, "number": number}) + "\\n"
    exec(job["code"])
"""
ANSWERS = {
    "garbage": "say('garbage\\n')",
    "no UTF-8": "say(bytes([255, 10]))",
    "dies": "sys.exit()",
    "deep": "say('{\"result\": ' + '[' * 100_000 + ']' * 100_000 + '}\\n')",
    "another shape": "say('[1]\\n')",
    "no number": "say('{\"result\": 1}\\n')",
    "another's number": 'say(\'{"result": 1, "number": 99}\\n\')',
    "a number of digits": "say('{\"result\": 1, \"number\": ' + '9' * 5000 + '}\\n')",
    "too much": "say('x' * 5_000_000)",
    "half a line": "say('{'); sys.exit()",
    "a true number": 'say(\'{"result": 1, "number": null}\\n\')',
}


def test_no_child_raises_in_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bad answer ends that process and costs that program; the next one is asked anew."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    monkeypatch.setattr(runner, "CHILD", script)
    programs = [part for bad in ANSWERS.values() for part in (bad, "say(good)")]
    found = run_programs(
        [(one, "[]") for one in programs], "sql", seconds=5, memory_mb=64, unsafe=True
    )
    assert found[::2] == [ProgramOutcome(error="the process that runs code ended")] * len(ANSWERS)
    assert [one.result for one in found[1::2]] == [1] * len(ANSWERS)


def test_results_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of many large answers must not fill the memory of the training."""
    monkeypatch.setattr(runner, "MAX_TOTAL_BYTES", 64 * 3 * 5 + 20)
    found = run_programs(
        [("SELECT 'abcde'", '[{"a": 1}]')] * 7, "sql", seconds=5, memory_mb=64, unsafe=True
    )
    assert [one.error is None for one in found] == [True] * 4 + [False] * 3
    assert "together" in str(found[-1].error)


def test_a_second_and_a_late_answer_are_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    monkeypatch.setattr(runner, "CHILD", script)
    twice = "say(good + good.replace('result', 'error'))"
    found = run_programs(
        [(one, "[]") for one in (twice, "say(good)", twice, "say(good)")],
        "sql",
        seconds=5,
        memory_mb=64,
        unsafe=True,
    )
    assert [one.result for one in found] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_result_that_cannot_be_compared_counts_as_wrong() -> None:
    """On the whole way: a metric over such programs, as references and as written texts."""
    pytest.importorskip("pandas")
    table = json.dumps([{"a": 1}, {"a": 2}])
    deep = "[" * 90 + "1" + "]" * 90
    metric = execution_metric("pandas", seconds=2.0, memory_mb=256, unsafe=True)
    references = ["df.a.sum()", "df.a.sum()", "10 ** 400", deep, "df.a.sum()", "3.0"]
    written = ["10 ** 400", deep, "10 ** 400", deep, "[10 ** 200, 'x', None, [1]]", "df.a.sum()"]
    made = Texts(references, written, [""] * 6, [table] * 6)
    assert metric.of_rows is not None
    np.testing.assert_array_equal(metric.of_rows(made), [0, 0, np.nan, np.nan, 0, 1])
