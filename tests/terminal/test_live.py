"""The run at a glance: what the blocks mean, and that they fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from holdfast.core.records import Snapshot, Verdict
from holdfast.terminal.evaluations import BLOCKS, NOT_FINITE, blocks, curve_summary

LOOK = Snapshot(
    step=0,
    epoch=0.0,
    examples_seen=0,
    phase="finetune",
    train_losses=np.ones(3),
    valid_losses=np.ones(3),
    train_metrics={},
    valid_metrics={},
    refined_loss=1.0,
    temperature=1.0,
    learning_rate=1e-4,
    gradient_norm=None,
    relative_update=None,
    distance=None,
    seconds=0.0,
    valid_logits=np.zeros((3, 2)),
)


def look(train: float, valid: float, step: int = 0, right: float | None = None) -> Snapshot:
    metrics = {} if right is None else {"accuracy": right}
    return replace(
        LOOK,
        step=step,
        train_losses=np.full(3, train),
        refined_loss=valid,
        valid_losses=np.full(3, valid),
        valid_metrics=metrics,
    )


def test_the_losses_stand_on_one_scale_under_their_names() -> None:
    raw = [
        replace(look(t, v), valid_losses=np.full(3, r))
        for t, v, r in ((1.0, 1.0, 1.0), (0.5, 0.75, 1.0), (0.0, 1.0, 0.75))
    ]
    train, valid, tempered = curve_summary(raw, None, 80)
    assert train.split() == ["training", "loss", "0.000", BLOCKS[7] + BLOCKS[4] + BLOCKS[0]]
    assert valid.split() == ["validation", "loss", "0.750", BLOCKS[7] + BLOCKS[7] + BLOCKS[5]]
    assert tempered.split()[-2:] == ["1.000", BLOCKS[7] + BLOCKS[5] + BLOCKS[7]]
    assert tempered.strip().startswith("calibrated loss")
    starts = {line.rindex("  ") for line in (train, valid, tempered)}
    assert len(starts) == 1, "the blocks begin in one column"


def test_what_is_right_has_a_line_and_a_scale_of_its_own() -> None:
    lines = curve_summary([look(1.0, 1.0, right=0.5), look(0.5, 0.9, right=0.75)], None, 80)
    assert lines[3].split() == ["validation", "accuracy", "75.0", "%", BLOCKS[0] + BLOCKS[7]]


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("looks", [1, 2, 19, 400])
def test_no_line_is_wider_than_the_terminal(columns: int, looks: int) -> None:
    verdict = Verdict(
        "overfit",
        "the validation loss is far above its best " * 4,
        0.99,
        since_step=12_345,
        cause="trained too long for this much data",
    )
    history = [look(1 / (1 + i), 1.0 + i / 7, i, right=0.5) for i in range(looks)]
    lines = curve_summary(history, verdict, columns)
    assert max(map(len, lines)) <= columns
    assert lines[4].startswith("  Overfitting since step 12345: ")


def test_of_many_looks_the_newest_and_the_first_are_shown() -> None:
    history = [look(float(i == 999), float(i == 0), i) for i in range(1000)]
    train, valid, *_ = curve_summary(history, None, 80)
    assert train.rstrip()[-1] == BLOCKS[7]
    assert valid.split()[-1][0] == BLOCKS[7]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_a_cross(value: float) -> None:
    train, valid, _ = curve_summary([look(1.0, 0.5), look(value, 0.25)], None, 80)
    assert train.split()[-1][-1] == NOT_FINITE
    assert "NaN" in train
    assert valid.split()[2] == "0.250"


def test_nothing_seen_is_nothing_said_and_a_flat_line_is_low() -> None:
    assert curve_summary([], None, 80) == []
    assert blocks([0.3, 0.3], 0.3, 0.3) == BLOCKS[0] * 2
    empty = curve_summary([replace(LOOK, train_losses=np.empty(0))], None, 80)
    assert "NaN" in empty[0]
