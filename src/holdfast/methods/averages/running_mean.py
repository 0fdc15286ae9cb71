"""A mean over the weights of a run, kept while it trains: ``ema`` forgets older steps, ``swa``
weighs every step of the tail alike.

    m_0 = 0,  m_t = m_{t−1} + s_t · (w_t − m_{t−1})

with w_t the weights after the t-th step that counts and s_1 = 1; a method is its s_t. Everything
that training changes is averaged; the running statistics of batch norms are measured anew when the
mean is tried (``core.events.Trial``), since no mean of them is that of the mean's own outputs.
Training itself goes on from the weights as they are: the run is, to the bit, the one without.

The mean is offered as it was at the look whose state is kept, since that is how far the run got
before it stopped to gain. So it holds two copies of what learns: the mean, and the mean of then.
Siblings: ``soup`` averages a few looks and tests each, ``wise`` the start and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from holdfast.core.events import Offer, OfferTrial, Place
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch

    from holdfast.training.run import Run

COPIES = 2


def moved_mean(
    mean: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """``mean`` moved by ``share`` of the way to ``now``, in place where it exists; a tensor of
    whole numbers (a count of batches) is taken as it is."""
    import torch

    moved: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, tensor in now.items():
            before = mean.get(name)
            if before is None or share == 1 or not tensor.is_floating_point():
                moved[name] = tensor.detach().clone()
            else:
                moved[name] = before.to(tensor.device).lerp_(tensor.detach(), share)
    return moved


class MeanState(TypedDict):
    """What a checkpoint keeps of a mean."""

    mean: Mapping[str, torch.Tensor]
    count: int
    then: Mapping[str, torch.Tensor]
    then_count: int
    then_step: int


class RunningMean:
    """The listener. ``share(t)`` is s_t, t from 1; steps up to ``start``, a share of the planned
    ones, do not count; ``made_of`` says of the number of steps what their mean is."""

    place: ClassVar[Place] = "change"

    def __init__(
        self, name: str, share: Callable[[int], float], start: float, made_of: Callable[[int], str]
    ) -> None:
        self.name = name
        self._share, self._start, self._made_of = share, start, made_of
        self.mean: dict[str, torch.Tensor] = {}
        self.count = 0
        self._then: dict[str, torch.Tensor] = {}
        self._then_count = self._then_step = 0

    def step_done(self, run: Run) -> None:
        if not self.count and run.step <= self._start * run.plan.steps:
            return
        self.count += 1
        self.mean = moved_mean(self.mean, run.changing(), self._share(self.count))

    def snapshot_taken(self, run: Run) -> None:
        # A run that has just gone back is not at the look that it kept.
        if self.count and run.best.step == run.step:
            self._then = {name: tensor.clone() for name, tensor in self.mean.items()}
            self._then_count, self._then_step = self.count, run.step

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        if not self.count:
            first = int(self._start * run.plan.steps) + 1
            return f"the run ended at step {run.step}, before the first that counts, {first}"
        if not self._then_count:
            # The state that is kept is older than the mean's first step.
            return Offer(self.mean, run.looked.step, self._made_of(self.count))
        return Offer(self._then, self._then_step, self._made_of(self._then_count))

    def state_dict(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "count": self.count,
            "then": self._then,
            "then_count": self._then_count,
            "then_step": self._then_step,
        }

    def load_state_dict(self, state: MeanState) -> None:
        self.mean, self.count = dict(state["mean"]), state["count"]
        self._then, self._then_count = dict(state["then"]), state["then_count"]
        self._then_step = state["then_step"]


def ema_share(decay: float, count: int) -> float:
    """How far the average moves to the weights of the ``count``-th step, counted from 1."""
    return float((1 - decay) / (1 - decay**count))


@dataclass(frozen=True, slots=True)
class Ema:
    """An exponential average of the weights, offered for the state to keep (1412.6980, section 7).

        m_t = β · m_{t−1} + (1 − β) · w_t,  m_0 = 0;  the average is m_t ÷ (1 − β^t)

    which, written as a running mean, moves by s_t = (1 − β) ÷ (1 − β^t) at each step: the first
    steps weigh alike, as the correction has it, and no zero is in it. It remembers about
    1 ÷ (1 − β) steps. A short run of fine-tuning has some hundred, so the usual 0.999 of long
    trainings would average in the start.

    ``decay`` is β; ``warmup`` the share of the planned steps, in [0, 0.9], that come before the
    first that counts."""

    decay: float = setting(0.98, above=0, most=0.99999)
    warmup: float = setting(0.1, most=0.9)

    def listeners(self) -> tuple[RunningMean]:
        def made_of(steps: int) -> str:
            return f"an exponential average of {steps} steps, decay {self.decay:g}"

        return (RunningMean("ema", lambda t: ema_share(self.decay, t), self.warmup, made_of),)


METHODS.add("ema", Method(Ema, lambda asked: Parts(listeners=asked.listeners, copies=COPIES)))


def mean_share(count: int) -> float:
    """How far the plain mean moves to the ``count``-th of its members, counted from 1."""
    return 1 / count


@dataclass(frozen=True, slots=True)
class Swa:
    """The plain mean of the weights over the tail of a run, offered for the state to keep
    (1803.05407).

        m = 1/n · Σ w_t  over the last n steps

    The paper averages once an epoch at a high rate that does not fall; a mean over every step costs
    one addition and is less noisy. Under a rate that falls to zero the last steps hardly move, so
    most of the mean is that of the early tail: with ``train.schedule=constant`` it gains most.

    ``start`` is the share of the planned steps, in [0, 0.99], after which steps count."""

    start: float = setting(0.5, most=0.99)

    def listeners(self) -> tuple[RunningMean]:
        def made_of(steps: int) -> str:
            return f"the mean of {steps} steps from {self.start:.0%} of the plan on"

        return (RunningMean("swa", mean_share, self.start, made_of),)


METHODS.add("swa", Method(Swa, lambda asked: Parts(listeners=asked.listeners, copies=COPIES)))
