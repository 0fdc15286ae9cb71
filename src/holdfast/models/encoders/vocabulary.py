"""New words for a model: words of the rows that its tokenizer splits. Each embedding starts as the
mean of those of its pieces.

A word gets a token of its own; it then costs one place in place of several, and has one vector to
learn. Only words that come out of the tokenizer as they went in are added: writing must not suffer.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"\w[\w'’-]*\w|\w")
# A word that is seldom seen has nothing to learn its vector from.
MIN_COUNT, MIN_PIECES = 3, 2
# A token that is the beginning of other words would take those apart.
PREFIX_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class NewWord:
    """A ``token`` as it is added, the ids of its ``pieces`` so far, and how often it was
    ``count``."""

    token: str
    pieces: tuple[int, ...]
    count: int

    @property
    def tokens_saved(self) -> int:
        """Tokens that it saves in the texts that it was found in."""
        return self.count * (len(self.pieces) - 1)


def new_words(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_words: int
) -> list[NewWord]:
    """At most ``max_words`` words of ``texts`` that save the most tokens, the most saving first:
    seen three times, of two pieces and more."""
    spaced = keeps_spaces(tokenizer)
    counts = Counter(normalize(tokenizer, word) for text in texts for word in WORD.findall(text))
    starts: Counter[str] = Counter()
    for word, frequency in counts.items():
        for end in range(2, len(word)):
            starts[word[:end]] += frequency
    candidates = []
    for word, frequency in counts.items():
        if frequency < MIN_COUNT or any(letter.isdigit() for letter in word):
            continue
        if spaced and starts[word] > PREFIX_SHARE * frequency:
            continue
        token = f" {word}" if spaced else word
        pieces = tuple(tokenizer(token, add_special_tokens=False)["input_ids"])
        is_known = tokenizer.unk_token_id not in pieces
        if len(pieces) >= MIN_PIECES and is_known:
            candidates.append(NewWord(token, pieces, frequency))
    return sorted(candidates, key=lambda word: (-word.tokens_saved, word.token))[:max_words]


def extend_vocabulary(model: Any, tokenizer: Any, words: Sequence[NewWord]) -> list[NewWord]:
    """Add ``words`` to the tokenizer and to the embeddings of ``model`` (both of the inputs and,
    where they are others, of the outputs); gives those that were added.

    A word that does not come back from the tokenizer as it went in is left out.
    """
    added = _stable_words(tokenizer, words)
    before = len(tokenizer)
    add_words(tokenizer, added)
    ids = [tokenizer.convert_tokens_to_ids(one.token) for one in added]
    new_tokens = [(at, one.pieces) for at, one in zip(ids, added, strict=True) if at >= before]
    old_size = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > old_size:
        with torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for table in _tables(model):
        with torch.no_grad():
            for at, pieces in new_tokens:
                table[at] = table[list(pieces)].mean(dim=0)
    return added


def add_words(tokenizer: Any, words: Sequence[NewWord]) -> None:
    """Add ``words`` to the tokenizer, whatever becomes of them in a text."""
    from tokenizers import AddedToken

    tokenizer.add_tokens(
        [AddedToken(one.token, single_word=not one.token.startswith(" ")) for one in words]
    )


def _tables(model: Any) -> list[torch.Tensor]:
    """The tables of a line for each token: of inputs, of outputs where they are not the same, and
    the outputs' levels."""
    first, last = model.get_input_embeddings().weight, model.get_output_embeddings()
    tables = [first]
    if last is not None:
        if last.weight is not first:
            tables.append(last.weight)
        if getattr(last, "bias", None) is not None:
            tables.append(last.bias)
    return tables


def _stable_words(tokenizer: PreTrainedTokenizerBase, words: Sequence[NewWord]) -> list[NewWord]:
    """Those that a copy of the tokenizer with all of them gives back as they are, in a text."""
    extended = copy.deepcopy(tokenizer)
    add_words(extended, words)
    stable = []
    for one in words:
        text = f"a{one.token} a" if one.token.startswith(" ") else f"a {one.token} a"
        ids, plain = (t(text, add_special_tokens=False)["input_ids"] for t in (extended, tokenizer))
        shorter = len(ids) == len(plain) - len(one.pieces) + 1
        unchanged = extended.decode(ids) == tokenizer.decode(plain)
        if unchanged and shorter and extended.convert_tokens_to_ids(one.token) in ids:
            stable.append(one)
    return stable


def keeps_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a space is part of the word behind it, as with byte-level tokenizers."""
    ids = tokenizer("a a", add_special_tokens=False)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return any(piece.startswith("Ġ") for piece in pieces)


def normalize(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text as the tokenizer reads it, in small letters where it knows no others."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    return text if normalizer is None else str(normalizer.normalize_str(text)).strip()
