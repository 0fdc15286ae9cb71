"""Gradual unfreezing: the head learns first, then one more layer at a time, from the top
(1801.06146, section 3.3).

    layers below the head that learn at a share d of the fine-tuning:  min(n, ⌊n · d ÷ until⌋)

with n of them. What is at the bottom is the most general, and changes last and least. Siblings:
``progressive`` lets all of them learn at once; ``train.layer_decay`` lets lower layers move less
all the time; ``model.freeze`` never lets them.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.methods.registry import METHODS, Method, Parts, setting
from holdfast.methods.schedules.who_learns import WhoLearns


def thawed_layers(done: float, layers: int, until: float) -> int:
    """How many of ``layers`` learn when the share ``done`` of the steps is over."""
    # The sliver is for products that miss a whole number from below.
    return min(layers, int(layers * done / until + 1e-9))


@dataclass(frozen=True, slots=True)
class GradualUnfreezing:
    """``until`` is the share of the fine-tuning, above 0, at which all layers learn."""

    until: float = setting(0.5, above=0, most=1)

    def listeners(self) -> tuple[WhoLearns]:
        return (WhoLearns("unfreeze", lambda d, n: thawed_layers(d, n, self.until)),)


METHODS.add("unfreeze", Method(GradualUnfreezing, lambda asked: Parts(listeners=asked.listeners)))
