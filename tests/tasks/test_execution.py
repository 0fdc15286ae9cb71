"""Code that a model wrote: it runs apart, it cannot break out, and equal results count."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import MachineError
from holdfast.metrics import Texts
from holdfast.metrics.text_scores import estimate
from holdfast.plugins.sandbox import runner
from holdfast.plugins.sandbox.fork import ThreadedForkError, fork
from holdfast.plugins.sandbox.messages import tables_of
from holdfast.plugins.sandbox.metric import execution_metric, is_ordered, same_result
from holdfast.plugins.sandbox.runner import (
    ProgramOutcome,
    isolation,
    missing_fence_parts,
    run_programs,
)
from holdfast.stats.intervals import wilson

ROWS = [
    {"player": "ann", "points": 3},
    {"player": "bob", "points": 5},
    {"player": "cid", "points": 3},
]
TABLE = json.dumps(ROWS)
pytest.importorskip("pandas")


def run(
    language: str, *programs: str, seconds: float = 2.0, memory_mb: int = 256
) -> list[ProgramOutcome]:
    return run_programs(
        [(one, TABLE) for one in programs],
        language,
        seconds=seconds,
        memory_mb=memory_mb,
        unsafe=True,
    )


def test_sql_gives_what_sqlite_gives() -> None:
    found = run(
        "sql",
        "SELECT player FROM t WHERE points = 3",
        "SELECT COUNT(*), MAX(points) FROM t",
        "SELECT player FROM t ORDER BY points DESC, player LIMIT 1",
    )
    assert [one.result for one in found] == [[["ann"], ["cid"]], [[3, 5]], [["bob"]]]


@pytest.mark.slow
def test_pandas_gives_what_pandas_gives() -> None:
    import pandas as pd

    df = pd.DataFrame(ROWS)
    found = run(
        "pandas",
        "df.loc[(df['player'] == 'ann'), 'points'].tolist()",
        "df['points'].max()",
        "import pandas as pd\ntotal = df.groupby('points').agg({'player': 'count'})\ntotal",
        "df.query('points > 3')",
        "df[df.points > 3].sort_values('player')",
        "x = len(df)",
    )
    assert [one.error for one in found] == [None] * 6
    assert found[0].result == df.loc[df["player"] == "ann", "points"].tolist()
    assert found[1].result == df["points"].max()
    assert found[2].result == [[2], [1]]
    assert found[3].result == found[4].result == df[df["points"] > 3].to_numpy().tolist()
    assert found[5].result == 3


COUNT = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c"
SQL_ATTACKS = {
    "writes a table": "CREATE TABLE x (a)",
    "drops the table": "DROP TABLE t",
    "changes rows": "DELETE FROM t",
    "opens a file": "ATTACH DATABASE 'stolen.db' AS s",
    "writes a file": "VACUUM INTO 'stolen.db'",
    "loads code": "SELECT load_extension('libc.so.6')",
    "asks the engine": "PRAGMA writable_schema=1",
    "two statements": "SELECT 1; DROP TABLE t",
    "a value of a gigabyte": "SELECT randomblob(1000000000)",
    "no end": f"{COUNT}) SELECT SUM(x) FROM c",
    "too many rows": f"{COUNT} LIMIT 99999) SELECT x FROM c",
}


def test_no_query_breaks_out_and_the_next_one_runs(tmp_path: Path) -> None:
    attacks = list(SQL_ATTACKS.values())
    *found, after = run("sql", *attacks, "SELECT COUNT(*) FROM t", seconds=0.5)
    stopped = dict(zip(SQL_ATTACKS, found, strict=True))
    assert {name: one.result for name, one in stopped.items()} == dict.fromkeys(SQL_ATTACKS)
    assert all(one.error for one in stopped.values())
    assert after.result == [[3]]


PANDAS_ATTACKS = {
    "writes a file": "open('stolen', 'w').write('x')",
    "writes by a method": "df.to_csv('stolen')",
    "writes by a method's name": "df.agg('to_csv', 0, 'stolen')",
    "writes by a name made up": "df.agg('to_' + 'csv', 0, 'stolen')",
    "writes by another name": "f = df.agg\nf('to_csv', 0, 'stolen')",
    "writes by NumPy": "df.values.tofile('stolen')",
    "reads a file": "pd.read_csv('/etc/passwd')",
    "starts a process": "import os\nos.system('touch stolen')",
    "imports by name": "__import__('os').system('touch stolen')",
    "climbs the classes": "().__class__.__base__.__subclasses__()",
    "evaluates": "eval('1')",
    "evaluates in pandas": "pd.eval('1')",
    "queries variables": "df.query('@pd.read_csv(0)')",
    "defines": "def f():\n    return f()\nf()",
    "opens a socket": "import socket\nsocket.create_connection(('127.0.0.1', 1))",
    "a list without end": "[x for x in range(10**15)]",
    "a text of 100 GB": "'a' * 10**11",
    "a loop without end": "sum(1 for x in range(10**15))",
    "a large power": "9 ** 9 ** 9 ** 9",
    "a fork bomb": "import os\nwhile True:\n    os.fork()",
    "deep": "(" * 900 + "1" + ")" * 900,
    "sets an attribute": "df.columns = 'a'",
    "leaves": "raise SystemExit",
    "nothing": "",
}


@pytest.mark.slow
def test_no_program_breaks_out_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attacks = list(PANDAS_ATTACKS.values())
    *found, after = run("pandas", *attacks, "len(df)", seconds=0.7)
    stopped = dict(zip(PANDAS_ATTACKS, found, strict=True))
    went = {name for name, one in stopped.items() if one.error is None}
    assert went <= {"deep"}, {name: stopped[name] for name in went}
    assert after.result == 3
    assert list(tmp_path.iterdir()) == []


def test_what_keeps_it_in_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(missing_fence_parts().values()):
        assert isolation("sql").startswith("the kernel gives it no file, no network")
    monkeypatch.setattr(
        runner, "missing_fence_parts", lambda: {"landlock": "too old", "seccomp": None}
    )
    said = isolation("sql", unsafe=True)
    assert said.startswith("the kernel does not isolate it (landlock: too old)")
    with pytest.raises(MachineError, match=r"landlock.*too old"):
        isolation("sql")


def test_its_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secrets of the user's process are not in the child's, whatever it may read."""
    from holdfast.plugins.sandbox.runner import _process

    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    with _process("sql", 1.0, 64) as process:
        environment = Path(f"/proc/{process.popen.pid}/environ")
        if environment.exists():
            assert b"hunter2" not in environment.read_bytes()
        assert os.environ["SECRET_TOKEN"] == "hunter2"


