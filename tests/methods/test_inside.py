"""What lies between a text and its answer, held to a teacher's: against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import entropy
from torch import nn

from holdfast.methods.teacher import ModuleOutputs, hidden_state_distance, relation_distance

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])


def states(width: int, seed: int) -> torch.Tensor:
    return torch.randn(2, 4, width, generator=torch.Generator().manual_seed(seed))


def test_states_of_one_width_are_compared_over_real_tokens() -> None:
    first, second = states(6, 0), states(6, 1)
    found = hidden_state_distance(first, second, MASK)
    for i, tokens in enumerate((3, 4)):
        gap = (first[i, :tokens] - second[i, :tokens]).numpy()
        assert found[i].item() == pytest.approx((gap**2).mean(), rel=1e-5)


def test_states_of_other_widths_are_compared_by_their_cosines() -> None:
    first, second = states(6, 0), states(10, 1)
    found = hidden_state_distance(first, second, MASK)
    for i, tokens in enumerate((3, 4)):
        tables = []
        for one in (first, second):
            x = one[i, :tokens].numpy()
            lengths = np.linalg.norm(x, axis=1)
            tables.append(x @ x.T / np.outer(lengths, lengths))
        assert found[i].item() == pytest.approx(((tables[0] - tables[1]) ** 2).mean(), rel=1e-4)
    # Turned and stretched states are as alike among one another as before.
    turned = torch.linalg.qr(states(6, 2)[0, :, :].T @ states(6, 3)[0])[0]
    wide = torch.cat([3 * first @ turned, torch.zeros(2, 4, 2)], dim=-1)
    assert hidden_state_distance(first, wide, MASK).max().item() < 1e-10


def test_relations_are_compared_by_their_divergence() -> None:
    first, second = states(8, 0), states(4, 1)
    found = relation_distance(first, second, MASK, heads=2)
    for i, tokens in enumerate((3, 4)):
        each = []
        for head in range(2):
            tables = []
            for one, width in ((first, 4), (second, 2)):
                x = one[i, :tokens, head * width : (head + 1) * width].numpy().astype(float)
                tables.append(np.exp(log_softmax(x @ x.T / np.sqrt(width), axis=1)))
            each.append(entropy(tables[0], tables[1], axis=1))
        assert found[i].item() == pytest.approx(np.mean(each), rel=1e-4)
    assert (relation_distance(first, first, MASK, 2) == 0).all()
    assert (hidden_state_distance(first, first, MASK) == 0).all()


def test_what_is_heard_is_that_of_the_last_pass_and_of_learning_alone() -> None:
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    heard = ModuleOutputs({"first": layers[0]})
    x = torch.ones(2, 3)
    layers(x)
    torch.testing.assert_close(heard.take()["first"], layers[0](x))
    heard.take()
    layers.eval()
    layers(x)
    assert heard.take() == {}
