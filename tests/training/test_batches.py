"""Which rows go where: all of them, alike in length, the same each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.updates import Draw, RowPool
from holdfast.training.plan import EveryRow, parts_by_length, probe_positions

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300)


@dataclass(frozen=True)
class Rows:
    """What a source reads of encoded rows."""

    lengths: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.lengths)


def epoch_of(
    lengths: Any,
    *,
    window: int = 16,
    batch: int = 16,
    seed: int = 0,
    epoch: int = 0,
    name: str = "finetune",
) -> list[np.ndarray]:
    """The batches of an epoch, drawn step by step."""
    source, pool = EveryRow(window), RowPool(Rows(np.asarray(lengths)), batch, seed, name)
    count = source.steps_per_epoch(pool)
    return [source.draw(pool, epoch * count + index).rows for index in range(count)]


@settings(max_examples=100)
@given(LENGTHS, st.integers(1, 40), st.integers(0, 99), st.integers(0, 5), st.sampled_from([16, 1]))
def test_an_epoch_holds_every_row_once(
    lengths, batch: int, seed: int, epoch: int, window: int
) -> None:
    batches = epoch_of(lengths, window=window, batch=batch, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch)
    assert sum(len(rows) < batch for rows in batches) <= 1


def test_batches_depend_on_seed_phase_and_epoch_and_on_nothing_else() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 200)

    def flat(name: str, seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_of(lengths, name=name, seed=seed, epoch=epoch)).tolist()

    np.random.default_rng(1).random(5)
    first = flat("finetune", 0, 0)
    assert flat("finetune", 0, 0) == first
    assert all(
        flat(*other) != first for other in [("finetune", 1, 0), ("other", 0, 0), ("finetune", 0, 1)]
    )


def padding(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Padded tokens for each real one."""
    return sum(len(rows) * lengths[rows].max() for rows in batches) / lengths.sum()


def test_rows_of_like_length_travel_together_but_the_epoch_is_not_sorted() -> None:
    lengths = np.random.default_rng(0).geometric(0.05, 3200)
    batches = epoch_of(lengths)
    random = np.array_split(np.random.default_rng(1).permutation(3200), 200)
    assert padding(lengths, batches) < 1.25 < padding(lengths, random)
    means = np.array([lengths[rows].mean() for rows in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2
    # The longest rows are spread over the epoch: no batch has all of them.
    longest = set(np.argsort(lengths)[-32:].tolist())
    assert max(len(longest & set(rows.tolist())) for rows in batches) < 12


@given(LENGTHS, st.integers(1, 12))
def test_parts_hold_every_row_once_and_shortest_first(lengths, parts: int) -> None:
    lengths = np.array(lengths)
    rows = np.random.default_rng(0).permutation(len(lengths))
    pieces = [part.rows for part in parts_by_length(Draw(rows), lengths, parts)]
    assert sorted(np.concatenate(pieces).tolist()) == sorted(rows.tolist())
    assert all(len(piece) for piece in pieces)
    assert len(pieces) == min(parts, len(rows))
    assert np.all(np.diff(lengths[np.concatenate(pieces)]) >= 0)


def test_parts_of_rows_in_another_form_keep_their_originals() -> None:
    """Five rows, the last drawn twice, as they stand in another set of encoded rows."""
    lengths, rows = np.array([9, 2, 5, 7, 1, 3]), np.array([0, 1, 2, 3, 4, 4])
    places = np.array([5, 4, 3, 2, 1, 0])
    parts = parts_by_length(Draw(rows, examples="other", places=places), lengths, 2)
    assert [part.examples for part in parts] == ["other", "other"]
    assert np.concatenate([part.positions for part in parts]).tolist() == [4, 1, 5, 2, 3, 0]
    assert np.concatenate([part.rows for part in parts]).tolist() == [1, 4, 0, 3, 2, 4]


def test_the_probe_is_a_fixed_sample_in_rising_order() -> None:
    one = probe_positions(np.arange(500), 100, 3)
    assert len(set(one.tolist())) == 100
    assert np.all(np.diff(one) > 0)
    assert one.tolist() == probe_positions(np.arange(500), 100, 3).tolist()
    assert one.tolist() != probe_positions(np.arange(500), 100, 4).tolist()
    assert probe_positions(np.arange(5), 100, 0).tolist() == [0, 1, 2, 3, 4]


def test_shuffled_batches_have_the_lengths_of_chance() -> None:
    """Else an update of short rows, a mean over few tokens, gives each of them more weight."""
    lengths = np.random.default_rng(0).geometric(0.05, 3200)
    tokens = np.array([lengths[rows].sum() for rows in epoch_of(lengths, window=1)])
    assert tokens.std() == pytest.approx(4 * lengths.std(), rel=0.15)
    alike = np.array([lengths[rows].sum() for rows in epoch_of(lengths)])
    assert alike.std() > 3 * tokens.std()


def test_an_epoch_is_made_once_and_the_last_one_alone_is_held() -> None:
    pool, made = RowPool(Rows(np.arange(4)), 2, 0, "p"), []
    for epoch in (0, 0, 1, 1, 0):
        assert pool.for_epoch(epoch, lambda epoch=epoch: made.append(epoch) or epoch) == epoch
    assert made == [0, 1, 0]
