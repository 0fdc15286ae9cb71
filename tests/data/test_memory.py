"""Tables of texts in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import DataError
from holdfast.data.memory.texts import labelled_rows, table_from_texts

TEXTS = [f"text number {n}" for n in range(6)]


def test_labels_of_any_plain_kind_become_classes() -> None:
    for labels, classes in [
        (np.array([2, 10] * 3), ("2", "10")),
        ([True, False] * 3, ("false", "true")),
        (["label", "text"] * 3, ("label", "text")),
    ]:
        assert table_from_texts(TEXTS, labels).classes == classes


def test_without_labels_every_text_stays_in_place() -> None:
    table = table_from_texts(["a", "", None, "12"], classes=["x", "y"])
    assert table.column("text") == ["a", "", "", "12"]
    assert table.column("label").tolist() == [-1] * 4
    assert table.classes == ("x", "y")
    assert len(table_from_texts([])) == 0


def test_pairs_and_groups_are_kept() -> None:
    table = table_from_texts([(t, "second") for t in TEXTS], [0, 1] * 3, groups=[7] * 6)
    assert table.column("text_pair") == ["second"] * 6
    assert table.column("group") == ["7"] * 6


def test_groups_are_kept_where_no_labels_are_given() -> None:
    groups = ["a", "a", "b", "b", "c", "c"]
    table = labelled_rows(TEXTS, None, groups, (), "label")
    assert table.to_pydict() == {"text": TEXTS, "group": groups}
    with pytest.raises(DataError, match="there are 2 groups"):
        labelled_rows(TEXTS, None, ["a", "b"], (), "label")


def test_a_missing_label_is_left_out_and_counted() -> None:
    table = table_from_texts([*TEXTS, "x y"], [0, 1] * 3 + [None])
    assert len(table) == 6
    assert [(f.check, f.rows) for f in table.findings] == [("missing_label", (6,))]


@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        ([1.5, 2.5], None, "row 0: is not a text"),
        (["a", ("b", "c")], None, "row 1: is not a text"),
        ([("a", "b"), "cd"], None, "row 1: is not a pair"),
        (["a", "\ud800"], None, "row 1: is not a text"),
        (TEXTS, [0, 1], "6 texts and 2 labels"),
        (TEXTS, [1] * 6, "only one class"),
    ],
)
def test_what_is_no_text_or_fits_no_label_is_refused(
    texts: list[Any], labels: list[Any] | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        table_from_texts(texts, labels)
