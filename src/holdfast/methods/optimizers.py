"""Optimizers and learning-rate schedules by name.

The optimizers are those of ``torch.optim`` and bitsandbytes:

| name | rule | when |
|---|---|---|
| ``adamw`` | Adam with decoupled weight decay (1711.05101), bias-corrected | the default |
| ``adam`` | Adam (1412.6980); decay, if any, is added to the gradient | to repeat older work |
| ``rmsprop`` | squared-gradient average, no momentum on the gradient | small recurrent models |
| ``sgd`` | stochastic gradient descent with Nesterov momentum 0.9 | convolutional networks |
| ``paged_adamw8bit`` | AdamW in 8 bits (2110.02861) and pages (2305.14314) | large models |

Bias correction matters on few rows: without it the first updates are too large, and runs of BERT
fail at random (2006.04884, 2006.05987). Weight decay comes per parameter group, so that norms and
biases can be left out.

A schedule gives the factor on each group's learning rate at a step. All but ``one_cycle`` increase
linearly over the warm-up, with step 0 as the first update: scale = (step + 1) ÷ warm-up. After it,
with p in [0, 1] the share of the remaining steps that are done:

| name | scale after the warm-up |
|---|---|
| ``linear`` | 1 − p |
| ``cosine`` | (1 + cos πp) ÷ 2 (1608.03983, without restarts) |
| ``constant`` | 1 |
| ``inverse_sqrt`` | √(warm-up ÷ (step + 1)), at least one update of warm-up (1706.03762) |
| ``one_cycle`` | down to 1 ÷ 250,000 by half a cosine, up from 1 ÷ 25 by another (1708.07120) |
| ``plateau`` | halves when the validation loss did not improve at 2 evaluations in a row |
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.core.discovery import Registry
from holdfast.core.errors import MachineError
from holdfast.core.packages import need_packages

if TYPE_CHECKING:
    import torch


Groups = list[dict[str, Any]]
Build = Callable[[Groups], "torch.optim.Optimizer"]
OPTIMIZERS: Registry[Build] = Registry("optimizer", "train.optimizer")


def build_optimizer(name: str, groups: Groups) -> torch.optim.Optimizer:
    """An optimizer over ``groups``, each a dict with ``params``, ``lr`` and ``weight_decay``.

    Raises ``RecipeError`` for an unknown name.
    """
    return OPTIMIZERS[name](groups)


def _torch_optimizer(name: str, fuses: bool = True, **settings: Any) -> Build:
    """A builder of an optimizer of ``torch.optim``, with one fused kernel for all groups where it
    exists: 22 ms per update instead of 114 for MiniLM on one thread."""

    def build(groups: Groups) -> torch.optim.Optimizer:
        import torch

        devices = {p.device.type for group in groups for p in group["params"]}
        fused = {"fused": devices <= {"cpu", "cuda", "mps"}} if fuses else {}
        optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(groups, **settings, **fused)
        return optimizer

    return build


def _paged_adamw8bit(groups: Groups) -> torch.optim.Optimizer:
    need_packages(
        "train.optimizer=paged_adamw8bit",
        "bitsandbytes",
        install="'holdfast[quantize]'",
        otherwise="leave train.optimizer out",
    )
    bnb: Any = importlib.import_module("bitsandbytes")
    devices = {p.device.type for group in groups for p in group["params"]}
    if devices - {"cpu", "cuda"}:
        raise MachineError(
            "train.optimizer=paged_adamw8bit",
            "runs on a CPU and on NVIDIA and AMD GPUs",
            ", ".join(sorted(devices)),
            "Leave train.optimizer out.",
        )
    # There is no other memory to move CPU memory to.
    optimizer_class: Any = bnb.optim.AdamW8bit if devices == {"cpu"} else bnb.optim.PagedAdamW8bit
    optimizer: torch.optim.Optimizer = optimizer_class(groups)
    return optimizer


OPTIMIZERS.add("adamw", _torch_optimizer("AdamW"))
OPTIMIZERS.add("adam", _torch_optimizer("Adam"))
# PyTorch has no fused kernel for this one.
OPTIMIZERS.add("rmsprop", _torch_optimizer("RMSprop", fuses=False, alpha=0.99))
# PyTorch's fused kernel fails where a parameter has its first gradient later than another one.
OPTIMIZERS.add("sgd", _torch_optimizer("SGD", fuses=False, momentum=0.9, nesterov=True))
OPTIMIZERS.add("paged_adamw8bit", _paged_adamw8bit)


SCHEDULES: Registry[Callable[[int, int], Schedule]] = Registry("schedule", "train.schedule")


# The share of warm-up steps of schedules that need another than the usual one: half of the shape of
# one cycle, and the unit of an inverse square root.
WARMUPS = {"one_cycle": 0.3, "inverse_sqrt": 0.1}


class Schedule(Protocol):
    """A schedule over the steps of one phase; its state survives a resume."""

    def scale(self, step: int) -> float: ...

    def observe(self, valid_loss: float) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def build_schedule(name: str, steps: int, warmup_steps: int) -> Schedule:
    """The schedule ``name`` over ``steps`` updates, with ``warmup_steps`` of warm-up."""
    return SCHEDULES[name](steps, warmup_steps)


def falls_to_zero(name: str) -> bool:
    """Whether the schedule ``name`` falls to zero by its last update in every run."""
    return build_schedule(name, 1000, 100).scale(999) < 0.01


def warmup_scale(step: int, warmup_steps: int) -> float:
    """Linear increase to 1 at update ``warmup_steps`` − 1; 1 from there on."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


