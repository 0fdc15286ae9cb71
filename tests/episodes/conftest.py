"""A network of two layers over vectors, and tasks whose classes are clouds of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.plugins.episodes.methods import FeatureReader
from holdfast.plugins.episodes.tasks import FewShotTask, TaskPool


class Small(nn.Module):
    """``features`` of vectors; a head that nothing here uses."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        middle: list[nn.Module] = [nn.BatchNorm1d(8)] if norm else []
        self.body = nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), nn.Linear(8, 5))
        self.head = nn.Linear(5, 2)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(x)
        return found


@dataclass
class Rows:
    x: torch.Tensor

    @property
    def lengths(self) -> Any:
        return np.ones(len(self.x), dtype=int)


def collate(rows: Rows, positions: Any) -> dict[str, torch.Tensor]:
    return {"x": rows.x[torch.as_tensor(positions)], "labels": torch.zeros(len(positions))}


@pytest.fixture
def small() -> Callable[..., tuple[FeatureReader, TaskPool]]:
    """A reader and a pool of two tasks with four classes of 12 rows; two features of six tell."""

    def make(norm: bool = False, seed: int = 0) -> tuple[FeatureReader, TaskPool]:
        rng = np.random.default_rng(seed)
        tasks, rows, start = [], [], 0
        for t in range(2):
            parts = []
            for _ in range(4):
                centre = np.r_[rng.normal(0, 1.5, 2), np.zeros(4)]
                rows.append(centre + rng.standard_normal((12, 6)) * [0.3, 0.3, 2, 2, 2, 2])
                parts.append(np.arange(start, start + 12))
                start += 12
            tasks.append(FewShotTask(f"t{t}", tuple("abcd"), tuple(parts)))
        x = torch.from_numpy(np.concatenate(rows)).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Small(norm)
        reader = FeatureReader(network.eval(), collate, Rows(x), torch.device("cpu"), 0.7)
        return reader, TaskPool(tuple(tasks))

    return make
