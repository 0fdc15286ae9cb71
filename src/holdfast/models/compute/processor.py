"""The same computation in less time or memory: float32 linear layers through oneDNN, dropout masks
from 16 random bits per element, gradient checkpointing. None of it is saved: a layer keeps its
class's weights, and the written folder is a plain one.

PyTorch multiplies float32 matrices on a processor with MKL, which on some processors (mainly AMD's)
runs at half the speed of oneDNN, the library that PyTorch uses for bfloat16. The product is the
same float32 arithmetic in another order of addition, at the same precision.

For a dropout mask PyTorch draws a floating-point number per element, which took an eighth of a step
of a small encoder. Here a 64-bit draw of the same generator serves four elements, each of which is
dropped if its 16 bits, read as a number, are below the share p · 65,536, rounded. The other
elements are divided by the share that remains after that rounding, so that the expectation is
exact; p itself is met to within 1 in 130,000.

With gradient checkpointing no activation inside a block is kept, and the backward pass computes it
again. The gradient is the same; a step takes about a third longer and keeps one block's activations
instead of all (Chen and others 2016, 1604.06174).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.core.errors import ModelError
from holdfast.core.records import Decision
from holdfast.models.base import Weights

# AMD's processors gain twice the speed and Intel's none: a gain in between is a busy machine.
FASTER_BY = 1.5
PROBE_SECONDS = 0.1
LEVELS = 1 << 16
LANES = 4
# Below this many places the calls themselves are what takes time.
MIN_PLACES = 4096


def is_available() -> bool:
    """Whether this build of PyTorch has the operator."""
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def measure_gain() -> float:
    """How many times faster oneDNN is than the default, on a product of a small encoder's size;
    0 where it is not available. Takes a fifth of a second."""
    if not is_available():
        return 0.0
    x, weight, bias = torch.ones(448, 384), torch.ones(1536, 384), torch.ones(1536)
    plain, other = _seconds(
        lambda: nn.functional.linear(x, weight, bias), lambda: product(x, weight, bias)
    )
    return plain / other


def measure_bfloat16() -> float:
    """How many times faster bfloat16 is than float32, computed the faster way, on the same product.
    Some processors have instructions for bfloat16 that are slower than those for float32: an Intel
    Xeon of 2023 without its matrix unit (AMX), which a virtual machine may hide, needs twice the
    time. Takes a third of a second."""
    x, weight, bias = torch.ones(448, 384), torch.ones(1536, 384), torch.ones(1536)
    halves = [one.bfloat16() for one in (x, weight, bias)]
    ways: list[Callable[[], Tensor]] = [
        lambda: nn.functional.linear(*halves),
        lambda: nn.functional.linear(x, weight, bias),
    ]
    if is_available():
        ways.append(lambda: product(x, weight, bias))
    half, *full = _seconds(*ways)
    return min(full) / half


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x`` [..., in] · ``weight`` [out, in]ᵀ + ``bias`` [out], float32 on a processor."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


class _Linear(torch.autograd.Function):
    """y = x Wᵀ + b, with ∂x = g W, ∂W = gᵀ x, ∂b = Σ g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        flat = gradient.reshape(-1, gradient.shape[-1])
        rows = x.reshape(-1, x.shape[-1])
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_x = product(flat.contiguous(), weight.t().contiguous()).view_as(x)
        if ctx.needs_input_grad[1]:
            for_weight = product(flat.t().contiguous(), rows.t().contiguous())
        if ctx.has_bias and ctx.needs_input_grad[2]:
            for_bias = flat.sum(dim=0)
        return for_x, for_weight, for_bias


class OneDnnLinear(nn.Linear):
    """``nn.Linear`` that multiplies with oneDNN where possible: float32, on a processor, outside
    autocast. Elsewhere it behaves like its parent."""

    def forward(self, input: Tensor) -> Tensor:
        usable = (
            input.dtype == self.weight.dtype == torch.float32
            and input.device.type == "cpu"
            and input.numel() > 0
            and not torch.is_autocast_enabled("cpu")
        )
        if not usable:
            return super().forward(input)
        result: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]
            input.contiguous(), self.weight, self.bias
        )
        return result