LATE = "df['points'].corr(df['points'], method='spearman')"


@pytest.mark.slow
@pytest.mark.parametrize(("language", "program"), [("sql", "SELECT 1"), ("pandas", LATE)])
def test_the_process_that_forks_has_one_thread(language: str, program: str) -> None:
    """By the kernel's count, whatever its libraries would start, late ones too."""
    from holdfast.plugins.sandbox.runner import _outcomes, _process

    with _process(language, 5.0, 512) as process:
        tasks = Path(f"/proc/{process.popen.pid}/task")
        if not tasks.exists():
            pytest.skip("this system does not list a process's threads")
        assert len(list(tasks.iterdir())) == 1
        (found,) = _outcomes(process, [(program, TABLE)], 5.0)
        assert found.error is None
        assert len(list(tasks.iterdir())) == 1


def test_a_process_with_threads_is_not_forked_and_runs_no_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(runner.ENVIRONMENT, "JE_ARROW_MALLOC_CONF", "background_thread:true")
    with pytest.raises(MachineError, match=r"pandas: a process with threads cannot be forked"):
        run("pandas", "1")
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with pytest.raises(ThreadedForkError, match="a process with threads cannot be forked"):
            fork()
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("first", "second", "ordered", "same"),
    [
        ([["a"], ["b"]], [["b"], ["a"]], False, True),
        ([["a"], ["b"]], [["b"], ["a"]], True, False),
        ([[1, 2]], [[2, 1]], False, False),
        ([[3]], [[3.0]], False, True),
        ([["3"]], [[3]], False, False),
        (True, 1, False, False),
        ([[0.1 + 0.2]], [[0.3]], False, True),
        ([], [], False, True),
        ([[None]], [[None]], False, True),
        ([[None]], [[0]], False, False),
        ([["a"], ["a"]], [["a"]], False, False),
        ([["a"], ["a"], ["b"]], [["a"], ["b"], ["b"]], False, False),
        (4, [4], False, False),
    ],
)
def test_equal_results_are_equal(first: Any, second: Any, ordered: bool, same: bool) -> None:
    assert same_result(first, second, ordered) is same
    assert same_result(second, first, ordered) is same


