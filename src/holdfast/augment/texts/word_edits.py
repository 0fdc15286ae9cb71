"""Forms that edit a text word by word: EDA and its four operations (1901.11196), AEDA, cut-out.

EDA has synonyms, random insertion, swap and deletion. Of synonyms, part of speech and inflection
are kept: a word is replaced only where what it is stands clear (``WordNet.clear_reading``), by a
single word of the synset in the same form, and an article before it follows ("a great day" → "an
outstanding day"). The others change no word into another. Words that are not free
(``free_places``) are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.augment.registry import EachText, count_of, enrichment, setting
from holdfast.augment.texts.wordnet import wordnet
from holdfast.augment.texts.words import FUNCTION, SplitText, free_places, split

EDA = "gains for CNNs and RNNs on few rows (1901.11196), none for tuned transformers (2010.01764)"
VOWELS = "aeiou"
LEAST_LETTERS = 3
MARKS = (".", ";", "?", ":", "!", ",")


def content_places(words: SplitText, protect: Sequence[str]) -> list[int]:
    """The free places that hold words of content."""
    return [
        place
        for place in free_places(words, protect)
        if len(words.words[place]) >= LEAST_LETTERS
        and words.words[place].isalpha()
        and words.words[place].casefold() not in FUNCTION
    ]


def put(words: SplitText, place: int, new: str) -> SplitText:
    """The words with ``new`` at ``place``, in its case, with an article that fits."""
    old = words.words[place]
    cased = new.upper() if old.isupper() and len(old) > 1 else new
    cased = cased[:1].upper() + cased[1:] if old[:1].isupper() else cased
    words = words.changed(place, cased)
    article = words.words[place - 1] if place and words.gaps[place].isspace() else ""
    if article.casefold() not in ("a", "an") or (old[0] in VOWELS) == (new[0] in VOWELS):
        return words
    fitting = "an" if new[0] in VOWELS else "a"
    fitting = fitting.capitalize() if article[0].isupper() else fitting
    return words.changed(place - 1, fitting)


@dataclass(frozen=True)
class WordEdit(EachText):
    """One whose ``strength`` is the share of the words that it touches."""

    strength: float = setting(0.1, above=0, most=1)


@dataclass(frozen=True)
class SynonymEdit(WordEdit):
    """One that puts synonyms of WordNet."""

    def ready(self) -> None:
        """Raises ``MachineError`` where WordNet is not installed."""
        wordnet()


@enrichment("synonyms", "text", EDA)
@dataclass(frozen=True)
class Synonyms(SynonymEdit):
    """``strength`` is the share of the words that is replaced at most. English."""

    strength: float = setting(0.2, above=0, most=1)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text with up to ``strength`` · words of its free words replaced by synonyms."""
        words = split(text)
        left = count_of(self.strength, len(words))
        for place in rng.permutation(content_places(words, self.protect)):
            known = wordnet().synonyms(words.words[place].casefold())
            if known and left:
                words, left = put(words, int(place), str(rng.choice(known))), left - 1
        return str(words)


@enrichment("insert", "text", EDA)
@dataclass(frozen=True)
class Insert(SynonymEdit):
    """``strength`` is how many words come in, as a share of the words. English."""

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text with ``strength`` · words synonyms of its own words put in at random."""
        words, synonyms = split(text), wordnet().synonyms
        own = [words.words[place].casefold() for place in content_places(words, self.protect)]
        known = [choices for word in own if (choices := synonyms(word))]
        if not known:
            return text
        for _ in range(count_of(self.strength, len(words))):
            word = str(rng.choice(known[int(rng.integers(len(known)))]))
            words = words.inserted(int(rng.integers(len(words) + 1)), word)
        return str(words)


@enrichment("swap", "text", EDA)
@dataclass(frozen=True)
class Swap(WordEdit):
    """``strength`` is the number of swaps in shares of the words."""

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text after ``strength`` · words swaps of two of its free words."""
        words = split(text)
        free = free_places(words, self.protect)
        if len(free) < 2:
            return text
        order = list(words.words)
        for _ in range(count_of(self.strength, len(words))):
            one, other = (int(place) for place in rng.choice(free, size=2, replace=False))
            order[one], order[other] = order[other], order[one]
        return str(SplitText(tuple(order), words.gaps))


@enrichment("delete", "text", EDA)
@dataclass(frozen=True)
class Delete(WordEdit):
    """``strength`` is the probability that a word is left out."""

    strength: float = setting(0.1, above=0, most=0.9)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text without those of its free words that chance takes; of a text of one word it is
        kept."""
        words = split(text)
        gone = [at for at in free_places(words, self.protect) if rng.random() < self.strength]
        for place in reversed(gone[: len(words) - 1]):
            words = words.without(place, place + 1)
        return str(words)


@enrichment("eda", "text", EDA)
@dataclass(frozen=True)
class Eda(SynonymEdit):
    """One of the four operations by chance, each as likely. ``strength`` is the paper's α: the
    share of the words that an operation touches."""

    strength: float = setting(0.1, above=0, most=0.9)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text after the operation that ``rng`` draws."""
        drawn = (Synonyms, Insert, Swap, Delete)[int(rng.integers(4))]
        return drawn(strength=self.strength, protect=self.protect).change(text, rng)


@enrichment("aeda", "text", "the paper gains with RNNs and CNNs, little with BERT (2108.13273)")
@dataclass(frozen=True)
class Aeda(WordEdit):
    """AEDA (2108.13273), punctuation marks at random places: at most ``strength`` times the number
    of words. No word is changed, moved or lost, so the meaning survives by construction."""

    strength: float = setting(1 / 3, above=0, most=1)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text with 1 … ``strength`` · words marks before words that are drawn without
        replacement, each followed by a space."""
        words = split(text)
        if not len(words):
            return text
        count = int(rng.integers(1, max(1, int(self.strength * len(words))) + 1))
        places = rng.choice(len(words), size=count, replace=False)
        chosen = {int(place): str(rng.choice(MARKS)) for place in places}
        marked = [
            f"{chosen[place]} {word}" if place in chosen else word
            for place, word in enumerate(words.words)
        ]
        return str(SplitText(tuple(marked), words.gaps))


@enrichment("cutout", "text", "gains of about a point with a consistency loss (2009.13818)")
@dataclass(frozen=True)
class Cutout(WordEdit):
    """Span cut-out: a stretch of neighbouring words is left out, as a square of a picture is
    (2009.13818 calls it span cutoff). ``strength`` is the share of the words that it holds."""

    strength: float = setting(0.2, above=0, most=0.5)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text without such a stretch of free words; as it is, where none is that long."""
        words = split(text)
        size = min(count_of(self.strength, len(words)), len(words) - 1)
        free = set(free_places(words, self.protect))
        begins = [
            at for at in range(len(words) - size + 1) if all(at + k in free for k in range(size))
        ]
        if size < 1 or not begins:
            return text
        begin = int(rng.choice(begins))
        return str(words.without(begin, begin + size))
