"""The mean of weights, and which members a greedy soup takes."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from holdfast.models.soup import distance, greedy_soup, mean_state, other_shape


def test_the_mean_is_numpys_and_whole_numbers_stay() -> None:
    nets = []
    for seed in range(3):
        torch.manual_seed(seed)
        nets.append(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).half())
        nets[-1][1].num_batches_tracked.fill_(seed)
    found = mean_state(net.state_dict() for net in nets)
    for name, tensor in found.items():
        each = [net.state_dict()[name] for net in nets]
        assert tensor.dtype == each[0].dtype
        if tensor.is_floating_point():
            wanted = np.mean([one.double().numpy() for one in each], axis=0).astype(np.float16)
            np.testing.assert_array_equal(tensor.numpy(), wanted)
        else:
            assert int(tensor) == 0
    # The soup of one is that one, and nothing of a member was changed.
    alone = mean_state([nets[1].state_dict()])
    assert all(torch.equal(alone[n], t) for n, t in nets[1].state_dict().items())


def test_models_of_one_start_lie_near_and_independent_ones_far() -> None:
    torch.manual_seed(0)
    first, other = nn.Linear(64, 64), nn.Linear(64, 64)
    near = {n: t + 0.01 * torch.randn_like(t) * t.std() for n, t in first.state_dict().items()}
    assert distance(first.state_dict(), near) < 0.05
    assert distance(first.state_dict(), other.state_dict()) > 1
    # One layer of large constants hides nothing.
    big = {"constant": 1e4 * torch.eye(64)}
    assert (
        distance(
            {**first.state_dict(), **big, "x": first.weight},
            {**other.state_dict(), **big, "x": other.weight},
        )
        > 1
    )
    assert other_shape(first.state_dict(), nn.Linear(64, 3).state_dict()) == "bias"
    assert other_shape(first.state_dict(), near) is None


def test_a_soup_takes_in_whoever_does_not_harm_from_the_best_on() -> None:
    losses = {(0,): 0.5, (1,): 0.3, (2,): 0.4, (3,): 0.9}
    losses |= {(1, 2): 0.25, (0, 1, 2): 0.26, (1, 2, 3): 0.25}
    asked = []

    def loss_of(places: list[int]) -> float:
        asked.append(tuple(places))
        return losses[tuple(places)]

    members, loss = greedy_soup([losses[(i,)] for i in range(4)], loss_of)
    assert asked == [(1, 2), (0, 1, 2), (1, 2, 3)]
    assert (members, loss) == ((1, 2, 3), 0.25)
    # Never worse than the best alone, whatever the soups are like.
    rng = np.random.default_rng(0)
    table = {
        c: float(rng.random()) for k in range(1, 5) for c in itertools.combinations(range(4), k)
    }
    members, loss = greedy_soup([table[(i,)] for i in range(4)], lambda p: table[tuple(p)])
    assert loss <= min(table[(i,)] for i in range(4))
    assert loss == table[members]
