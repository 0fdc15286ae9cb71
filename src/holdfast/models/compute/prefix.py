"""The frozen first layers of a network: they run in evaluation mode, and are skipped if their
output is cached.

A frozen block gives the same output for a row each time, as long as it has no dropout and does not
depend on the other rows of a batch. Its output can then be cached, and the network entered after it
(1.9 times as fast in 2207.04993, which freezes more and more layers). The model's own forward still
runs, including embeddings, masks and positions, so no architecture needs special code: a frozen
block passes on its input, and the last one passes on the cached output. Whether an architecture
allows this is tested on the model, not assumed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from holdfast.models.base import Layer, Network

NOT_BLOCKS = ("embeddings", "pooler", "head")


class _PrefixDone(BaseException):
    """The last frozen block has finished; the rest is not needed. Not an ``Exception``, so that no
    model's error handling catches it."""


def frozen_prefix(network: Network) -> list[Layer]:
    """The layers before the first trained one, if they include a block; else none.

    Embeddings alone are not a prefix: adapters leave them frozen, and their dropout is wanted.
    """
    frozen = list(itertools.takewhile(_is_frozen, network.layers()))
    return frozen if any(layer.name not in NOT_BLOCKS for layer in frozen) else []


def train_mode(network: Network) -> None:
    """Training mode for trained layers, evaluation mode for the frozen prefix: it has no dropout,
    whether its outputs are cached or computed again."""
    network.train()
    for layer in frozen_prefix(network) if hasattr(network, "layers") else ():
        for module in layer.modules:
            module.eval()


@contextlib.contextmanager
def evaluation_mode(network: Network) -> Iterator[None]:
    """Evaluation mode; the previous mode is restored afterwards."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        if was_training:
            train_mode(network)


class Prefix:
    """The frozen blocks of a network, in order; ``forms`` are their outputs' forms, as
    ``learn_forms`` found them: ``None`` for a tensor, n for a tuple of n with a tensor first and
    nothing else."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.blocks = tuple(layer.modules[0] for layer in layers if layer.name not in NOT_BLOCKS)
        self.forms: tuple[int | None, ...] = ()
        self._marks: list[tuple[int, int, bool]] = []

    def parameters(self) -> Iterator[nn.Parameter]:
        for layer in self.layers:
            yield from layer.parameters()

    def mark(self) -> None:
        """Remember the current weights for ``is_unchanged``."""
        self._marks = self._mark()

    @property
    def is_unchanged(self) -> bool:
        """Whether no weight of it is trained or was written to since ``mark``."""
        return self._marks == self._mark()

    def learn_forms(self, forward: Callable[[], object]) -> str | None:
        """Learn the form of the blocks' outputs from one pass; returns the reason if they cannot be
        skipped."""
        if any(isinstance(block, nn.ParameterList) for block in self.blocks):
            return "the first blocks of an encoder-decoder cannot be skipped"
        answers: list[tuple[int, Any]] = []
        with contextlib.ExitStack() as hooks:
            for at, block in enumerate(self.blocks):
                hooks.enter_context(
                    block.register_forward_hook(
                        lambda _m, _i, out, at=at: answers.append((at, out))
                    )
                )
            forward()
        if [at for at, _ in answers] != list(range(len(self.blocks))):
            return "its blocks are not each called once and in order"
        forms = [_form(out) for _, out in answers]
        if any(form is False for form in forms):
            return "its blocks pass on more than their hidden states"
        self.forms = tuple(form for form in forms if form is not False)
        return None

    def output(self, forward: Callable[[], object]) -> Tensor:
        """The output of the last frozen block in this pass [batch, …]; the pass ends there."""
        outputs: list[Tensor] = []

        def stop(
            _module: nn.Module, _inputs: tuple[object, ...], out: Tensor | tuple[Tensor, ...]
        ) -> None:
            outputs.append(out if isinstance(out, Tensor) else out[0])
            # Nothing behind this block is wanted: the pass is left from inside.
            raise _PrefixDone

        with self.blocks[-1].register_forward_hook(stop), contextlib.suppress(_PrefixDone):
            forward()
        return outputs[0]

    @contextlib.contextmanager
    def skipping(self, states: Tensor) -> Iterator[None]:
        """Passes inside begin after the frozen blocks, which are not computed: the last of them
        gives ``states`` [batch, …]."""
        # Other libraries wrap ``forward`` on the object too (Accelerate): theirs comes back
        # afterwards.
        before = [block.__dict__.get("forward") for block in self.blocks]
        last = len(self.blocks) - 1
        for at, (block, form) in enumerate(zip(self.blocks, self.forms, strict=True)):
            block.__dict__["forward"] = _constant_forward(states if at == last else None, form)
        try:
            yield
        finally:
            for block, original in zip(self.blocks, before, strict=True):
                if original is None:
                    del block.__dict__["forward"]
                else:
                    block.__dict__["forward"] = original

    def _mark(self) -> list[tuple[int, int, bool]]:
        # PyTorch counts every write in place; a weight that was exchanged lies elsewhere.
        return [(p.data_ptr(), p._version, p.requires_grad) for p in self.parameters()]


def _is_frozen(layer: Layer) -> bool:
    return layer.name != "head" and not any(p.requires_grad for p in layer.parameters())


def _form(out: Any) -> int | bool | None:
    if isinstance(out, Tensor):
        return None
    alone = isinstance(out, tuple) and bool(out) and isinstance(out[0], Tensor)
    return len(out) if alone and all(value is None for value in out[1:]) else False


def _constant_forward(states: Tensor | None, form: int | None) -> Callable[..., Any]:
    """A block's ``forward`` that gives ``states``, or its own input where there are none."""

    def forward(*inputs: Tensor | None, **named: Tensor | None) -> Any:
        output = states
        if output is None:
            output = inputs[0] if inputs else named["hidden_states"]
        return output if form is None else (output, *[None] * (form - 1))

    return forward
