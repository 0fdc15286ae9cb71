"""Actions in words: none as the name of a class, the reason once."""

from __future__ import annotations

import pytest

from holdfast.core import actions as act
from holdfast.terminal.progress import describe_actions


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (act.Stop("why"), "stopped"),
        (act.RollBack("why", 4, branch=1), "rolled back to step 4"),
        (act.ScaleLearningRate("why", 1 / 3), "learning rate × 0.333"),
        (act.SetWeightDecay("why", 0.1), "weight decay 0.1"),
        (act.SetDropout("why", 0.2), "dropout 0.2"),
        (act.Freeze("why", ("block.0", "block.1")), "frozen: block.0, block.1"),
        (act.Unfreeze("why", ("*",)), "all layers unfrozen"),
        (act.Unfreeze("why", ("block.0",)), "unfrozen: block.0"),
        (act.Extend("why", steps=5), "extended by 5 updates"),
        (act.Shorten("why", 9), "shortened to step 9"),
        (act.SwitchOn("why", "gce"), "gce switched on"),
        (
            act.SwitchOn("why", "label_smoothing", {"share": 0.1}),
            "label_smoothing switched on (share 0.1)",
        ),
        (act.StrengthenAugmentation("why"), "stronger data augmentation"),
        (act.ResetHead("why"), "last layer reset to the first evaluation"),
        (act.Reshuffle("why"), "training rows reshuffled"),
        (act.HalveBatch("why", 8, 2), "HalveBatch (train.batch_size 8, train.accumulate 2)"),
    ],
)
def test_what_was_done_stands_before_its_reason(action: act.Action, words: str) -> None:
    assert describe_actions([action]) == [f"{words}: why"]


def test_one_reason_is_said_once_and_a_trial_that_is_kept_is_its_reason() -> None:
    done = [act.RollBack("a", 0), act.ScaleLearningRate("a", 0.5), act.Shorten("b", 7)]
    assert describe_actions([*done, act.Continue("kept: this", 7)]) == [
        "rolled back to step 0, learning rate × 0.5: a",
        "shortened to step 7: b",
        "kept: this",
    ]
