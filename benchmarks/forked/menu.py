"""The actions that are legal at a look: what each changes, and none that would change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.actions import Action, Extend, RollBack, ScaleLearningRate, SetDropout, SwitchOn
from holdfast.core.records import Snapshot, Verdict

# In place of the run as it is: these take no continuation of their own.
CONTINUE, STOP = "continue", "stop"
BECAUSE = "an action at a fork"
DROPOUT, SHARE, MORE = 0.3, 0.2, 0.5


@dataclass(frozen=True)
class Fork:
    """What the menu is made of: the history up to the look, its verdict, the state that is kept,
    the rate that the plan peaks at with the ``usual`` ones, the planned ``steps``, and whether
    there is a fine-tuning, which alone can be joined."""

    history: Sequence[Snapshot]
    verdict: Verdict
    kept: int
    rate: float
    usual: tuple[float, float] | None
    steps: int
    finetunes: bool

    @property
    def now(self) -> int:
        return self.history[-1].step


def lower(fork: Fork) -> tuple[Action, ...]:
    """A third of the rate, or down to the middle of the usual region from above it."""
    return (ScaleLearningRate(BECAUSE, min(1 / 3, _towards(fork))),)


def higher(fork: Fork) -> tuple[Action, ...]:
    """Three times the rate, or up to the middle of the usual region from below it."""
    return (ScaleLearningRate(BECAUSE, max(3.0, _towards(fork))),)


def _towards(fork: Fork) -> float:
    """The factor to the middle of the usual region; 1 inside it."""
    if fork.usual is None or fork.usual[0] <= fork.rate <= fork.usual[1]:
        return 1.0
    return float(np.sqrt(fork.usual[0] * fork.usual[1])) / fork.rate


def back_lower(fork: Fork) -> tuple[Action, ...]:
    """Back to the state that is kept, and on from there at the lower rate."""
    return (RollBack(BECAUSE, fork.kept), *lower(fork))


def dropout(fork: Fork) -> tuple[Action, ...]:
    return (SetDropout(BECAUSE, DROPOUT),)


def robust(fork: Fork) -> tuple[Action, ...]:
    """Targets that a wrong label pulls less at."""
    return (SwitchOn(BECAUSE, "label_smoothing", {"share": SHARE}),)


def longer(fork: Fork) -> tuple[Action, ...]:
    """Half as many steps again."""
    return (Extend(BECAUSE, steps=max(1, round(MORE * fork.steps))),)


MENU: Mapping[str, Callable[[Fork], tuple[Action, ...]]] = {
    "lower": lower,
    "higher": higher,
    "back, lower": back_lower,
    "dropout": dropout,
    "robust": robust,
    "longer": longer,
}


def menu(fork: Fork) -> dict[str, tuple[Action, ...]]:
    """At most six continuations beside going on and stopping; back to the present look is no other
    than a lower rate."""
    return {
        name: make(fork)
        for name, make in MENU.items()
        if not (name == "back, lower" and fork.kept == fork.now)
        and not (name == "robust" and not fork.finetunes)
    }


def kind_of(taken: Sequence[Any], now: int) -> str:
    """The entry that advice at the step ``now`` comes nearest to: by what it changes, in the order
    of its weight. Back to the present look is going on from here; a later end is cut by what a
    run may take in all, which is no change of its own."""
    by_class = {
        type(one).__name__: one
        for one in taken
        if not (isinstance(one, RollBack) and one.to_step == now)
    }
    if "Stop" in by_class:
        return STOP
    scale = by_class.get("ScaleLearningRate")
    if "RollBack" in by_class:
        return "back, lower" if scale is None or scale.factor <= 1 else "higher"
    if scale is not None:
        return "lower" if scale.factor < 1 else "higher"
    for name, entry in (
        ("SwitchOn", "robust"),
        ("SetDropout", "dropout"),
        ("SetWeightDecay", "dropout"),
        ("Freeze", "dropout"),
        ("Unfreeze", "higher"),
        ("StrengthenAugmentation", "dropout"),
        ("Extend", "longer"),
        ("Shorten", "lower"),
    ):
        if name in by_class:
            return entry
    return CONTINUE
