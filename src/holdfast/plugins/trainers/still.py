"""Looking at a model that somebody else is training, and leaving no trace."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from holdfast.core.seeds import derive_seed
from holdfast.training.restore import random_state, set_random_state


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module, seed: int) -> Iterator[None]:
    """A block in evaluation mode and without gradients, after which everything is as before.

    Every module gets back the mode it had (a frozen batch norm may be in evaluation mode inside a
    model that trains), and Python's, NumPy's and PyTorch's generators stand where they stood.
    Inside, they stand at ``seed``: a collator that draws, such as the masks of a masked language
    model, draws the same at every look, so that two looks are paired.
    """
    modes = [(module, module.training) for module in model.modules()]
    kept = (random.getstate(), np.random.get_state(), random_state())
    number = derive_seed(seed, "look")
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        set_random_state(kept[2])


@contextlib.contextmanager
def generators_apart(*collators: Any) -> Iterator[None]:
    """A block in which a collator with a generator of its own (one that was given a seed) draws
    from a new one, so that the masks of training are those of a run without looks."""
    # Transformers wraps a collator in one that drops the columns that the model does not take.
    inner = [getattr(collator, "data_collator", collator) for collator in collators]
    seeded = [
        (c, c.generator) for c in {id(c): c for c in inner}.values() if hasattr(c, "generator")
    ]
    for collator, _ in seeded:
        # Without one it makes one from its seed at the next batch: the same draws at every look.
        collator.generator = None
    try:
        yield
    finally:
        for collator, kept in seeded:
            collator.generator = kept
