"""Labels written in several ways are one class, and what stands for a missing one is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import DataError
from holdfast.data.labels.classes import match_classes
from holdfast.data.labels.spelling import merge_spellings, missing_labels
from holdfast.data.labels.texts import load_labelled
from holdfast.data.options import RowOptions
from holdfast.data.table import Table


def load(path: Path, column: list[str], **more: Any) -> Table:
    rows = [f'words of row number {n},"{label}"' for n, label in enumerate(column)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return load_labelled(str(path), RowOptions(**more))


def named(table: Table) -> list[str]:
    return [table.classes[n] for n in table.column("label").tolist()]


def told(table: Table, what: str) -> list[str]:
    return [decision.because for decision in table.decisions if decision.what == what]


WRITTEN = ["Yes"] * 9 + ["yes "] * 6 + [" YES"] * 4 + ["no"] * 8 + ["No"] * 5


def test_case_and_space_make_no_class(tmp_path: Path) -> None:
    table = load(tmp_path / "a.csv", WRITTEN)
    assert table.classes == ("Yes", "no")
    assert named(table) == ["Yes"] * 19 + ["no"] * 13
    (because,) = told(table, "labels")
    assert "'yes' (6 rows), 'YES' (4 rows) → 'Yes' (9 rows)" in because
    assert "data.labels=exact" in because


def test_what_cannot_be_seen_makes_no_class() -> None:
    alike = ["caf\u00e9", "cafe\u0301", "\ufeffcaf\u00e9", "Caf\u200b\u00e9", "caf\u00e9\u00a0"]
    spelled = merge_spellings({**dict.fromkeys(alike, 1), "caf\u00e9": 3, "cafe": 1})
    assert set(spelled.values()) == {"caf\u00e9", "cafe"}


def test_exact_takes_them_as_written_but_for_the_space_at_their_ends(tmp_path: Path) -> None:
    table = load(tmp_path / "a.csv", [*WRITTEN, *["n/a"] * 3], labels="exact")
    assert table.classes == ("No", "YES", "Yes", "n/a", "no", "yes")
    assert told(table, "labels") == []
    numbers = load(tmp_path / "b.csv", ["1"] * 4 + ["1.0"] * 4 + ["2"] * 4, labels="exact")
    assert numbers.classes == ("1", "1.0", "2")


def test_the_name_does_not_depend_on_the_order_of_the_rows() -> None:
    counts = {"b B": 2, "B b": 2, "b  b": 1, "c": 7}
    one = merge_spellings(counts)
    other = merge_spellings(dict(reversed(counts.items())))
    assert one == other == {"b B": "B b", "B b": "B b", "b  b": "B b", "c": "c"}


def test_what_stands_for_a_missing_label_is_counted_and_left_out(tmp_path: Path) -> None:
    table = load(tmp_path / "a.csv", ["a"] * 9 + ["b"] * 9 + ["N/A", "nan", "NULL", "", "NA"])
    assert table.classes == ("a", "b")
    (finding,) = [f for f in table.findings if f.check == "missing_label"]
    assert (finding.count, finding.rows) == (5, (18, 19, 20, 21, 22))
    assert "'N/A' or 'NA' or 'NULL' or 'nan'" in finding.because
    assert "data.labels=exact" in finding.remedy


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("none", "None", "a"), ()),
        (("undefined", "unknown", "-", "other"), ()),
        (("EU", "AS", "SA", "NA"), ()),
        (("OK", "NG", "NA"), ("NA",)),
        (("YES", "NO", "NA"), ("NA",)),
        (("EU", "AS", "SA", "n/a"), ("n/a",)),
        (("a", "<NA>", "#N/A", "\\N", "(null)"), ("#N/A", "(null)", "<NA>", "\\N")),
    ],
)
def test_which_labels_are_missing(names: tuple[str, ...], missing: tuple[str, ...]) -> None:
    assert missing_labels(names) == missing


def test_a_class_of_the_run_is_never_missing() -> None:
    assert missing_labels(["NA", "n/a"], ["na", "b"]) == ("n/a",)


def test_other_rows_are_read_in_the_classes_of_the_run(tmp_path: Path) -> None:
    table = load(tmp_path / "a.csv", ["YES", "no", " yes", "N/A"], classes=("Yes", "no"))
    assert named(table) == ["Yes", "no", "Yes"]
    with pytest.raises(DataError, match="not one of the classes"):
        load(tmp_path / "b.csv", ["YES", "no"], classes=("Yes", "no"), labels="exact")


def test_classes_that_differ_in_case_alone_are_matched_exactly() -> None:
    assert match_classes(["a", "A", "B"], ("A", "a", "b")) == {"a": "a", "A": "A", "B": "b"}
    assert match_classes(["aa", "AA"], ("Aa", "aA")) == {"aa": None, "AA": None}


def test_one_class_after_merging_is_refused_with_the_way_to_keep_them_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)only in case or space.*data\.labels=exact"):
        load(tmp_path / "a.csv", ["spam", "Spam"] * 9)


def test_one_class_beside_missing_labels_asks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)'NA' counts as a missing label.*data\.labels=exact"):
        load(tmp_path / "a.csv", ["spam", "NA"] * 9)


@pytest.mark.parametrize("names", [None, ("a", "b")])
def test_several_labels_are_merged_one_by_one(tmp_path: Path, names: Any) -> None:
    cells = ["a|b", "a", "B |a", "N/A", "b|N/A", "b", "A", "a"] * 9
    table = load(tmp_path / "a.csv", cells, label_kind="several", classes=names)
    assert table.names == ("a", "b")
    assert list(table.rows["labels"])[:7] == [[0, 1], [0], [0, 1], [1], [1], [0], [0]]
    assert [f.count for f in table.findings if f.check == "missing_label"] == [9]
    assert "in 9 rows" in told(table, "labels")[-1]


def test_a_list_of_missing_labels_is_missing_and_an_empty_one_is_not(tmp_path: Path) -> None:
    cells = ['[""a"",""b""]', '[""A""]', '[""null""]', "[]", '[""b""]', "NA"] * 9
    table = load(tmp_path / "a.csv", cells)
    assert list(table.rows["labels"])[:4] == [[0, 1], [0], [], [1]]
    assert [f.count for f in table.findings if f.check == "missing_label"] == [18]


def test_a_missing_number_leaves_its_row_out(tmp_path: Path) -> None:
    table = load(tmp_path / "a.csv", [*(str(n / 7) for n in range(60)), "NA", "n/a"])
    assert table.columns.label_kind == "number"
    assert len(table) == 60
