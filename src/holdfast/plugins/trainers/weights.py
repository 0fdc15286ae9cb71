"""A model that another trainer trains: evaluation without side effects, copies of its weights in
host memory, and how far they moved.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from holdfast.core.errors import Defect
from holdfast.core.seeds import derive_seed
from holdfast.training.machine.sharding import local_part
from holdfast.training.restore import random_state, set_random_state
from holdfast.training.run import running_statistics
from holdfast.training.snapshot import relative_change


@contextlib.contextmanager
def without_side_effects(model: torch.nn.Module, seed: int) -> Iterator[None]:
    """A block in evaluation mode and without gradients, after which everything is as before.

    Every module gets back its mode (a frozen batch norm may be in evaluation mode inside a model
    that trains), and Python's, NumPy's and PyTorch's generators return to their state. Inside, they
    start at ``seed``: a collator that draws, such as the masks of a masked language model, draws
    the same at every evaluation, so that two evaluations are paired.
    """
    modes = [(module, module.training) for module in model.modules()]
    generator_states = (random.getstate(), np.random.get_state(), random_state())
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
            # After a pass without gradients, a sharded module may still hold its weights as a
            # whole, in tensors that it drops at the next pass.
            if callable(reshard := getattr(module, "reshard", None)):
                reshard()
        random.setstate(generator_states[0])
        np.random.set_state(generator_states[1])
        set_random_state(generator_states[2])


@contextlib.contextmanager
def separate_generators(*collators: Any) -> Iterator[None]:
    """A block in which a collator with a generator of its own (one that was given a seed) draws
    from a new one, so that the masks of training are those of a run without evaluations.
    """
    # Transformers wraps a collator in one that drops the columns that the model does not take.
    inner = [getattr(collator, "data_collator", collator) for collator in collators]
    seeded = [
        (c, c.generator) for c in {id(c): c for c in inner}.values() if hasattr(c, "generator")
    ]
    for collator, _ in seeded:
        # Without one it makes one from its seed at the next batch: the same draws at every
        # evaluation.
        collator.generator = None
    try:
        yield
    finally:
        for collator, generator_before in seeded:
            collator.generator = generator_before


# Above this, the two further copies for distances are not kept: of a large model the guard keeps
# only one copy of the best checkpoint in memory.
MAX_TRACKED_BYTES = 512_000_000


class WeightCopies:
    """The trainable state of ``model``: parameters with gradients (of a PEFT model, only the
    adapter), and the running statistics of batch norms.

    Of weights that are sharded over processes it holds this one's part. ``movement`` measures
    ‖Δw‖ ÷ ‖w‖ since its last call and since its first call. Both are ``None`` where the tensors
    take more than ``MAX_TRACKED_BYTES``, or are sharded.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._start: dict[str, torch.Tensor] = {}
        self._previous: dict[str, torch.Tensor] = {}

    @property
    def megabytes(self) -> float:
        """The size of one copy, in 10⁶ bytes."""
        return self._bytes / 1e6

    @property
    def tracked(self) -> bool:
        sharded = any(local_part(p) is not p for p in self._learning().values())
        return self._bytes <= MAX_TRACKED_BYTES and not sharded

    @property
    def count(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self._learning().values())

    def copy(self) -> dict[str, torch.Tensor]:
        # For a tensor in host memory ``cpu`` makes no copy.
        return {name: t.detach().cpu().clone() for name, t in self._changing().items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load a copy back into the model, in place: the optimizer's references stay valid.

        Raises ``Defect``, before any weight is changed, where it is a copy of another model.
        """
        live = self._changing()
        unknown = [n for n, t in tensors.items() if n not in live or live[n].shape != t.shape]
        if unknown:
            rule = "contains weights that the model does not have"
            raise Defect("the copy of the best checkpoint", rule, unknown[0])
        with torch.no_grad():
            for name, tensor in tensors.items():
                live[name].copy_(tensor)

    def movement(self) -> tuple[float | None, float | None]:
        """The relative update since the last call (``None`` at the first) and the distance."""
        if not self.tracked:
            return None, None
        now, first = self.copy(), not self._start
        if first:
            self._start = self._previous = now
        names = self._learning()
        update, distance = (
            relative_change(names, now, before) for before in (self._previous, self._start)
        )
        self._previous = now
        return None if first else update, distance

    def state_dict(self) -> dict[str, Any]:
        return {"start": self._start, "previous": self._previous}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start, self._previous = state["start"], state["previous"]

    @property
    def _bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self._changing().values())

    def _learning(self) -> dict[str, torch.Tensor]:
        return {n: p for n, p in self._model.named_parameters() if p.requires_grad}

    def _changing(self) -> dict[str, torch.Tensor]:
        tensors = {**self._learning(), **running_statistics(self._model)}
        return {name: local_part(tensor) for name, tensor in tensors.items()}
