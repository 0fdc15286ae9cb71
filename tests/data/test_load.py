"""From a file to a table: what is worked out, left out, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import DataError, InputError, RecipeError
from holdfast.data.load import load_table
from holdfast.data.options import RowOptions
from holdfast.data.table import Table

Load = Callable[..., Table]
GOOD = [(f"text number {n} is here", "pos" if n % 2 else "neg") for n in range(12)]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes rows (objects become JSON lines, a string CSV) and loads them."""

    def write_and_load(content: str | list[dict[str, Any]], **arguments: Any) -> Table:
        path = tmp_path / ("a.csv" if isinstance(content, str) else "a.jsonl")
        if not isinstance(content, str):
            content = "\n".join(map(json.dumps, content))
        path.write_text(content, encoding="utf-8")
        return load_table(path, RowOptions(**arguments))

    return write_and_load


def csv_of(rows: list[tuple[Any, ...]], header: str = "text,label") -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def objects(**columns: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def many(n: int = 12) -> list[str]:
    return [f"a text of number {i} stands here" for i in range(n)]


def findings(table: Table) -> dict[str, tuple[int, tuple[int, ...], bool]]:
    return {f.check: (f.count, f.rows, f.fixed) for f in table.findings}


def test_a_plain_file_becomes_rows_in_source_order(load: Load) -> None:
    table = load(csv_of(GOOD))
    assert table.column("row").tolist() == list(range(12))
    assert table.column("text") == [text for text, _ in GOOD]
    assert [table.classes[i] for i in table.column("label")] == [label for _, label in GOOD]
    assert (table.source_rows, table.findings) == (12, ())
    assert {d.what for d in table.decisions} == {"text column", "label column"}


def test_the_rows_are_memory_mapped(load: Load) -> None:
    assert load(csv_of(GOOD)).rows.cache_files


def test_texts_survive_as_written(load: Load) -> None:
    texts = ["007", "NA", "null", "1e5", "  two  spaces  ", "nan", "None", "True", "word"]
    table = load(csv_of([(text, n % 2) for n, text in enumerate(texts)]))
    assert table.column("text") == texts


def test_missing_texts_and_labels_are_left_out_and_counted(load: Load) -> None:
    rows = [*GOOD, ("", "pos"), ("   ", "neg"), ("a text", ""), ("\u3000", ""), *GOOD[:1]]
    table = load(csv_of(rows))
    assert table.column("row").tolist() == [*range(12), 16]
    assert findings(table) == {
        "missing_text": (3, (12, 13, 15), True),
        "missing_label": (1, (14,), True),
    }


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([10, 9, -1] * 4, ("-1", "9", "10")),
        ([True, False] * 6, ("false", "true")),
        (["q10", "q9", "Q1"] * 4, ("Q1", "q9", "q10")),
        ([1.0, 2.0, None] * 4, ("1", "2")),
        (["2.0", "1.0", "10.0"] * 4, ("1", "2", "10")),
        (["4.5", "4.0"] * 6, ("4.0", "4.5")),
        (["01", "1"] * 6, ("01", "1")),
        ([" a", "a ", "b"] * 4, ("a", "b")),
    ],
)
def test_labels_become_strings_in_natural_order(
    labels: list[Any], classes: tuple[str, ...], load: Load
) -> None:
    table = load(objects(text=many(), label=labels))
    assert table.classes == classes
    assert sorted(set(table.column("label").tolist())) == list(range(len(classes)))


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("", {}, "is empty"),
        ("text,label\n", {}, "header but no rows"),
        (csv_of([(t, "x") for t, _ in GOOD]), {}, "only one class"),
        (csv_of([(n, n % 2) for n in range(12)]), {}, "holds only numbers"),
        (csv_of([("", n % 2) for n in range(12)]), {}, "empty in every row"),
        (csv_of([(t, "") for t, _ in GOOD]), {}, "has no labels"),
        (csv_of(GOOD), {"text": ["txt"]}, r"(?s)no column 'txt'.*Did you mean 'text'"),
        (csv_of(GOOD), {"label": "labl"}, r"(?s)no column 'labl'.*Did you mean 'label'"),
        (csv_of(GOOD), {"group": "user"}, "no column 'user'"),
        (csv_of([(t, n) for n, (t, _) in enumerate(GOOD)]), {}, "12 distinct values in 12 rows"),
        (csv_of([(f"a b {n}", n * 0.5) for n in range(60)] * 3), {}, "regression"),
        (csv_of([("great film", "pos"), *GOOD], "fine film,pos"), {}, "header is missing"),
        ("text\na b c\n", {}, "no column that could be the label"),
        (csv_of([(*row, "a") for row in GOOD], "text,label,label"), {}, "same name"),
    ],
)
def test_what_cannot_be_used_is_refused(
    content: str, arguments: dict[str, Any], said: str, load: Load
) -> None:
    with pytest.raises(InputError, match=said) as refused:
        load(content, **arguments)
    assert refused.value.exit_code == 2
    assert refused.value.remedy


