"""Tests of the room ``renewal/``: a served run that knows two marks, and feedback on a third."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WORDS = [f"w{i}" for i in range(40)]
Rows = list[tuple[str, str]]


@pytest.fixture(scope="session")
def odd_rows() -> Callable[..., Rows]:
    """Texts with the mark ``odd``, which means ``yes`` and which the served run has never seen, or
    with ``bad``."""

    def make(n: int = 200, seed: int = 7, mark: str = "odd") -> Rows:
        rng = np.random.default_rng(seed)
        rows = []
        for index in range(n):
            words = [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(8, 14))]
            words.insert(int(rng.integers(0, len(words))), mark if index % 2 else "bad")
            rows.append((" ".join(words), "yes" if index % 2 else "no"))
        return rows

    return make


@pytest.fixture(scope="session")
def served_once(
    tmp_path_factory: pytest.TempPathFactory, odd_rows: Any, write_csv: Any, quick: list[str]
) -> Path:
    """A run on rows of two marks, each of which says the class."""
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    folder = tmp_path_factory.mktemp("served")
    rows = odd_rows(400, seed=1, mark="good")
    data = write_csv(folder / "reviews.csv", rows)
    settings = [f"data.path={data}", *quick, "train.epochs=4"]
    train(override(Recipe(), settings), folder / "run")
    return folder


@pytest.fixture
def served(served_once: Path, tmp_path: Path) -> Path:
    """A run of its own, to which a test may write."""
    shutil.copytree(served_once / "run", tmp_path / "served")
    return tmp_path / "served"
