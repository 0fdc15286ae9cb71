"""Optimizers by name, from ``torch.optim`` and bitsandbytes.

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
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.core.discovery import Registry
from holdfast.core.errors import MachineError

if TYPE_CHECKING:
    import torch

Groups = list[dict[str, Any]]
OPTIMIZERS: Registry[Callable[[Groups], torch.optim.Optimizer]] = Registry(
    "optimizer", "train.optimizer"
)


def build_optimizer(name: str, groups: Groups) -> torch.optim.Optimizer:
    """An optimizer over ``groups``, each a dict with ``params``, ``lr`` and ``weight_decay``.

    Raises ``RecipeError`` for an unknown name.
    """
    return OPTIMIZERS[name](groups)


def _adamw(groups: Groups) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, fused=_can_fuse(groups))


def _adam(groups: Groups) -> torch.optim.Optimizer:
    import torch

    return torch.optim.Adam(groups, fused=_can_fuse(groups))


def _rmsprop(groups: Groups) -> torch.optim.Optimizer:
    import torch

    # Of this one PyTorch has no fused kernel.
    return torch.optim.RMSprop(groups, alpha=0.99)


def _sgd(groups: Groups) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(groups, momentum=0.9, nesterov=True, fused=_can_fuse(groups))


def _can_fuse(groups: Groups) -> bool:
    """One kernel for the whole update: 22 ms instead of 114 for MiniLM on one thread."""
    return all(p.device.type in ("cpu", "cuda", "mps") for g in groups for p in g["params"])


def _paged_adamw8bit(groups: Groups) -> torch.optim.Optimizer:
    try:
        bnb: Any = importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise MachineError(
            "train.optimizer=paged_adamw8bit",
            "needs the package bitsandbytes",
            None,
            "pip install 'holdfast[quantize]', or leave train.optimizer out.",
        ) from error
    devices = {p.device.type for group in groups for p in group["params"]}
    if devices - {"cpu", "cuda"}:
        raise MachineError(
            "train.optimizer=paged_adamw8bit",
            "runs on a processor and on GPUs of NVIDIA's and AMD's",
            ", ".join(sorted(devices)),
            "Leave train.optimizer out.",
        )
    # A processor's memory has nowhere to be moved to.
    made: Any = bnb.optim.AdamW8bit if devices == {"cpu"} else bnb.optim.PagedAdamW8bit
    optimizer: torch.optim.Optimizer = made(groups)
    return optimizer


OPTIMIZERS.add("adamw", _adamw)
OPTIMIZERS.add("adam", _adam)
OPTIMIZERS.add("rmsprop", _rmsprop)
OPTIMIZERS.add("sgd", _sgd)
OPTIMIZERS.add("paged_adamw8bit", _paged_adamw8bit)
