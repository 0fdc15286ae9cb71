"""The head that is offered at the end: of which state, by which rows, and when none is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.events import Offers
from holdfast.methods.closed_form import MOST_ROWS, RefittedHead
from holdfast.models.probes.head_fit import fit_head
from holdfast.models.probes.probe import ExtraRows

ROWS = np.random.default_rng(0).normal(size=(30, 4))
LABELS = np.arange(30) % 3


class Examples:
    lengths = None

    def take(self, positions: np.ndarray) -> Examples:
        raise NotImplementedError

    def __init__(self, rows: np.ndarray, labels: np.ndarray) -> None:
        self.rows, self.labels = rows, labels
        self.weights = np.full(len(rows), 2.0)

    def __len__(self) -> int:
        return len(self.rows)


class Run:
    """A run whose features are its rows times a scale, which is all that it learns."""

    def __init__(self, added: Any = None, step: int = 7, rows: int = 30) -> None:
        self.scale = 1.0
        self.best = SimpleNamespace(step=step, tensors={"scale": torch.tensor(5.0)})
        self.plan = SimpleNamespace(seed=0)
        self.phase = SimpleNamespace(head="train", terms=(), source=SimpleNamespace())
        self.network = SimpleNamespace(head=torch.nn.Linear(4, 3))
        self.observer = SimpleNamespace(features=lambda net, e, at: self.scale * e.rows[at])
        train = Examples(np.resize(ROWS, (rows, 4)), np.resize(LABELS, rows))
        task = SimpleNamespace(weights=lambda examples, at: np.ones(len(at)))
        self.job = SimpleNamespace(train=train, added_examples=added, task=task)

    def load_tensors(self, tensors: Any) -> None:
        self.scale = float(tensors["scale"])


def test_the_head_is_fitted_to_the_features_of_the_kept_state() -> None:
    run, one = Run(), RefittedHead()
    assert isinstance(one, Offers)
    offer: Any = one.offer(run, None)  # type: ignore[arg-type]
    wanted = fit_head(5 * ROWS, LABELS, classes=3, seed=0)
    assert offer.tensors["head.weight"].numpy() == pytest.approx(wanted.weight, abs=1e-5)
    assert offer.tensors["head.bias"].numpy() == pytest.approx(wanted.bias, abs=1e-5)
    assert offer.tensors["scale"] == 5
    assert offer.step == 7
    assert wanted.because in offer.composition


def test_added_rows_are_fitted_too() -> None:
    added = Examples(ROWS[:6] + 1, LABELS[:6])
    offer: Any = RefittedHead().offer(Run(added), None)  # type: ignore[arg-type]
    beside = ExtraRows(5 * (ROWS[:6] + 1), LABELS[:6], np.full(6, 2.0))
    wanted = fit_head(5 * ROWS, LABELS, classes=3, seed=0, extra_rows=beside)
    assert offer.tensors["head.weight"].numpy() == pytest.approx(wanted.weight, abs=1e-5)


@pytest.mark.parametrize(
    ("run", "why"),
    [(Run(step=0), "the linear probe"), (Run(rows=MOST_ROWS + 1), "are more than 20,000")],
)
def test_none_is_fitted_where_it_would_be_the_same_or_cost_too_much(run: Run, why: str) -> None:
    assert why in str(RefittedHead().offer(run, None))  # type: ignore[arg-type]


def test_none_is_fitted_where_rows_weigh_differently() -> None:
    run = Run()
    run.job.task.weights = lambda examples, at: np.arange(1.0, 1 + len(at))
    assert "other losses, draws or weights" in str(RefittedHead().offer(run, None))  # type: ignore[arg-type]
