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
Build = Callable[[Groups], "torch.optim.Optimizer"]
OPTIMIZERS: Registry[Build] = Registry("optimizer", "train.optimizer")


def build_optimizer(name: str, groups: Groups) -> torch.optim.Optimizer:
    """An optimizer over ``groups``, each a dict with ``params``, ``lr`` and ``weight_decay``.

    Raises ``RecipeError`` for an unknown name.
    """
    return OPTIMIZERS[name](groups)


def _of_torch(name: str, fuses: bool = True, **settings: Any) -> Build:
    """What builds an optimizer of ``torch.optim``, of one kernel where there is one for all groups:
    22 ms an update instead of 114 for MiniLM on one thread."""

    def build(groups: Groups) -> torch.optim.Optimizer:
        import torch

        devices = {p.device.type for group in groups for p in group["params"]}
        fused = {"fused": devices <= {"cpu", "cuda", "mps"}} if fuses else {}
        made: torch.optim.Optimizer = getattr(torch.optim, name)(groups, **settings, **fused)
        return made

    return build


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


OPTIMIZERS.add("adamw", _of_torch("AdamW"))
OPTIMIZERS.add("adam", _of_torch("Adam"))
# Of this one PyTorch has no fused kernel.
OPTIMIZERS.add("rmsprop", _of_torch("RMSprop", fuses=False, alpha=0.99))
OPTIMIZERS.add("sgd", _of_torch("SGD", momentum=0.9, nesterov=True))
OPTIMIZERS.add("paged_adamw8bit", _paged_adamw8bit)
