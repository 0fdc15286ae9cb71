"""Histories by hand: mean losses in, snapshots out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from holdfast.core.records import Snapshot
from holdfast.stats.temperature import best_temperature, losses_at

CHANCE = float(np.log(2))


def make_snapshot(step: int, train: np.ndarray, valid: np.ndarray, **more: Any) -> Snapshot:
    plain: dict[str, Any] = {
        "step": step,
        "epoch": step / 100,
        "examples_seen": step * 16,
        "phase": "fit",
        "train_losses": train,
        "valid_losses": valid,
        "train_metrics": {},
        "valid_metrics": {},
        "refined_loss": float("nan"),
        "temperature": 1.0,
        "learning_rate": 3e-5,
        "gradient_norm": None,
        "relative_update": None,
        "distance": None,
        "seconds": 0.0,
    }
    return Snapshot(**(plain | more))


def make_history(
    train: Sequence[float],
    valid: Sequence[float],
    n: int = 400,
    noise: float = 0.08,
    seed: int = 0,
    m: int | None = None,
    **more: Sequence[Any],
) -> list[Snapshot]:
    """Mean losses in; each row keeps its difficulty from look to look. ``more`` are fields of the
    snapshots, a value a look."""
    rng = np.random.default_rng(seed)
    rows_t, rows_v = rng.gamma(4, 0.25, size=m or n), rng.gamma(4, 0.25, size=n)

    def rows(hard: np.ndarray, mean: float) -> np.ndarray:
        own = hard / hard.mean() * mean + rng.normal(size=len(hard)) * noise * mean
        return np.asarray(np.maximum(own, 0.0))

    return [
        make_snapshot(
            100 * i,
            rows(rows_t, t),
            rows(rows_v, v),
            **{name: values[i] for name, values in more.items()},
        )
        for i, (t, v) in enumerate(zip(train, valid, strict=True))
    ]


def make_classified(
    scales: Sequence[float],
    quality: Sequence[float],
    n: int = 400,
    train: Sequence[float] | None = None,
) -> list[Snapshot]:
    """Two classes with logits: models that differ in confidence (scale) and knowledge (quality)."""
    rng = np.random.default_rng(0)
    labels, base = rng.integers(0, 2, n), rng.normal(size=(n, 2))
    made = []
    for i, (scale, good) in enumerate(zip(scales, quality, strict=True)):
        logits = base + rng.normal(size=(n, 2)) * 0.05
        logits[np.arange(n), labels] += good
        logits = (scale * logits).astype(np.float32)
        mean = train[i] if train is not None else CHANCE / (1 + i)
        probe = np.maximum(0, mean + rng.normal(size=n) * 0.01)
        made.append(
            make_snapshot(
                100 * i,
                probe,
                losses_at(logits, labels, 1.0),
                valid_logits=logits,
                valid_correct=logits.argmax(1) == labels,
                train_correct=probe < CHANCE,
                temperature=best_temperature(logits, labels)[0],
            )
        )
    return made


def without_logits(history: Sequence[Snapshot]) -> list[Snapshot]:
    return [dataclasses.replace(snapshot, valid_logits=None) for snapshot in history]


@pytest.fixture(scope="session")
def snapshot() -> Callable[..., Snapshot]:
    return make_snapshot


@pytest.fixture(scope="session")
def history() -> Callable[..., list[Snapshot]]:
    return make_history


@pytest.fixture(scope="session")
def classified() -> Callable[..., list[Snapshot]]:
    return make_classified


@pytest.fixture(scope="session")
def raw() -> Callable[..., list[Snapshot]]:
    return without_logits
