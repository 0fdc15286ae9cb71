"""The encoded rows of every kind keep what ``training.task.Examples`` promises."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import holdfast.tasks


def examples_classes() -> set[type]:
    found = set()
    for module in pkgutil.walk_packages(holdfast.tasks.__path__, "holdfast.tasks."):
        for _, thing in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            protocol = getattr(thing, "_is_protocol", False)
            if not protocol and {"take", "lengths"} <= set(dir(thing)):
                found.add(thing)
    return found


def same(one: Any, other: Any, sample: Any) -> None:
    """Nothing that the house reads of examples tells the two apart."""
    assert len(one) == len(other)
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.lengths, other.lengths)
    definition, loaded, task = sample.definition, sample.loaded, sample.task
    assert definition.check_examples(one, loaded, "training") == definition.check_examples(
        other, loaded, "training"
    )
    if not len(one):
        return
    # Against the order of encoding, so that places are followed and not only counted.
    positions = np.arange(len(one))[::-1]
    np.testing.assert_array_equal(task.weights(one, positions), task.weights(other, positions))
    first, second = task.collate(one, positions), task.collate(other, positions)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_class_of_examples_has_a_sample(
    make_sample: Callable[[str], Any], samples: list[str]
) -> None:
    assert {type(make_sample(name).examples) for name in samples} == examples_classes()


def test_rows_and_lengths_belong_to_the_table(sample: Any) -> None:
    examples, table = sample.examples, sample.table
    n = len(examples)
    assert n > 0
    assert len(examples.rows) == len(examples.lengths) == n
    assert (examples.lengths > 0).all()
    # Each row of the table is met once, in order, though it may give several examples.
    met = list(dict.fromkeys(examples.rows.tolist()))
    assert met == [row for row in table.column("row").tolist() if row in set(met)]


@pytest.mark.parametrize(
    "chosen",
    [list(range(14)), [11, 2, 3, 5], [4], [], [1, 1, 0]],
    ids=["all", "some", "one", "none", "twice"],
)
def test_a_part_is_what_encoding_those_rows_gives(sample: Any, chosen: list[int]) -> None:
    at = np.asarray(chosen, dtype=np.int64)
    part, rows = sample.examples.take(at), sample.table.take(at)
    if not len(at):
        assert len(part) == 0
        return
    same(part, sample.definition.encode(rows, sample.loaded, sample.recipe), sample)


def test_a_part_of_a_part_is_a_part(sample: Any) -> None:
    twice = sample.examples.take(np.array([9, 0, 3, 7])).take(np.array([3, 1]))
    same(twice, sample.examples.take(np.array([7, 0])), sample)


def test_taking_changes_nothing(sample: Any) -> None:
    before = sample.task.collate(sample.examples, range(len(sample.examples)))
    sample.examples.take(np.array([3, 1, 5]))
    after = sample.task.collate(sample.examples, range(len(sample.examples)))
    assert all(torch.equal(before[name], after[name]) for name in before)