class Curve:
    """A schedule that is a function only of the step, so it has no state: ``scale_at`` gets the
    step, and the number of steps and warm-up steps of the phase."""

    def __init__(
        self, scale_at: Callable[[int, int, int], float], steps: int, warmup_steps: int
    ) -> None:
        self._scale_at, self._steps, self._warmup_steps = scale_at, steps, warmup_steps

    def scale(self, step: int) -> float:
        return self._scale_at(step, self._steps, self._warmup_steps)

    def observe(self, valid_loss: float) -> None:
        """Do nothing: the curve is fixed."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Nothing to load."""


def falling(shape: Callable[[float], float]) -> Callable[[int, int, int], float]:
    """The warm-up, then ``shape`` of the share of the remaining steps that are done."""

    def scale_at(step: int, steps: int, warmup_steps: int) -> float:
        if step < warmup_steps:
            return warmup_scale(step, warmup_steps)
        return shape(min(1.0, max(0.0, (step - warmup_steps) / max(1, steps - warmup_steps))))

    return scale_at


def inverse_sqrt(step: int, steps: int, warmup_steps: int) -> float:
    """Falls with the square root of the updates so far, whatever the number to come: 1706.03762,
    equation 3, scaled to a maximum of 1. Without a warm-up it falls from the first update, as with
    a warm-up of one."""
    warmup = max(1, warmup_steps)
    return min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))


def one_cycle(step: int, steps: int, warmup_steps: int) -> float:
    """The rate increases for the first part of the phase and falls for the rest: 1708.07120, with
    PyTorch's shape (``OneCycleLR``: half cosines, from 1/25 to 1 to 1/250,000). The momentum is
    constant.

    The warm-up is the increasing part; the paper and PyTorch use 0.3 of the steps for it, which is
    the default of ``train.warmup`` with this schedule.
    """
    first, last = 1 / 25, 1 / 25 / 1e4
    top, end = max(0, warmup_steps - 1), steps - 1
    if step < top:
        return first + (1 - first) * _half_cosine(step / top)
    done = min(1.0, (step - top) / (end - top)) if end > top else 0.0
    return 1 - (1 - last) * _half_cosine(done)


def _half_cosine(share: float) -> float:
    """Half a cosine from 0 to 1."""
    return (1 - math.cos(math.pi * share)) / 2


class Plateau:
    """Halves the rate when two evaluations in a row bring no improvement."""

    factor = 0.5
    patience = 2

    def __init__(self, steps: int, warmup_steps: int) -> None:
        self._warmup_steps = warmup_steps
        self._best = math.inf
        self._waited = 0
        self._factor = 1.0

    def scale(self, step: int) -> float:
        return self._factor * warmup_scale(step, self._warmup_steps)

    def observe(self, valid_loss: float) -> None:
        if valid_loss < self._best:
            self._best, self._waited = valid_loss, 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            self._factor, self._waited = self._factor * self.factor, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited, "factor": self._factor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._waited, self._factor = state["best"], state["waited"], state["factor"]


CURVES: dict[str, Callable[[int, int, int], float]] = {
    "linear": falling(lambda p: 1 - p),
    "cosine": falling(lambda p: (1 + math.cos(math.pi * p)) / 2),
    "constant": falling(lambda p: 1.0),
    "inverse_sqrt": inverse_sqrt,
    "one_cycle": one_cycle,
}
for _name, _scale_at in CURVES.items():
    SCHEDULES.add(_name, functools.partial(Curve, _scale_at))
SCHEDULES.add("plateau", Plateau)
