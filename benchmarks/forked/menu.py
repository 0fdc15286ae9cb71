"""The actions that are legal at a look: what each changes, and none that would change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.actions import (
    Action,
    Extend,
    RollBack,
    ScaleLearningRate,
    SetDropout,
    Shorten,
    SwitchOn,
)
from holdfast.core.records import Snapshot, Verdict

# In place of the run as it is: these take no continuation of their own.
CONTINUE, STOP = "continue", "stop"
BECAUSE = "an action at a fork"
DROPOUT, MORE, DOWN = 0.3, 0.5, 4


@dataclass(frozen=True)
class Fork:
    """What the menu is made of: the history up to the look, its verdict, the state that is kept,
    the rate that the plan peaks at with the ``usual`` ones, the planned ``steps``, how many
    looks are ``apart``, and whether there is a fine-tuning, which alone can be joined."""

    history: Sequence[Snapshot]
    verdict: Verdict
    kept: int
    rate: float
    usual: tuple[float, float] | None
    steps: int
    apart: int
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
    """A loss that a wrong label pulls less at."""
    return (SwitchOn(BECAUSE, "gce"),)


def longer(fork: Fork) -> tuple[Action, ...]:
    """Half as many steps again."""
    return (Extend(BECAUSE, steps=max(1, round(MORE * fork.steps))),)


def brought_down(fork: Fork) -> tuple[Action, ...]:
    """From the state that is kept the schedule to its end within four looks: a run that is stopped
    early has never had its rate brought down."""
    down = Shorten(BECAUSE, fork.kept + DOWN * fork.apart)
    return (down,) if fork.kept == fork.now else (RollBack(BECAUSE, fork.kept), down)


MENU: Mapping[str, Callable[[Fork], tuple[Action, ...]]] = {
    "lower": lower,
    "higher": higher,
    "back, lower": back_lower,
    "dropout": dropout,
    "robust": robust,
    "longer": longer,
    "brought down": brought_down,
}


def menu(fork: Fork) -> dict[str, tuple[Action, ...]]:
    """At most seven continuations beside going on and stopping; back to the present look is no
    other than a lower rate, and an end that lies behind the plan's is none."""
    legal = {
        "back, lower": fork.kept != fork.now,
        "robust": fork.finetunes,
        "brought down": fork.finetunes and fork.kept + DOWN * fork.apart < fork.steps,
    }
    return {name: make(fork) for name, make in MENU.items() if legal.get(name, True)}


def kind_of(taken: Sequence[Any], now: int) -> str:
    """The entry that advice at the step ``now`` comes nearest to: by what it changes, in the order
    of its weight. Back to the present look is going on from here."""
    by_class = {
        type(one).__name__: one
        for one in taken
        if not (isinstance(one, RollBack) and one.to_step == now)
    }
    if "Stop" in by_class:
        return STOP
    scale = by_class.get("ScaleLearningRate")
    if scale is not None:
        lower = "back, lower" if "RollBack" in by_class else "lower"
        return lower if scale.factor < 1 else "higher"
    for name, entry in (
        ("SwitchOn", "robust"),
        ("SetDropout", "dropout"),
        ("SetWeightDecay", "dropout"),
        ("Freeze", "dropout"),
        ("Unfreeze", "higher"),
        ("StrengthenAugmentation", "dropout"),
        ("Extend", "longer"),
        ("Shorten", "brought down"),
        ("RollBack", "back, lower"),
    ):
        if name in by_class:
            return entry
    return CONTINUE
