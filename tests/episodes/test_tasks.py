"""Tasks, their division, and what is drawn from them."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.plugins.episodes.tasks import (
    Episode,
    EpisodeShape,
    FewShotTask,
    TaskPool,
    split_sizes,
    split_units,
    usable_tasks,
)


def pool(tasks: int = 3, classes: int = 6, rows: int = 9) -> TaskPool:
    made, start = [], 0
    for t in range(tasks):
        parts = [np.arange(start + c * rows, start + (c + 1) * rows) for c in range(classes)]
        start += classes * rows
        made.append(FewShotTask(f"t{t}", tuple(f"c{c}" for c in range(classes)), tuple(parts)))
    return TaskPool(tuple(made))


def test_an_episode_has_rows_of_its_classes_each_once() -> None:
    lot, shape = pool(), EpisodeShape(4, 3, 5)
    for index in range(40):
        one = lot.draw(shape, 0, "train", index)
        assert one.support.shape == (4, 3)
        assert one.query.shape == (4, 5)
        assert len(set(one.classes.tolist())) == 4
        rows = np.concatenate([one.support.ravel(), one.query.ravel()])
        assert len(set(rows.tolist())) == len(rows)
        task = lot.tasks[one.task]
        for place, name in enumerate(one.classes):
            assert set(one.support[place]) | set(one.query[place]) <= set(task.rows[name])


def test_an_episode_is_that_of_its_name_whatever_was_drawn_before() -> None:
    lot, shape = pool(), EpisodeShape(3, 2, 2)
    first = lot.draw(shape, 7, "train", 5)
    lot.draw(shape, 7, "train", 6)
    again, other = lot.draw(shape, 7, "train", 5), lot.draw(shape, 8, "train", 5)
    assert np.array_equal(first.support, again.support)
    assert np.array_equal(first.query, again.query)
    assert not (
        np.array_equal(first.support, other.support) and np.array_equal(first.query, other.query)
    )


def test_tasks_classes_and_rows_are_all_reached() -> None:
    lot = pool()
    drawn = lot.episodes(EpisodeShape(3, 1, 2), 300, 0, "valid")
    rows = np.concatenate([np.r_[e.support.ravel(), e.query.ravel()] for e in drawn])
    assert set(rows.tolist()) == set(range(3 * 6 * 9))
    counts = np.bincount([e.task for e in drawn])
    assert counts.min() > 70


def test_labels_stand_as_the_rows_do() -> None:
    one = Episode(0, np.array([4, 2]), np.zeros((2, 3), int), np.zeros((2, 2), int))
    assert one.support_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert one.query_labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("total", "least", "wanted"),
    [(77, 5, [46, 15, 16]), (8, 2, [4, 2, 2]), (8, 1, [5, 1, 2]), (3, 1, [1, 1, 1]), (2, 1, None)],
)
def test_sides_get_their_shares_and_never_fewer_than_they_need(
    total: int, least: int, wanted: list[int] | None
) -> None:
    assert split_sizes(total, (0.6, 0.2, 0.2), least) == wanted


def test_no_unit_is_on_two_sides_and_none_is_lost() -> None:
    names = [f"u{i}" for i in range(23)]
    for seed in range(5):
        parts = split_units(names, (0.6, 0.2, 0.2), 1, seed)
        assert parts is not None
        assert sorted(name for part in parts for name in part) == sorted(names)
        assert all(list(part) == sorted(part, key=names.index) for part in parts)
    assert split_units(names, (0.6, 0.2, 0.2), 1, 0) != split_units(names, (0.6, 0.2, 0.2), 1, 1)


def test_classes_and_tasks_that_are_too_small_are_left_out() -> None:
    small = FewShotTask("a", ("x", "y", "z"), (np.arange(5), np.arange(9), np.arange(6)))
    tiny = FewShotTask("b", ("x", "y"), (np.arange(9), np.arange(2)))
    found = usable_tasks([small, tiny], EpisodeShape(2, 2, 4))
    assert [(task.name, task.classes) for task in found] == [("a", ("y", "z"))]


def test_episodes_share_classes_or_where_there_are_enough_tasks() -> None:
    few, many = pool(3), pool(6)
    shape = EpisodeShape(4, 1, 1)
    drawn = few.episodes(shape, 10, 0, "test")
    members, unit = few.unit_membership(drawn)
    assert unit == "class"
    assert members.shape == (10, 18)
    assert (members.sum(axis=1) == 4).all()
    at = 6 * drawn[3].task + drawn[3].classes
    assert set(np.flatnonzero(members[3])) == set(at.tolist())
    members, unit = many.unit_membership(many.episodes(shape, 10, 0, "test"))
    assert unit == "task"
    assert members.shape == (10, 6)
    whole = pool(3, classes=4)
    # An episode takes all four classes of its task: classes could not be told from tasks.
    assert whole.unit_membership(whole.episodes(shape, 10, 0, "test"))[1] == "task"
