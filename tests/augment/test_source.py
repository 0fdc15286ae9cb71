"""Rows in other forms: which ones, the same each time, made beforehand by another thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from holdfast.augment.source import Enriched, RowTurn, occurrences
from holdfast.core.updates import Draw, RowPool, rows_drawn
from holdfast.methods.balance import Balance
from holdfast.methods.contrast import ClassBatches
from holdfast.training.plan import EveryRow


@dataclass(frozen=True)
class Rows:
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return 3 + np.arange(len(self.labels)) % 7

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Spoken:
    """Forms that say which row and turn they are; keeps what it was asked, and by whom."""

    steps: int = 4
    asked: list[tuple[int, RowTurn]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def __call__(self, rows: np.ndarray, turns: Sequence[RowTurn]) -> tuple[Any, np.ndarray]:
        self.threads.add(threading.current_thread().name)
        pairs = [(int(row), turn) for row, turn in zip(rows, turns, strict=True)]
        self.asked += pairs
        return pairs, np.arange(len(pairs))


LABELS = np.array([0] * 60 + [1] * 12 + [2] * 3)
SOURCES = {"every row": EveryRow(), "balance": Balance(), "contrast": ClassBatches(2)}


def pool() -> RowPool:
    return RowPool(Rows(LABELS), 8, 0, "finetune")


def forms(draw: Draw) -> list[tuple[int, RowTurn]]:
    return [draw.examples[place] for place in draw.positions]


@pytest.mark.parametrize("name", SOURCES)
def test_the_rows_are_those_of_the_source_each_in_its_form(name: str) -> None:
    inner, plain, one = SOURCES[name], pool(), pool()
    source = Enriched(inner, Spoken())
    assert source.steps_per_epoch(one) == inner.steps_per_epoch(one)
    assert source.has_epochs == inner.has_epochs
    for step in range(25):
        drawn, wanted = source.draw(one, step), inner.draw(plain, step)
        assert drawn.rows.tolist() == wanted.rows.tolist()
        assert [row for row, _ in forms(drawn)] == wanted.rows.tolist()


@pytest.mark.parametrize("name", SOURCES)
def test_a_form_is_the_same_whatever_was_drawn_before(name: str) -> None:
    one, source = pool(), Enriched(SOURCES[name], Spoken())
    steps = [0, 1, 5, 9, 10, 23]
    forward = {step: forms(source.draw(one, step)) for step in steps}
    for step in reversed(steps):
        assert forms(source.draw(one, step)) == forward[step]
        assert forms(Enriched(SOURCES[name], Spoken()).draw(pool(), step)) == forward[step]


def test_a_row_that_comes_twice_an_epoch_has_a_form_each_time() -> None:
    source, one = Enriched(Balance(), Spoken()), pool()
    count = source.steps_per_epoch(one)
    seen = [pair for step in range(2 * count) for pair in forms(source.draw(one, step))]
    assert len(seen) == len(set(seen)) == 2 * len(LABELS)
    assert max(turn.again for _, turn in seen) >= 7
    assert {turn.epoch for _, turn in seen} == {0, 1}


def test_forms_are_made_in_one_thread_and_a_block_ahead() -> None:
    made = Spoken()
    source, one = Enriched(EveryRow(), made), pool()
    source.draw(one, 0)
    source.draw(one, 3)
    source.ahead._made[1].result()
    # Eight updates; there are 75 rows, so that one of them is of three.
    assert len(made.asked) == 7 * 8 + 3
    assert len(made.threads) == 1
    assert threading.current_thread().name not in made.threads


def test_asking_for_rows_alone_makes_no_form() -> None:
    made = Spoken()
    source, one = Enriched(EveryRow(), made), pool()
    rows = rows_drawn(source, one, 3)
    assert rows.tolist() == EveryRow().draw(pool(), 3).rows.tolist()
    assert not made.asked


@dataclass(frozen=True)
class Brought:
    """A source whose rows are its own."""

    name: str = "brought"
    has_epochs: bool = False

    def steps_per_epoch(self, pool: RowPool) -> int:
        return 1

    def draw(self, pool: RowPool, step: int) -> Draw:
        return Draw(np.arange(3), "mine", np.arange(3))


def test_rows_that_a_source_brings_stay_as_they_are() -> None:
    made = Spoken()
    assert Enriched(Brought(), made).draw(pool(), 2).examples == "mine"
    assert not made.asked


def test_what_fails_in_the_thread_is_raised_where_the_rows_are_drawn() -> None:
    class Fails(Spoken):
        def __call__(self, rows: np.ndarray, turns: Sequence[RowTurn]) -> Any:
            raise ValueError("no form")

    with pytest.raises(ValueError, match="no form"):
        Enriched(EveryRow(), Fails()).draw(pool(), 0)


def test_occurrences_are_counted_over_the_draws() -> None:
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, 5, 6) for _ in range(4)]
    seen: dict[int, int] = {}
    for rows, found in zip(draws, occurrences(draws), strict=True):
        for row, again in zip(rows.tolist(), found.tolist(), strict=True):
            assert again == seen.get(row, 0)
            seen[row] = again + 1


def test_of_another_pool_nothing_that_was_made_is_used() -> None:
    source, other = Enriched(EveryRow(), Spoken()), RowPool(Rows(LABELS), 8, 1, "finetune")
    first = forms(source.draw(pool(), 1))
    assert forms(source.draw(other, 1)) != first
    assert source.draw(other, 1).rows.tolist() == EveryRow().draw(other, 1).rows.tolist()
