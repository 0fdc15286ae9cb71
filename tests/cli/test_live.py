"""The run at a glance: what the blocks mean, and that they fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdfast.cli.live import BLOCKS, MISSING, blocks, glance
from holdfast.core.records import Snapshot, Verdict

LOOK = Snapshot(
    step=0, epoch=0.0, examples_seen=0, phase="finetune", train_losses=np.ones(3),
    valid_losses=np.ones(3), train_metrics={}, valid_metrics={}, refined_loss=1.0, temperature=1.0,
    learning_rate=1e-4, gradient_norm=None, relative_update=None, distance=None, seconds=0.0,
)  # fmt: skip


def look(train: float, valid: float, step: int = 0) -> Snapshot:
    return replace(LOOK, step=step, train_losses=np.full(3, train), refined_loss=valid)


def test_both_curves_stand_on_one_scale() -> None:
    train, valid, gap = glance([look(1.0, 1.0), look(0.5, 0.75), look(0.0, 1.0)], None, 80)
    assert train.strip().split()[0] == BLOCKS[7] + BLOCKS[4] + BLOCKS[0]
    assert valid.strip().split()[0] == BLOCKS[7] + BLOCKS[5] + BLOCKS[7]
    assert train.endswith("train probe 0.000")
    assert valid.endswith("validation 1.000")
    assert gap.endswith("gap +1.000")


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("looks", [1, 2, 19, 400])
def test_no_line_is_wider_than_the_terminal(columns: int, looks: int) -> None:
    verdict = Verdict("overfit", "the validation loss is far above its best " * 4, 0.99,
                      since_step=12_345, cause="trained too long for this much data")  # fmt: skip
    history = [look(1 / (1 + i), 1.0 + i / 7, i) for i in range(looks)]
    lines = glance(history, verdict, columns)
    assert max(map(len, lines)) <= columns
    assert lines[3].startswith("  overfit since step 12345: ")


def test_of_many_looks_the_newest_and_the_first_are_shown() -> None:
    history = [look(float(i == 999), float(i == 0), i) for i in range(1000)]
    train, valid, *_ = glance(history, None, 80)
    assert train.strip()[:46].rstrip()[-1] == BLOCKS[7]
    assert valid.strip()[0] == BLOCKS[7]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_a_cross(value: float) -> None:
    train, valid, *rest = glance([look(1.0, 0.5), look(value, 0.25)], None, 80)
    assert train.strip().split()[0][-1] == MISSING
    assert train.endswith("not a number")
    assert valid.endswith("0.250")
    assert rest == []


def test_nothing_seen_is_nothing_said_and_a_flat_line_is_low() -> None:
    assert glance([], None, 80) == []
    assert blocks([0.3, 0.3], 0.3, 0.3) == BLOCKS[0] * 2
    empty: Any = glance([replace(LOOK, train_losses=np.empty(0))], None, 80)
    assert empty[0].endswith("not a number")
