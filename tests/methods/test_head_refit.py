"""The head as a linear probe: at the start, and while contrast moves the features."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from holdfast.methods.closed_form import HeadRefit
from holdfast.models.probes.probe import Probe


class Observer:
    def features(self, network: object, examples: object, positions: np.ndarray) -> np.ndarray:
        return np.ones((len(positions), 3))

    def remember_features(self, examples: object, features: np.ndarray) -> None:
        assert len(features) == 4


def run(step: int, head: str) -> SimpleNamespace:
    class Rows:
        labels = np.array([0, 1, 0, 1])
        rows = lengths = np.arange(4)

        def take(self, positions: np.ndarray) -> Rows:
            raise NotImplementedError

        def __len__(self) -> int:
            return 4

    return SimpleNamespace(
        step=step,
        phase=SimpleNamespace(head=head),
        job=SimpleNamespace(train=Rows(), added_examples=None),
        network=SimpleNamespace(head=torch.nn.Linear(3, 2)),
        observer=Observer(),
    )


def fit(features: np.ndarray, labels: np.ndarray) -> Probe:
    assert features.shape == (4, 3)
    assert labels.tolist() == [0, 1, 0, 1]
    return Probe(np.arange(6.0).reshape(2, 3), np.array([0.5, -0.5]), 0.1, "a test says so")


def is_probe(network: SimpleNamespace) -> bool:
    weight, bias = network.head.weight.detach(), network.head.bias.detach()
    return weight.tolist() == [[0, 1, 2], [3, 4, 5]] and bias.tolist() == [0.5, -0.5]


@pytest.mark.parametrize(
    ("first", "step", "head", "refitted"),
    [
        (True, 0, "train", True),
        (True, 0, "refit", True),
        (False, 0, "train", False),
        (True, 7, "train", False),
        (False, 7, "refit", True),
        (True, 7, "refit", True),
    ],
)
def test_when_the_head_becomes_the_probe(first: bool, step: int, head: str, refitted: bool) -> None:
    state = run(step, head)
    HeadRefit(fit, first).snapshot_due(state)
    assert is_probe(state.network) == refitted


def test_the_first_probe_is_kept_as_the_baseline_even_when_it_is_not_used() -> None:
    refit = HeadRefit(fit, first=False)
    refit.snapshot_due(run(0, "train"))
    assert refit.baseline is not None
    assert refit.baseline["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert refit.because == "a test says so"


def test_later_probes_do_not_replace_the_baseline_and_a_resume_keeps_it() -> None:
    refit = HeadRefit(fit, first=True)
    refit.snapshot_due(run(0, "refit"))
    again = HeadRefit(lambda x, y: Probe(np.zeros((2, 3)), np.zeros(2), 1.0, "other"), first=True)
    again.load_state_dict(refit.state_dict())
    again.snapshot_due(run(5, "refit"))
    assert again.baseline is not None
    assert again.baseline["bias"].tolist() == [0.5, -0.5]
    assert again.because == "a test says so"


def test_the_first_fit_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("holdfast.methods.closed_form.time.perf_counter", lambda: now[0])

    def slow(features: np.ndarray, labels: np.ndarray) -> Probe:
        now[0] += 3.0 if not now[0] else 1.0
        return fit(features, labels)

    refit = HeadRefit(slow, first=True)
    refit.snapshot_due(run(0, "refit"))
    refit.snapshot_due(run(7, "refit"))
    assert refit.seconds == 3.0
