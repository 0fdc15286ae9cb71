"""Runs that are started at once in threads of one process are the runs of their seeds."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override


def test_threads_train_the_runs_of_their_seeds(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    def go(seed: int, name: str) -> None:
        settings = [f"data.path={marked_csv}", *quick, f"seed={seed}", "train.max_steps=4"]
        train(override(Recipe(), [*settings, "probes.skip=all"]), tmp_path / name)

    def probabilities(name: str) -> np.ndarray:
        table = parquet.read_table(tmp_path / name / "predictions.parquet")
        return np.array(table["probabilities"].to_pylist())

    for seed in (0, 1):
        go(seed, f"alone {seed}")
    threads = [threading.Thread(target=go, args=(seed, f"at once {seed}")) for seed in (0, 1)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for seed in (0, 1):
        assert np.array_equal(probabilities(f"alone {seed}"), probabilities(f"at once {seed}"))