def test_the_order_counts_where_it_is_asked_for() -> None:
    assert is_ordered("SELECT a FROM t order  by a", "sql")
    assert not is_ordered("SELECT a FROM t", "sql")
    assert is_ordered("df.sort_values('a')", "pandas")


@pytest.mark.parametrize(
    "cell",
    [
        [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
        {"columns": ["a", "b"], "rows": [[1, "x"], [2, None]]},
        {"header": ["a", "b"], "rows": [[1, "x"], [2, None]]},
        {"a": [1, 2], "b": ["x", None]},
        {"tables": {"t": [{"a": 1, "b": "x"}, {"a": 2, "b": None}]}},
    ],
)
def test_every_form_of_a_table_is_the_same_table(cell: Any) -> None:
    assert tables_of(json.dumps(cell)) == {"t": (["a", "b"], [[1, "x"], [2, None]])}


@pytest.mark.parametrize(
    "cell", ['{"a": [1], "b": []}', "3", '{"columns": ["a"], "rows": [[1, 2]]}', "not json"]
)
def test_what_is_no_table_is_refused(cell: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        tables_of(cell)


def test_the_metric_counts_equal_results_and_leaves_out_what_has_none() -> None:
    metric = execution_metric("sql", seconds=2.0, memory_mb=128, unsafe=True)
    wanted = ["SELECT player FROM t WHERE points = 5"] * 4 + ["SELECT nothing FROM t"] * 2
    texts = [
        wanted[0],
        "SELECT player FROM t WHERE points > 4",
        "SELECT player FROM t",
        "DROP",
        "SELECT 1",
        "SELECT 1",
    ]
    made = Texts(wanted, texts, [""] * 6, [TABLE] * 5 + [None])
    assert metric.of_rows is not None
    np.testing.assert_array_equal(metric.of_rows(made), [1, 1, 0, 0, np.nan, np.nan])
    assert metric.compute(made) == 0.5
    found = estimate(metric, made)
    assert (found.low, found.high) == pytest.approx(wilson(2, 4))
    assert "2 rows left out" in str(found.note)
    grouped = estimate(metric, made, groups=["a", "a", "b", "b", "c", "c"])
    assert "groups" in str(grouped.note)


def test_without_tables_it_is_undefined_and_says_why() -> None:
    metric = execution_metric("sql", unsafe=True)
    assert metric.compute(Texts(["SELECT 1"], ["SELECT 1"])) is None
    assert "table" in str(estimate(metric, Texts(["SELECT 1"], ["SELECT 1"])).why)


def test_pandas_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pandas" else find(name)
    )
    with pytest.raises(MachineError, match=r"holdfast\[code\]"):
        execution_metric("pandas", unsafe=True)


def made_table(row: dict[str, Any], rng: np.random.Generator) -> str:
    """A table of the query's columns in which its own values stand in some rows."""
    import re

    literals = re.findall(r"'((?:[^']|'')*)'", row["sql"])
    pool = [one.replace("''", "'") for one in literals] + ["x", "7", "12"]
    rows = [[str(rng.choice(pool)) for _ in row["columns"]] for _ in range(12)]
    return json.dumps({"columns": row["columns"], "rows": rows})


@pytest.mark.slow
def test_real_pandas_and_sql_of_one_question_agree(shared_data: Path) -> None:
    """WikiSQL has both for each question: on the same table they must give the same values."""
    path = shared_data / "text2code" / "wikisql_test.jsonl.gz"
    rng = np.random.default_rng(0)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(next(file)) for _ in range(24)]
    rows = [
        r
        for r in rows
        if not any(word in r["sql"] for word in ("MAX", "MIN", "SUM", "AVG"))
        and not any(mark in r["sql"] for mark in (" > ", " < "))
    ]
    tables = [made_table(row, rng) for row in rows]
    both = [
        run_programs(
            [(row[key], table) for row, table in zip(rows, tables, strict=True)],
            language,
            seconds=5,
            memory_mb=256,
            unsafe=True,
        )
        for key, language in (("sql", "sql"), ("pandas", "pandas"))
    ]
    assert [one.error for side in both for one in side] == [None] * (2 * len(rows))
    for sql, pandas in zip(*both, strict=True):
        flat = [cell for line in sql.result for cell in line]
        given = pandas.result if isinstance(pandas.result, list) else [pandas.result]
        assert same_result(flat, given, ordered=False)
    assert sum(bool(one.result) for one in both[0]) > 8
