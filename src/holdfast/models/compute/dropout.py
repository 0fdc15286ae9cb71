"""Dropout whose masks are drawn sixteen bits a place: the same law, in a fraction of the time.

On a processor PyTorch draws a floating-point number for every place of a mask, which took an eighth
of a step of a small encoder. Here a 64-bit draw of the same generator serves four places, each of
which is dropped where its 16 bits, read as a number, are below the share p · 65,536, rounded. What
stays is divided by the share that stays after that rounding, so that the expectation is exact; p
itself is met to within 1 in 130,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LEVELS = 1 << 16
LANES = 4
# Below this many places the calls themselves are what takes time.
LEAST_PLACES = 4096


@contextmanager
def quick_dropout() -> Iterator[None]:
    """Inside, ``torch.nn.functional.dropout``, and with it every ``nn.Dropout``, draws so where it
    draws on a processor. The masks come from PyTorch's own generator, so that seeds, checkpoints
    and recomputed activations hold as before."""
    plain = nn.functional.dropout

    def dropout(
        input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or inplace or not 0 < p < 1 or not _is_worth_it(input):
            return plain(input, p, training, inplace)
        return input * scaled_mask(input, p)

    nn.functional.dropout = dropout
    try:
        yield
    finally:
        nn.functional.dropout = plain


def _is_worth_it(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.is_floating_point() and x.numel() >= LEAST_PLACES


def scaled_mask(x: Tensor, p: float) -> Tensor:
    """A mask of the shape and kind of ``x``: each place is by itself 0 with probability ``p``,
    rounded to 65,536ths, and otherwise 1 ÷ (1 − that)."""
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
