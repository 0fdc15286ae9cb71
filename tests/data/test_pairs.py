"""Rows of a source and a target: which columns, what is left out, what is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import DataError, RecipeError
from holdfast.data.load import unlabelled_table
from holdfast.data.memory.texts import raw_of_texts
from holdfast.data.options import RowOptions
from holdfast.data.pairs import choose_pair, load_pairs, target_column


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def rows(n: int = 30, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "dialogue": f"Anna says number {i} and then some more words",
            "summary": f"sum {i} of it",
            **more,
        }
        for i in range(n)
    ]


def named(first: str, second: str) -> list[dict[str, Any]]:
    long = "the long text number {} goes on and on here"
    return [{"id": i, first: long.format(i), second: f"short {i} x"} for i in range(12)]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("dialogue", "summary"),
        ("article", "highlights"),
        ("document", "summary"),
        ("source", "target"),
        ("input", "output"),
        ("question", "answer"),
        ("text", "summary"),
        ("Article", "Highlights"),
        ("en", "fr"),
        ("foo", "summary"),
        ("text", "bar"),
    ],
)
def test_usual_names_are_found_with_a_reason(tmp_path: Path, source: str, target: str) -> None:
    table = load_pairs(write(tmp_path / "r.jsonl", named(source, target)))
    assert table.columns.text == (source,)
    assert table.columns.label == target
    assert all(decision.because for decision in table.decisions)
    chosen = {decision.what: decision.chosen for decision in table.decisions}
    assert chosen == {"source column": source, "target column": target}
    assert table.column("target")[3] == "short 3 x"
    assert set(table.column("label")) == {0}
    assert table.classes == ("all",)


def test_of_two_unnamed_columns_the_longer_is_the_source(tmp_path: Path) -> None:
    table = load_pairs(write(tmp_path / "r.jsonl", named("one", "two")))
    assert (table.columns.text, table.columns.label) == (("one",), "two")


def test_two_possible_targets_are_asked_for(tmp_path: Path) -> None:
    made = [
        {"question": f"what is it {i} ?", "sql": f"SELECT {i} FROM t", "pandas": f"df . a {i}"}
        for i in range(10)
    ]
    path = write(
        tmp_path / "r.jsonl", [m | {"pandas": f"df . loc {i}"} for i, m in enumerate(made)]
    )
    assert load_pairs(path, RowOptions(label="pandas")).columns.label == "pandas"
    with pytest.raises(DataError, match="several columns could be the target"):
        load_pairs(
            write(
                tmp_path / "q.jsonl",
                [{"thing": m["question"], "sql": m["sql"], "pandas": m["pandas"]} for m in made],
            ),
            RowOptions(text=["thing"]),
        )


def test_a_template_joins_columns_lists_too(tmp_path: Path) -> None:
    made = [{"question": f"who {i}", "columns": ["a", "b"], "pandas": f"df {i}"} for i in range(5)]
    table = load_pairs(
        write(tmp_path / "r.jsonl", made),
        RowOptions(template="{question} <context> {columns}", label="pandas"),
    )
    assert table.column("text")[1] == 'who 1 <context> ["a", "b"]'


def test_missing_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    made = rows()
    made[3]["summary"], made[4]["summary"], made[5]["dialogue"] = "", None, "  "
    table = load_pairs(write(tmp_path / "r.jsonl", made))
    assert len(table) == 27
    assert 3 not in table.column("row")
    found = {finding.check: finding for finding in table.findings}
    assert (found["missing_target"].count, found["missing_source"].count) == (2, 1)
    assert found["missing_target"].rows == (3, 4)
    assert found["missing_target"].fixed


def test_targets_that_are_or_begin_like_their_source_are_found(tmp_path: Path) -> None:
    made = rows()
    made[0]["summary"] = made[0]["dialogue"].upper()
    made[1]["summary"] = "Anna says number 1 and that was all"
    found = {f.check: f for f in load_pairs(write(tmp_path / "r.jsonl", made)).findings}
    assert found["target_is_source"].rows == (0,)
    assert found["target_begins_like_source"].rows == (1,)


def test_one_target_for_many_rows_is_found(tmp_path: Path) -> None:
    made = [row | ({"summary": "yes"} if i % 3 == 0 else {}) for i, row in enumerate(rows(60))]
    found = {f.check: f for f in load_pairs(write(tmp_path / "r.jsonl", made)).findings}
    assert found["one_target_for_many"].count == 20
    clean = load_pairs(write(tmp_path / "s.jsonl", rows(60))).findings
    assert not {f.check for f in clean} & {"one_target_for_many", "target_is_source"}


def test_no_usable_row_and_no_column_are_refused(tmp_path: Path) -> None:
    empty = [row | {"summary": ""} for row in rows()]
    with pytest.raises(DataError, match="both a source and a target"):
        load_pairs(write(tmp_path / "r.jsonl", empty), RowOptions(text="dialogue", label="summary"))
    with pytest.raises(DataError, match="has no column 'sumary'"):
        load_pairs(write(tmp_path / "s.jsonl", rows()), RowOptions(label="sumary"))
    with pytest.raises(RecipeError, match="two roles"):
        load_pairs(write(tmp_path / "t.jsonl", rows()), RowOptions(text="summary", label="summary"))


def test_without_need_of_targets_every_source_stays(tmp_path: Path) -> None:
    made = [{"dialogue": row["dialogue"]} for row in rows(4)]
    table = load_pairs(
        write(tmp_path / "r.jsonl", made), RowOptions(text="dialogue", need_label=False)
    )
    assert table.column("target") == [""] * 4


def test_texts_in_memory_go_through_a_prefix() -> None:
    options = RowOptions(template="summarize: {dialogue}", need_label=False)
    raw = raw_of_texts(["a", "b"], ["dialogue"])
    table = unlabelled_table(raw, choose_pair(raw, options), label=0, target=True)
    assert table.column("text") == ["summarize: a", "summarize: b"]
    assert table.column("target") == ["", ""]
    with pytest.raises(DataError, match="reads 2 columns"):
        raw_of_texts(["a"], ["a", "b"])


def test_target_is_another_name_of_label() -> None:
    assert target_column("a", None) == target_column(None, "a") == target_column("a", "a") == "a"
    with pytest.raises(RecipeError, match="different columns"):
        target_column("a", "b")