def use_onednn(network: Weights) -> int:
    """Turn every plain ``nn.Linear`` of ``network`` into a ``OneDnnLinear``, in place, and return
    how many; subclasses (adapters, quantised layers) are left alone."""
    layers = [module for module in network.modules() if type(module) is nn.Linear]
    for layer in layers:
        # The class alone is exchanged: weights, hooks and names stay what they are, in optimizers
        # too.
        layer.__class__ = OneDnnLinear
    return len(layers)


def _seconds(*calls: Callable[[], Tensor]) -> list[float]:
    """Processor seconds of one call of each, the fastest of those that fit into the probe's time.
    They take turns, so that other load slows all of them; the time of other processes is not
    counted."""
    best = [float("inf")] * len(calls)
    # Once unmeasured: oneDNN compiles its kernel at the first call.
    for call in calls:
        call()
    start = time.perf_counter()
    while time.perf_counter() - start < len(calls) * PROBE_SECONDS:
        for place, call in enumerate(calls):
            before = time.process_time()
            call()
            best[place] = min(best[place], time.process_time() - before)
    return best


@contextmanager
def quick_dropout() -> Iterator[None]:
    """Inside, ``torch.nn.functional.dropout``, and every ``nn.Dropout``, draws its masks in this
    way on a processor. The masks come from PyTorch's own generator, so that seeds, checkpoints and
    recomputed activations work as before."""
    plain = nn.functional.dropout

    def dropout(
        input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        large = input.is_floating_point() and input.numel() >= MIN_PLACES
        if training and not inplace and 0 < p < 1 and large and input.device.type == "cpu":
            return input * scaled_mask(input, p)
        return plain(input, p, training, inplace)

    nn.functional.dropout = dropout
    try:
        yield
    finally:
        nn.functional.dropout = plain


def scaled_mask(x: Tensor, p: float) -> Tensor:
    """A mask with the shape and type of ``x``: each element is independently 0 with probability
    ``p``, rounded to 65,536ths, and otherwise 1 ÷ (1 − that)."""
    # Neither none nor all: what stays is divided by its share.
    dropped = min(LEVELS - 1, max(1, round(p * LEVELS)))
    places = x.numel()
    # Every bit of a 64-bit draw is random only over the whole signed range.
    bits = torch.empty(-(-places // LANES), dtype=torch.int64).random_(-(1 << 63), None)
    mask = torch.empty(x.shape, dtype=x.dtype)
    # Compared into numbers of the kind that is multiplied: truth values would take longer to turn
    # into such than all the rest.
    lanes = bits.view(torch.int16)[:places].view(x.shape)
    # Sixteen bits of PyTorch are signed: half of the levels lie below 0.
    torch.ge(lanes, dropped - LEVELS // 2, out=mask)
    return mask.mul_(LEVELS / (LEVELS - dropped))


SETTING = "train.checkpoint_activations"


def checkpoint_activations(network: Weights, enabled: bool) -> tuple[Decision, ...]:
    """Switch gradient checkpointing on in the network's Transformers model, if ``enabled``.

    Dropout draws the same masks in the second pass. Evaluation is not affected.

    Raises
    ------
    ModelError : the architecture does not support it.
    """
    if not enabled:
        return ()
    model: Any = next((m for m in network.modules() if can_checkpoint(m)), None)
    if model is None:
        rule = "is not supported by this architecture"
        remedy = "Remove it, and double train.gradient_accumulation_steps instead."
        raise ModelError(SETTING, rule, type(network).__name__, remedy)
    if getattr(model.config, "use_cache", False):
        # Keys and values kept for generation cannot be computed again block by block.
        model.config.use_cache = False
    switch_checkpointing(model, on=True)
    because = "set in the recipe: each block is computed twice, and only its input is kept"
    return (Decision(SETTING, "true", because),)


def switch_checkpointing(model: nn.Module, on: bool) -> None:
    """Switch it under the method's old name or its new one (Transformers 5.20 and later)."""
    new = hasattr(model, "activation_checkpointing_enable")
    name = f"{'activation' if new else 'gradient'}_checkpointing_{'enable' if on else 'disable'}"
    # The older way needs an input that asks for a gradient, which frozen embeddings give none.
    settings = {"use_reentrant": False}
    key = f"{'activation' if new else 'gradient'}_checkpointing_kwargs"
    getattr(model, name)(**({key: settings} if on else {}))


def can_checkpoint(module: object) -> bool:
    """Whether this is a Transformers model that supports it."""
    return bool(getattr(module, "supports_gradient_checkpointing", False)) and hasattr(
        module, "gradient_checkpointing_enable"
    )
