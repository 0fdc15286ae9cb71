"""Which rows go where: all of them, alike in length, the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.training.batches import (
    class_batch,
    epoch_batches,
    first_seen,
    parts_by_length,
    probe_positions,
    shard,
)
from holdfast.training.plan import Phase

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300)


def shape(sampler: Any = "windows", batch: int = 16, name: str = "finetune") -> Phase:
    return Phase(name, "task", "train", sampler, 10, batch, 1e-3, 1e-3)


@settings(deadline=None, max_examples=100)
@given(
    LENGTHS,
    st.integers(1, 40),
    st.integers(0, 99),
    st.integers(0, 5),
    st.sampled_from(["windows", "shuffled"]),
)
def test_an_epoch_holds_every_row_once(
    lengths, batch: int, seed: int, epoch: int, sampler: str
) -> None:
    batches = epoch_batches(np.array(lengths), shape(sampler, batch), seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch)
    assert sum(len(rows) < batch for rows in batches) <= 1


def test_batches_depend_on_seed_phase_and_epoch_and_on_nothing_else() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 200)

    def flat(name: str, seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(lengths, shape(name=name), seed, epoch)).tolist()

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
    batches = epoch_batches(lengths, shape(), 0, 0)
    random = np.array_split(np.random.default_rng(1).permutation(3200), 200)
    assert padding(lengths, batches) < 1.25 < padding(lengths, random)
    means = np.array([lengths[rows].mean() for rows in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2
    # The longest rows are spread over the epoch: no batch has all of them.
    longest = set(np.argsort(lengths)[-32:].tolist())
    assert max(len(longest & set(rows.tolist())) for rows in batches) < 12


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=200),
    st.integers(4, 40),
    st.integers(2, 8),
    st.integers(0, 50),
)
def test_a_class_batch_has_distinct_rows_of_chosen_classes(labels, batch, most, step) -> None:
    labels = np.array(labels)
    rows = class_batch(labels, batch, most, 0, step)
    assert len(set(rows.tolist())) == len(rows) <= batch
    classes = set(labels[rows].tolist())
    assert len(classes) <= most
    if len(set(labels.tolist())) > 1:
        assert len(classes) >= 2
    pool = np.isin(labels, list(classes)).sum()
    assert len(rows) == min(batch, pool)
    assert class_batch(labels, batch, most, 0, step).tolist() == rows.tolist()


def test_a_class_batch_is_balanced_where_it_can_be() -> None:
    labels = np.array([0] * 500 + [1] * 500 + [2] * 500)
    counts = np.bincount(labels[class_batch(labels, 30, 8, 0, 3)])
    assert counts.tolist() == [10, 10, 10]


def test_every_row_comes_up_over_the_steps() -> None:
    labels = np.arange(60) % 3
    seen = {int(row) for step in range(40) for row in class_batch(labels, 16, 8, 0, step)}
    assert seen == set(range(60))


@given(LENGTHS, st.integers(1, 12))
def test_parts_hold_every_row_once_and_shortest_first(lengths, parts: int) -> None:
    lengths = np.array(lengths)
    rows = np.random.default_rng(0).permutation(len(lengths))
    pieces = parts_by_length(rows, lengths, parts)
    assert sorted(np.concatenate(pieces).tolist()) == sorted(rows.tolist())
    assert all(len(piece) for piece in pieces)
    assert len(pieces) == min(parts, len(rows))
    assert np.all(np.diff(lengths[np.concatenate(pieces)]) >= 0)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_the_processes_share_the_rows(world: int) -> None:
    rows = np.arange(10, 21)
    parts = [shard(rows, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


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
    tokens = np.array(
        [lengths[rows].sum() for rows in epoch_batches(lengths, shape("shuffled"), 0, 0)]
    )
    assert tokens.std() == pytest.approx(4 * lengths.std(), rel=0.15)
    alike = np.array([lengths[rows].sum() for rows in epoch_batches(lengths, shape(), 0, 0)])
    assert alike.std() > 3 * tokens.std()


def test_first_seen_is_what_walking_the_batches_finds(phase) -> None:
    """Against the batches themselves, step by step, over a phase by class and one by windows."""
    rng = np.random.default_rng(0)
    lengths, labels = rng.integers(3, 30, 90), np.arange(90) % 3
    phases = (
        phase(name="contrast", loss="contrast", sampler="classes", steps=4, batch_size=8),
        phase(name="finetune", steps=30, batch_size=8),
    )
    expected, step = np.full(90, -1), 0
    for k in range(4):
        step += 1
        for row in class_batch(labels, 8, 8, 0, k):
            expected[row] = step if expected[row] < 0 else expected[row]
    for rows in [r for e in range(3) for r in epoch_batches(lengths, phases[1], 0, e)][:30]:
        step += 1
        for row in rows:
            expected[row] = step if expected[row] < 0 else expected[row]
    places = rng.permutation(90)[:40]
    assert first_seen(phases, lengths, labels, 0, places).tolist() == expected[places].tolist()


def test_a_row_that_a_short_run_never_uses_is_first_seen_at_minus_one(phase) -> None:
    seen = first_seen((phase(steps=2, batch_size=8),), np.full(50, 5), None, 0, np.arange(50))
    assert sorted(seen.tolist()) == [-1] * 34 + [1] * 8 + [2] * 8
