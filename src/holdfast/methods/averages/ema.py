"""An exponential average of the weights, offered for the state to keep (1412.6980, section 7).

    m_t = β · m_{t−1} + (1 − β) · w_t,  m_0 = 0;  the average is m_t ÷ (1 − β^t)

which, written as a running mean, moves by s_t = (1 − β) ÷ (1 − β^t) at each step: the first steps
weigh alike, as the correction has it, and no zero is in it. It remembers about 1 ÷ (1 − β) steps. A
short run of fine-tuning has some hundred, so the usual 0.999 of long trainings would average in the
start. Siblings: ``swa`` weighs every step of the tail alike, ``soup`` a few looks, ``wise`` the
start and the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.methods.averages.running_mean import COPIES, RunningMean
from holdfast.methods.registry import METHODS, Method, Parts, setting


def ema_share(decay: float, count: int) -> float:
    """How far the average moves to the weights of the ``count``-th step, counted from 1."""
    return float((1 - decay) / (1 - decay**count))


@dataclass(frozen=True, slots=True)
class Ema:
    """``decay`` is β; ``warmup`` the share of the planned steps, in [0, 0.9], that come before the
    first that counts."""

    decay: float = setting(0.98, above=0, most=0.99999)
    warmup: float = setting(0.1, most=0.9)

    def listeners(self) -> tuple[RunningMean]:
        def made_of(steps: int) -> str:
            return f"an exponential average of {steps} steps, decay {self.decay:g}"

        return (RunningMean("ema", lambda t: ema_share(self.decay, t), self.warmup, made_of),)


METHODS.add("ema", Method(Ema, lambda asked: Parts(listeners=asked.listeners, copies=COPIES)))
