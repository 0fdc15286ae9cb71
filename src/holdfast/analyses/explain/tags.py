"""Sentences with some of their words masked, through a tagger: why it tags the entities that it
sees as it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.analyses.explain.masking import Case, MaskedScore
from holdfast.analyses.explain.texts import TOKENS, EncodedRow, TextQuery, check_fast, lessened
from holdfast.analyses.explain.units import MOST, Parted, Unit
from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints, log_sum_exp
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.tasks.classes.encoding import TextModel

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sentence:
    """The ``words`` of a sentence as a tagger reads them: ``firsts`` [read words] is the first
    piece of each, which carries its tag."""

    model: TextModel
    words: tuple[str, ...]
    read: EncodedRow
    firsts: Ints

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def logits(self, kept: Bools) -> Floats:
        """The logits [m, read words, tags] with only ``kept`` [m, units] of the words."""
        import torch

        tokenizer = self.model.tokenizer
        mask = tokenizer.mask_token_id
        # Left out, a word would have no place for its own tag.
        mask = mask if mask is not None else tokenizer.unk_token_id
        size, parts = max(1, TOKENS // max(1, len(self.read.ids))), []
        with torch.inference_mode():
            for start in range(0, len(kept), size):
                batch = lessened(self.read, kept[start : start + size], mask, 0)
                parts.append(self._at_words(self.model.network(**batch), batch).float().numpy())
        return np.concatenate(parts)

    def _at_words(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        # A learnt prompt stands before the pieces.
        own = logits[:, logits.shape[1] - batch["input_ids"].shape[1] :]
        return own[:, self.firsts.tolist()]


def read_sentence(model: TextModel, words: Sequence[str]) -> Sentence:
    """Tokenise one sentence as the tagger is asked with it."""
    tokenizer = check_fast(model.tokenizer)
    encoded = tokenizer(
        [list(words[: model.max_length])],
        is_split_into_words=True,
        truncation=True,
        max_length=model.max_length,
        padding=False,
    )
    of_word = np.array([-1 if word is None else word for word in encoded.word_ids(0)])
    read, firsts = np.unique(of_word, return_index=True)
    firsts, read = firsts[read >= 0], read[read >= 0]
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    joined = max(1, -(-len(read) // MOST))
    unit_of = np.full(len(words) + 1, -1, dtype=np.int64)
    unit_of[read] = np.arange(len(read)) // joined
    units = []
    for one in range(-(-len(read) // joined)):
        inside = np.flatnonzero(unit_of[:-1] == one)
        last = inside[-1]
        units.append(Unit(0, int(starts[inside[0]]), int(starts[last]) + len(words[last])))
    owner = np.where(of_word >= 0, unit_of[of_word], -1)
    types = encoded.get("token_type_ids")
    found = EncodedRow(
        np.asarray(encoded["input_ids"][0], dtype=np.int64),
        None if types is None else np.asarray(types[0], dtype=np.int64),
        Parted(tuple(units), owner, joined, len(words) - len(read)),
    )
    return Sentence(model, tuple(words), found, firsts)


def tag_cases(sentence: Sentence) -> list[Case]:
    """The case of a sentence's entities: the mean log probability of the tags of the words that are
    tagged as part of one; of a sentence without one, of all words."""
    names = sentence.model.classes
    units = sentence.read.words
    logits = sentence.logits(np.ones((1, units), dtype=bool))[0]
    tags = logits.argmax(axis=1)
    inside = np.flatnonzero([names[tag] != OUTSIDE for tag in tags])
    watched = inside if len(inside) else np.arange(len(tags))
    chosen = tags[watched]

    def ask(kept: Bools) -> Floats:
        wide = sentence.logits(kept)[:, watched].astype(np.float64)
        own = np.take_along_axis(wide, np.broadcast_to(chosen, wide.shape[:2])[..., None], axis=2)
        return np.asarray((own[..., 0] - log_sum_exp(wide)).mean(axis=1))

    def score(found: Tensor) -> Tensor:
        import torch

        own = found[:, found.shape[1] - len(sentence.read.ids) :]
        at = own[:, sentence.firsts[watched].tolist()].log_softmax(dim=-1)
        places = torch.as_tensor(chosen).expand(len(at), -1).unsqueeze(-1)
        return at.gather(2, places)[..., 0].mean(dim=1)

    asked = TextQuery(sentence.model, sentence.read)
    can = hasattr(sentence.model.network, "model")
    gradients = (lambda: asked.gradients(score)) if can else None
    shown = sorted({names[tag].partition("-")[2] or names[tag] for tag in chosen})
    return [
        Case(
            ", ".join(shown) if len(inside) else OUTSIDE,
            "log probability",
            MaskedScore(ask, units),
            gradients,
            lambda scores: np.exp(np.minimum(scores, 0.0)),
        )
    ]