def test_nested_and_doubled_columns_are_refused(load: Load) -> None:
    nested = objects(text=[["a"]] * 12, label=[0, 1] * 6)
    with pytest.raises(DataError, match="lists, objects or bytes"):
        load(nested, text=["text"])
    with pytest.raises(RecipeError, match="two roles"):
        load(csv_of(GOOD), text=["text"], label="text")
    with pytest.raises(DataError, match=r"row 1, column 'text'.*NUL"):
        load(objects(text=["a b", "a\0b"] * 6, label=[0, 1] * 6))


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        ({"review": "t", "stars": "l"}, ("review",), "stars"),
        ({"id": "n", "frase": "t", "klasse": "l"}, ("frase",), "klasse"),
        ({"premise": "t", "hypothesis": "t", "label": "l"}, ("premise", "hypothesis"), "label"),
        (
            {"idx": "n", "Sentence1": "t", "Sentence2": "t", "y": "l"},
            ("Sentence1", "Sentence2"),
            "y",
        ),
        ({"question": "t", "answer": "t", "good": "l"}, ("question", "answer"), "good"),
        ({"text": "t", "title": "t", "label": "l", "topic": "l"}, ("text",), "label"),
        ({"a": "t", "b": "l"}, ("a",), "b"),
    ],
)
def test_columns_are_worked_out(
    columns: dict[str, str], text: tuple[str, ...], label: str, load: Load
) -> None:
    values = {"t": many(), "l": ["x", "y"] * 6, "n": list(range(12))}
    table = load(objects(**{name: values[kind] for name, kind in columns.items()}))
    assert (table.columns.text, table.columns.label) == (text, label)
    assert all(decision.because for decision in table.decisions)
    assert table.has_pairs == (len(text) == 2)


def test_one_text_column_may_be_given_as_a_string(load: Load) -> None:
    rows = objects(uno=many(), due=many(), label=[0, 1] * 6)
    assert load(rows, text="due").columns.text == ("due",)


def test_an_ambiguous_column_is_asked_for_by_name(load: Load) -> None:
    two_texts = objects(uno=many(), due=many(), label=[0, 1] * 6)
    with pytest.raises(DataError, match=r"(?s)several columns of texts.*uno, due.*--text uno"):
        load(two_texts)
    two_labels = objects(text=many(), color=["r", "g"] * 6, size=["s", "l"] * 6)
    with pytest.raises(
        DataError,
        match=r"(?s)several columns that could be the label.*'color'.*'size'.*--label color",
    ):
        load(two_labels)
    assert load(two_labels, label="size").classes == ("l", "s")


def test_a_template_joins_columns(load: Load) -> None:
    rows = objects(q=many(), c=["ctx"] * 11 + [""], label=[0, 1] * 6)
    table = load(rows, template="{q} [SEP] {c} {{x}}")
    assert table.column("text")[0] == "a text of number 0 stands here [SEP] ctx {x}"
    assert findings(table)["missing_text"] == (1, (11,), True)
    for template, said in [
        ("{r} {c}", r"(?s)does not exist: 'r'"),
        ("no column", "names no column"),
        ("{q:>9}", "format or a conversion"),
        ("{q", "not a valid template"),
    ]:
        with pytest.raises(InputError, match=said):
            load(rows, template=template)


def test_three_texts_are_joined_by_line_breaks_and_said(load: Load) -> None:
    rows = objects(a=many(), b=many(), c=many(), label=[0, 1] * 6)
    table = load(rows, text=["a", "b", "c"])
    assert table.column("text")[3] == "\n".join([many()[3]] * 3)
    assert "data.template" in {d.what for d in table.decisions}


def test_space_around_a_group_and_marks_of_a_missing_one_make_no_group(load: Load) -> None:
    names = ["u1", "u1 ", " u1", "n/a", "NaN", "", "u2", "U2"] + ["u3"] * 4
    table = load(objects(text=many(), label=[0, 1] * 6, user=names), group="user")
    groups = table.column("group")
    assert set(groups[:3]) == {"u1"}
    assert len(set(groups[3:6])) == 3
    assert groups[6:8] == ["u2", "U2"]
    assert findings(table)["missing_group"] == (3, (3, 4, 5), False)


