"""What is asked: a classifier's network in float32, or in the file that an export wrote.

Each maps a tokenizer's (or a processor's) batch to logits, and while ``hearing`` is open adds what
its last layer read of the rows of each pass, [B, D].
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.core.records import Decision, softmax
from holdfast.models.compute.processor import FASTER_BY, measure_gain, use_onednn
from holdfast.models.encoders.checkpoint import hearing
from holdfast.models.encoders.network import masked_mean
from holdfast.plugins.export.graphs import OnnxEngine, OpenVinoEngine
from holdfast.plugins.export.model import ByPlace, Uncarried, of_texts

# How far a probability may lie from that of the saved model (a number: of the largest).
TOLERANCE = 1e-5
TEXT = "it was not what I had hoped for but the people were kind and 7 of 10 came back"


class Graph(Protocol):
    """A batch → logits [B, C], of a tagger [B, T, C]. It keeps something of each shape that it
    meets where ``multiple`` is above 1: lengths are then to be multiples of it."""

    multiple: int

    def __call__(self, **batch: Tensor) -> Tensor: ...

    def hearing(self) -> AbstractContextManager[list[Tensor]]: ...


class Saved:
    """The network of a run's folder as ``predict`` asks it."""

    multiple = 1

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, **batch: Tensor) -> Tensor:
        logits: Tensor = self._network(**batch)
        return logits

    def hearing(self) -> AbstractContextManager[list[Tensor]]:
        return hearing(self._network.model)


class Lean:
    """The same function in less time: without the block that only carries mean pooling, adapters
    merged, and its products by oneDNN where that is quicker. Large weights are shared with the
    saved network."""

    multiple = 1

    def __init__(self, plain: nn.Module, tokenizer: Any, max_length: int, *, tags: bool) -> None:
        kept: dict[int, Any] = {}
        if not getattr(plain, "active_peft_config", None):
            # A copy of its own is needed of none but a norm's weights, which leaving out the
            # carrying block scales.
            layers = [one for one in plain.modules() if isinstance(one, nn.Linear | nn.Embedding)]
            kept = {id(p): p for layer in layers for p in layer.parameters()}
        again = copy.deepcopy(plain, kept)
        whole = of_texts(plain, again, tokenizer, max_length, each_token=tags)
        self.network: ByPlace = whole.network
        self.lean = whole.lean

    def __call__(self, **batch: Tensor) -> Tensor:
        logits: Tensor = self.network(*(batch[name] for name in self.network.inputs))
        return logits

    def hearing(self) -> AbstractContextManager[list[Tensor]]:
        inner = self.network.model
        return hearing(inner, inner.head if isinstance(inner, Uncarried) else None)


def quicker(
    saved: Any, tokenizer: Any, max_length: int, *, tags: bool
) -> tuple[Graph, Decision | None]:
    """The lean network of a text model where it answers as the saved one does, else that one; with
    what was decided, where there was a choice."""
    lean = Lean(saved.model, tokenizer, max_length, tags=tags)
    done = ["no block that only carries the mean"] if lean.lean else []
    gain = measure_gain()
    if gain >= FASTER_BY:
        use_onednn(lean.network)
        done.append(f"products by oneDNN, {gain:.1f} times as fast here")
    if not done:
        return Saved(saved), None
    gap = largest_gap(saved, lean, tokenizer, max_length)
    because = f"{' and '.join(done)}; probabilities within {gap:.0e} of the saved model's"
    if not gap <= TOLERANCE:
        because = f"another form lies {gap:.1e} off, and at most {TOLERANCE:g} are allowed"
        return Saved(saved), Decision("network", "as it was saved", because)
    return lean, Decision("network", "the same function, lean", because)


def largest_gap(first: Any, second: Any, tokenizer: Any, max_length: int) -> float:
    """How far two networks lie apart on texts of several lengths, padded and alone: the largest
    difference of a probability, or of a number as a share of the largest."""
    worst, words = 0.0, TEXT.split()
    for counts in ((1,), (3, 9, 27), (2 * max_length,)):
        batch = tokenizer(
            [" ".join(words[i % len(words)] for i in range(count)) for count in counts],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            found = [np.asarray(net(**batch).double()) for net in (first, second)]
        if found[0].shape[-1] > 1:
            found = [softmax(one) for one in found]
        real = np.asarray(batch["attention_mask"], dtype=bool)
        if found[0].ndim == 3:
            found = [one[real] for one in found]
        scale = max(1.0, float(np.abs(found[0]).max()))
        worst = max(worst, float(np.abs(found[0] - found[1]).max()) / scale)
    return worst


class EngineFile:
    """A network in a file that another engine runs, with the features as a second output."""

    def __init__(self, engine: OnnxEngine | OpenVinoEngine, multiple: int = 1) -> None:
        self._engine, self.multiple = engine, multiple
        self._heard: list[Tensor] | None = None

    def __call__(self, **batch: Tensor) -> Tensor:
        logits, *more = self._engine.all(batch)
        if self._heard is not None and more:
            states = torch.from_numpy(np.array(more[0], dtype=np.float32))
            if states.dim() == 3:
                states = masked_mean(states, batch.get("attention_mask"))
            self._heard.append(states.flatten(1))
        return torch.from_numpy(np.array(logits, dtype=np.float32))

    @contextmanager
    def hearing(self) -> Iterator[list[Tensor]]:
        self._heard = []
        try:
            yield self._heard
        finally:
            self._heard = None
