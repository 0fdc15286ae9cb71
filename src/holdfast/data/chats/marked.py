"""A tokenised row as text, with marks around the tokens that the loss covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from holdfast.core.printable import shorten_middle
from holdfast.core.records import Ints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Mask = npt.NDArray[np.bool_]
# Marks around what the loss covers, and for a line break.
OPEN, CLOSE, NEW_LINE = "⟦", "⟧", "↵"
# Of each part of a row, and of all parts.
SHOWN_CHARACTERS, SHOWN_PARTS = 240, 12


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Ints) -> str:
    """The ids as text, special tokens among them; ids outside the vocabulary are left out."""
    return str(tokenizer.decode(ids[ids < len(tokenizer)].tolist(), skip_special_tokens=False))


def marked_text(tokenizer: PreTrainedTokenizerBase, ids: Ints, trained: Mask) -> str:
    """A row as text, with marks around the tokens that the loss covers; of long parts the beginning
    and the end."""
    if not len(ids):
        return ""
    starts = np.r_[0, np.flatnonzero(np.diff(trained)) + 1]
    shown = []
    for start, piece in list(zip(starts, np.split(ids, starts[1:]), strict=True))[:SHOWN_PARTS]:
        text = decoded(tokenizer, piece).replace("\n", NEW_LINE)
        text = shorten_middle(text, SHOWN_CHARACTERS)
        shown.append(f"{OPEN}{text}{CLOSE}" if trained[start] else text)
    return "".join(shown) + (" …" if len(starts) > SHOWN_PARTS else "")
