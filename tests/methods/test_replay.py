"""General rows beside a run's own: which ones, how many, and what stays as it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from holdfast.core.updates import RowPool
from holdfast.methods.replay import Replay, ReplaySource
from holdfast.training.plan import EveryRow


@dataclass(frozen=True)
class Rows:
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)


def pool(n: int = 50, batch: int = 8) -> RowPool:
    return RowPool(Rows(np.full(n, 20)), batch, 3, "finetune")


def test_own_rows_come_as_they_would_without() -> None:
    alone, beside = EveryRow(), Replay(0.5).add_general_rows(EveryRow(), Rows(np.full(7, 20)))
    for step in (0, 3, 6, 7, 20):
        assert beside.draw(pool(), step).rows.tolist() == alone.draw(pool(), step).rows.tolist()
    assert beside.steps_per_epoch(pool()) == alone.steps_per_epoch(pool())


@pytest.mark.parametrize("share", [0.03, 0.25, 1.0, 3.0])
@pytest.mark.parametrize("length", [5, 20, 80])
def test_the_share_of_the_work_is_kept_in_the_long_run(share: float, length: int) -> None:
    source = ReplaySource(EveryRow(), Rows(np.full(30, length)), share)
    draws = [source.draw(pool(), step) for step in range(400)]
    general = sum(length * len(d.auxiliary) for d in draws if d.auxiliary is not None)
    # Of whole batches: the last of an epoch is smaller.
    assert general / (400 * 8 * 20) == pytest.approx(share, rel=0.05)


def test_every_general_row_comes_once_before_one_comes_again() -> None:
    source = ReplaySource(EveryRow(), Rows(np.full(9, 20)), 0.4)
    seen = np.concatenate(
        [d.auxiliary.places for d in (source.draw(pool(), s) for s in range(200)) if d.auxiliary]
    )
    for turn in range(len(seen) // 9):
        assert sorted(seen[9 * turn : 9 * turn + 9]) == list(range(9))
    assert seen[:9].tolist() != seen[9:18].tolist()


def test_they_are_no_training_rows() -> None:
    source = ReplaySource(EveryRow(), Rows(np.full(9, 20)), 0.5)
    beside = source.draw(pool(), 0).auxiliary
    assert beside is not None
    assert beside.rows.min() >= 50
    assert beside.places is not None
    assert (beside.rows - 50).tolist() == beside.places.tolist()
