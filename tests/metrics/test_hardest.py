from __future__ import annotations

import numpy as np

from holdfast.core.records import Outputs
from holdfast.stats.temperature import losses_at
from holdfast.tasks.hardest import hardest

CLASSES = ("ham", "spam")


def make(logits: list[list[float]], labels: list[int]) -> Outputs:
    table, y = np.array(logits, dtype=np.float32), np.array(labels)
    return Outputs(np.arange(len(y)) + 100, y, table, losses_at(table, y, 1.0))


def test_worst_first_with_source_rows() -> None:
    o = make([[2, 0], [0, 3], [1, 0], [0, 1]], [0, 0, 1, 1])
    found = hardest(o, ["a", "b", "c", "d"], CLASSES)
    assert [entry["row"] for entry in found["loss"]] == [101, 102, 103, 100]
    assert [entry["row"] for entry in found["confidently_wrong"]] == [101, 102]
    first = found["loss"][0]
    assert (first["text"], first["label"], first["prediction"]) == ("b", "ham", "spam")
    assert first["confidence"] > 0.9


def test_at_most_as_many_as_asked_and_ties_by_row() -> None:
    o = make([[0.0, 1.0]] * 30, [0] * 30)
    found = hardest(o, ["x"] * 30, CLASSES, count=20)
    assert [entry["row"] for entry in found["loss"]] == list(range(100, 120))
    assert len(found["confidently_wrong"]) == 20


def test_all_right_has_hard_rows_but_no_wrong_ones() -> None:
    found = hardest(make([[2, 0], [1, 0]], [0, 0]), ["a", "b"], CLASSES)
    assert [entry["row"] for entry in found["loss"]] == [101, 100]
    assert found["confidently_wrong"] == []


def test_no_rows_give_empty_lists() -> None:
    empty = Outputs(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)), np.zeros(0))
    assert hardest(empty, [], CLASSES) == {"loss": [], "confidently_wrong": []}
