"""So much of a very long text as a model reads: a book is not tokenised for a page of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Below this a text is tokenised whole, as ever: an article is far below, a novel just reaches it.
LONG = 1_000_000
# Of tokens wanted, so that what is cut off cannot reach back to those that are read.
SPARE = 2
# Far above the mean of any language; English has some four.
CHARACTERS_A_TOKEN = 25


def beginnings(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> list[str]:
    """The texts; of one of more than ``LONG`` characters its first ones, if their words but the
    last make ``SPARE`` times ``max_length`` tokens: then the first ``max_length`` are those of the
    whole text, and it is cut at ``max_length`` as before. Else the whole text.
    """
    return [
        text if len(text) <= LONG else _beginning(tokenizer, text, max_length) for text in texts
    ]


def _beginning(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> str:
    wanted = SPARE * max_length
    most = CHARACTERS_A_TOKEN * wanted
    # Up to a space; where there is none for long, anywhere: the last word is not counted.
    begin = text[: text.rfind(" ", most // 2, most) + 1] or text[:most]
    if len(begin) >= len(text) or not tokenizer.is_fast:
        return text
    found = tokenizer(begin, add_special_tokens=False, verbose=False)
    words = found.word_ids(0)
    whole = sum(word != words[-1] for word in words) if words else 0
    return begin if whole > wanted else text
