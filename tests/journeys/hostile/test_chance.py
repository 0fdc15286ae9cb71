"""Labels drawn at random teach nothing, and no run on them may be called healthy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.monitor.evidence import beats_chance

CLASSES = ("a", "b", "c", "d", "e")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_labels_are_never_healthy(
    holdfast: Any, marked_rows: Any, write_csv: Any, sets: list[str], tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    texts = [text for text, _ in marked_rows(400, seed=seed)]
    drawn = rng.choice(CLASSES, len(texts))
    path = write_csv(tmp_path / "a.csv", list(zip(texts, drawn.tolist(), strict=True)))
    done = holdfast("train", path, "--out", "run", "--json", *sets, "--seed", seed)
    assert done.code == 0, done.err
    assert json.loads(done.out)["verdict"]["label"] not in ("healthy", "learning")


def test_knowing_nothing_rarely_looks_like_knowing_something() -> None:
    """Over many draws of answers that know nothing, beside the two tails of 2.5 %."""
    rng, said, runs = np.random.default_rng(0), 0, 2000
    for _ in range(runs):
        labels = rng.integers(0, 5, 60)
        logits = rng.normal(size=(60, 5)) * 0.3
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(60), labels]
        said += beats_chance(logits.argmax(1) == labels, losses, labels)
    assert said / runs < 0.05


def test_knowing_something_shows() -> None:
    rng, said, runs = np.random.default_rng(0), 0, 200
    for _ in range(runs):
        labels = rng.integers(0, 5, 60)
        logits = rng.normal(size=(60, 5)) * 0.5
        logits[np.arange(60), labels] += 1.5
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(60), labels]
        said += beats_chance(logits.argmax(1) == labels, losses, labels)
    assert said / runs > 0.95
