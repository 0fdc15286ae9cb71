"""Actions in words: none as the name of a class, the reason once."""

from __future__ import annotations

import pytest

from holdfast.core import actions as act
from holdfast.terminal.progress import describe_actions


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (act.RollBack("why", 4, branch=1), "back to step 4"),
        (act.ScaleLearningRate("why", 1 / 3), "learning rate × 0.333"),
        (act.SetWeightDecay("why", 0.1), "weight decay 0.1"),
        (act.SetDropout("why", 0.2), "dropout 0.2"),
        (act.Freeze("why", ("block.0", "block.1")), "frozen: block.0, block.1"),
        (act.Unfreeze("why", ("*",)), "every layer learns"),
        (act.Unfreeze("why", ("block.0",)), "unfrozen: block.0"),
        (act.Extend("why", steps=5), "5 updates more"),
        (act.Shorten("why", 9), "to end at step 9"),
        (act.SwitchOn("why", "gce"), "gce switched on"),
        (
            act.SwitchOn("why", "label_smoothing", {"share": 0.1}),
            "label_smoothing switched on (share 0.1)",
        ),
        (act.StrengthenAugmentation("why"), "the rows in stronger forms"),
        (act.ResetHead("why"), "the last layer as at the first look"),
        (act.Reshuffle("why"), "the rows in another order"),
        (act.HalveBatch("why", 8, 2), "HalveBatch (train.batch_size 8, train.accumulate 2)"),
    ],
)
def test_what_was_done_stands_before_its_reason(action: act.Action, words: str) -> None:
    assert describe_actions([action]) == [f"{words}: why"]


def test_one_reason_is_said_once_and_a_trial_that_is_kept_is_its_reason() -> None:
    done = [act.RollBack("a", 0), act.ScaleLearningRate("a", 0.5), act.Shorten("b", 7)]
    assert describe_actions([*done, act.Continue("kept: this", 7)]) == [
        "back to step 0, learning rate × 0.5: a",
        "to end at step 7: b",
        "kept: this",
    ]