def test_groups_come_as_strings_and_a_row_without_one_stands_alone(load: Load) -> None:
    table = load(objects(text=many(), label=[0, 1] * 6, user=[1, 2, None] * 4), group="user")
    groups = table.column("group")
    assert groups[:2] == ["1", "2"]
    assert len(set(groups)) == 2 + 4
    assert findings(table)["missing_group"] == (4, (2, 5, 8, 11), False)


def test_a_row_that_is_dropped_is_not_told_to_have_no_group(load: Load) -> None:
    texts, labels = many(), [0, 1] * 6
    texts[2], labels[5] = "", None
    table = load(objects(text=texts, label=labels, user=[1, 2, None] * 4), group="user")
    assert findings(table)["missing_group"] == (2, (8, 11), False)


def test_a_column_that_looks_like_a_group_is_mentioned_but_not_used(load: Load) -> None:
    table = load(objects(text=many(), label=[0, 1] * 6, user_id=[1, 2, 3] * 4))
    assert not table.has_groups
    assert "--group user_id" in next(
        f.remedy for f in table.findings if f.check == "possible_group"
    )


RARE = [*GOOD, ("odd one", "rare"), ("odd two", "rare"), ("ODD, two!".replace(",", ""), "rare")]


def test_a_class_too_small_to_divide_is_refused_with_the_remedies(load: Load) -> None:
    said = r"(?s)'rare': 3 rows, 2 distinct.*data\.rare_classes=drop.*data\.rare_classes=merge"
    with pytest.raises(DataError, match=said):
        load(csv_of(RARE))
    assert load(csv_of(RARE), rare_below=2).classes == ("neg", "pos", "rare")


def test_rare_classes_are_dropped_or_merged_and_listed(load: Load) -> None:
    dropped = load(csv_of(RARE), rare="drop")
    assert (len(dropped), dropped.classes) == (12, ("neg", "pos"))
    assert findings(dropped)["rare_classes"] == (3, (12, 13, 14), True)
    rows = [*RARE, ("a lone one", "lone")]
    merged = load(csv_of(rows), rare="merge")
    assert (len(merged), merged.classes) == (16, ("neg", "other", "pos"))
    assert merged.column("label").tolist()[12:] == [1, 1, 1, 1]
    assert findings(merged)["rare_classes"] == (4, (12, 13, 14, 15), True)


def test_merging_that_leaves_too_little_is_refused(load: Load) -> None:
    with pytest.raises(DataError, match="after merging"):
        load(csv_of(RARE), rare="merge", rare_below=3)
    few = csv_of([("a a", "x"), ("b b", "x"), ("c c", "x"), ("d d", "y"), ("e e", "y")])
    with pytest.raises(DataError, match="fewer than two classes"):
        load(few, rare="drop")
    with pytest.raises(DataError, match="after merging") as refused:
        load(few, rare="merge", rare_below=3)
    assert "rare=drop" not in refused.value.remedy, "which leaves one class"


def test_labels_are_read_in_terms_of_the_classes_of_a_run(load: Load) -> None:
    table = load(csv_of([("a b c", "1.0"), ("d e f", "2")]), classes=["2", "1"])
    assert (table.classes, table.column("label").tolist()) == (("2", "1"), [1, 0])
    table = load(csv_of([("a b c", "True")]), classes=["false", "true"])
    assert table.column("label").tolist() == [1]
    with pytest.raises(DataError, match=r"(?s)row 1: has a label.*'posi'.*Did you mean 'pos'"):
        load(csv_of([("a b", "neg"), ("c d", "posi")]), classes=["neg", "pos"])


def test_without_need_of_labels_every_text_stays(load: Load) -> None:
    table = load("text\na b\nc d\n", classes=["x", "y"], need_label=False, label="label")
    assert table.column("label").tolist() == [-1, -1]
    assert table.classes == ("x", "y")
    table = load(
        csv_of([("a b", "x"), ("c d", ""), ("e f", "z")]), classes=["x", "y"], need_label=False
    )
    assert table.column("label").tolist() == [0, -1, -1]
    assert findings(table)["unknown_labels"] == (1, (2,), False)


def test_the_real_data_is_read_whole(shared_data: Path) -> None:
    sizes = {"cr/cr.csv": (3775, 4, 2), "mr/mr.csv": (10662, 0, 2), "trec/train.csv": (5452, 0, 6)}
    for name, (rows, missing, classes) in sizes.items():
        table = load_table(shared_data / name)
        assert (table.source_rows, len(table)) == (rows, rows - missing)
        assert len(table.classes) == classes
