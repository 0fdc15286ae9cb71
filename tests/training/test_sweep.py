"""A sweep of the rate: what it takes, what it compares, and that it leaves nothing behind."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.training.sweep import sweep

RATES = [float(rate) for rate in np.geomspace(1e-6, 1.0, 30)]


def never(made: Any) -> bool:
    return False


def test_a_rate_of_nothing_changes_nothing_to_the_bit(job) -> None:
    """Rows and dropout are those of the start, so that the difference is what updates did."""
    made = sweep(job(dropout=0.5), 0, [1e-30] * 8, never)
    assert len(made) == 8
    assert [one.loss for one in made] == [one.initial_loss for one in made]
    assert len({one.loss for one in made}) == 8


def test_each_update_takes_its_rate_in_every_group(job, phase, recorder) -> None:
    seen: list[set[float]] = []
    recorder.at["step_done"] = lambda run: seen.append(
        {group["lr"] / group["base_lr"] for group in run.optimizer.param_groups}
    )
    shape = phase(learning_rate=0.02, head_learning_rate=0.04, steps=3)
    made = sweep(job(phases=(shape,), listeners=(recorder,)), 0, RATES[:9], never)
    assert [one.learning_rate for one in made] == RATES[:9]
    assert all(len(scales) == 1 for scales in seen)
    assert [next(iter(scales)) for scales in seen] == pytest.approx([r / 0.02 for r in RATES[:9]])


def test_the_loss_is_that_of_the_next_rows_after_the_update(job) -> None:
    """By plain SGD on a copy of the network, whose every update is written out here."""
    built = job()
    network, task = copy.deepcopy(built.network), built.task
    made = sweep(plain_sgd(built), 0, [0.3, 0.5], never)
    pool = built.plan.phases[0].pool(built.train, built.plan.seed)
    draws = [built.plan.phases[0].source.draw(pool, step).rows for step in range(3)]
    learning = [p for p in network.parameters() if p.requires_grad]

    def loss(rows: np.ndarray) -> torch.Tensor:
        batch = task.collate(built.train, rows)
        return task.losses(task.forward(network.train(), batch), batch).mean()

    starts = [float(loss(rows).detach()) for rows in draws]
    for step, rate in enumerate([0.3, 0.5]):
        gradients = torch.autograd.grad(loss(draws[step]), learning)
        norm = math.sqrt(sum(float(g.norm()) ** 2 for g in gradients))
        with torch.no_grad():
            for parameter, gradient in zip(learning, gradients, strict=True):
                parameter.sub_(rate * gradient / max(1.0, norm))
        assert made[step].initial_loss == pytest.approx(starts[step + 1], rel=1e-5)
        assert made[step].loss == pytest.approx(float(loss(draws[step + 1]).detach()), rel=1e-5)


def plain_sgd(built: Any) -> Any:
    return replace(built, optimizer=lambda name, groups: torch.optim.SGD(groups, lr=1.0))


def test_it_ends_when_enough_is_seen_or_a_loss_is_not_finite(job) -> None:
    assert len(sweep(job(), 0, RATES, lambda made: len(made) == 4)) == 4
    wild = sweep(job(), 0, [1e-3, 1e-2, 1e30, 1e38, 1e38, 1e38], never)
    assert 2 <= len(wild) < 6
    assert all(math.isfinite(one.loss) for one in wild)


def test_the_generators_are_where_they_were_and_a_second_sweep_is_the_same(job) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = sweep(job(dropout=0.3), 0, RATES, never)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    assert sweep(job(dropout=0.3), 0, RATES, never) == one
