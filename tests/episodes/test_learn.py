"""The loop over training episodes: what is kept, and that a killed one ends as an unbroken one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.plugins.episodes.learn import EpisodePlan, MethodResult, learn
from holdfast.plugins.episodes.methods import Embedding, FeatureReader, Prototypes
from holdfast.plugins.episodes.tasks import EpisodeShape, TaskPool
from holdfast.training.checkpoint import CheckpointStore

SHAPE = EpisodeShape(3, 2, 4)
Small = Callable[..., tuple[FeatureReader, TaskPool]]


def course(pool: TaskPool, updates: int = 12, looks: int = 3, rate: float = 0.02) -> EpisodePlan:
    probe, judge = (pool.episodes(SHAPE, n, 0, name) for n, name in ((6, "probe"), (20, "valid")))
    return EpisodePlan(pool, SHAPE, updates, rate, looks, probe, judge, 0)


def method_of(name: str, pool: TaskPool) -> Any:
    return {
        "prototypes": lambda: Prototypes(),
        "embedding": lambda: Embedding(pool, 5, "centroid"),
    }[name]()


@pytest.mark.parametrize("name", ["prototypes", "embedding"])
def test_a_course_that_is_killed_and_goes_on_ends_as_one_that_was_not(
    name: str, small: Small, tmp_path: Path, killed: type[BaseException]
) -> None:
    reader, pool = small(norm=True)
    whole = learn(method_of(name, pool), reader, course(pool), CheckpointStore(None))
    state = {k: v.clone() for k, v in reader.network.state_dict().items()}

    reader, pool = small(norm=True)
    method, store = method_of(name, pool), CheckpointStore(tmp_path, 0)
    update, seen = method.update, []

    def dies(step: Any) -> float:
        seen.append(step.index)
        if len(seen) == 7:
            raise killed
        return float(update(step))

    method.update = dies
    with pytest.raises(killed):
        learn(method, reader, course(pool), store)
    reader, pool = small(norm=True)
    again = method_of(name, pool)
    update = again.update
    again.update = lambda step: seen.append(step.index) or update(step)
    found = learn(again, reader, course(pool), CheckpointStore(tmp_path, 0))
    # Nothing is done twice but the update that was killed.
    assert seen == [*range(7), *range(6, 12)]
    assert found.best_step == whole.best_step
    for one, other in zip(found.evaluations, whole.evaluations, strict=True):
        assert one.step == other.step
        assert one.valid_loss == other.valid_loss
        assert one.update_loss == other.update_loss
        assert np.array_equal(one.accuracy, other.accuracy)
    after = reader.network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in state.items())
    # A finished course is read, and nothing is learned again.
    third = learn(again, small(norm=True)[0], course(pool), CheckpointStore(tmp_path, 0))
    assert len(seen) == 13
    assert all(torch.equal(third.state[key], found.state[key]) for key in found.state)


def test_the_best_look_is_kept_and_the_earliest_of_equals(small: Small) -> None:
    reader, pool = small()
    found = learn(Prototypes(), reader, course(pool, 40, 8), CheckpointStore(None))
    best = max(look.valid_accuracy for look in found.evaluations)
    assert found.best.valid_accuracy == best
    assert found.best_step == min(k.step for k in found.evaluations if k.valid_accuracy == best)
    for name, value in reader.network.state_dict().items():
        assert torch.equal(value, found.state[name])
    assert [look.step for look in found.evaluations] == [0, 5, 10, 15, 20, 25, 30, 35, 40]


@pytest.mark.parametrize("name", ["prototypes", "embedding"])
def test_each_method_learns_what_tells_the_classes(name: str, small: Small) -> None:
    reader, pool = small(seed=1)
    found = learn(method_of(name, pool), reader, course(pool, 100, 4, 0.03), CheckpointStore(None))
    assert found.best.valid_accuracy > found.evaluations[0].valid_accuracy + 0.1


def test_rates_rise_for_a_tenth_and_then_fall_to_nothing(small: Small) -> None:
    _, pool = small()
    shares = [course(pool, 50).rate_factor(i) for i in range(50)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a > b > 0 for a, b in itertools.pairwise(shares[4:]))
    assert shares[-1] < 0.03


def test_what_is_kept_survives_its_plain_form(small: Small) -> None:
    reader, pool = small()
    found = learn(Prototypes(), reader, course(pool, 4, 2), CheckpointStore(None))
    again = MethodResult.from_plain(found.to_plain())
    assert again.best_step == found.best_step
    assert [k.step for k in again.evaluations] == [k.step for k in found.evaluations]
    assert np.array_equal(again.best.accuracy, found.best.accuracy)
