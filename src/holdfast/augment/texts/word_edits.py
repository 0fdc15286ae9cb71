"""Word-level augmentation: which words may be edited, what a form must keep, and the edits.

Which words determine the label is rarely known. But a text that lost its numbers, a negation, a
name or a protected term has another meaning (``lost``). ``text_forms.py`` checks the similarity of
text and form with a sentence encoder.

The augmentations are EDA and its four operations (1901.11196), AEDA and span cutoff. EDA has
synonym replacement, random insertion, swap and deletion. Synonyms keep part of speech and
inflection: a word is replaced only if its reading is clear (``WordNet.clear_reading``), by a single
word of the synset in the same form, and the article before it is adjusted ("a great day" → "an
outstanding day"). The other operations do not replace words. Words that are not free
(``free_places``) are never edited.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from holdfast.augment.registry import EachText, count_of, enrichment
from holdfast.augment.texts.wordnet import wordnet
from holdfast.core.settings import setting

# An apostrophe or hyphen inside belongs to the word: don't, well-known. Tokenized data sets have
# "do n't", "do n 't" and "it 's".
WORD = re.compile(r"\bn ?['’]t\b|(?<!\w)['’](?:s|re|ve|ll|d|m)\b|\w+(?:['’\-]\w+)*")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NEGATIONS = """
not no never none nor neither nothing nobody nowhere without cannot hardly barely scarcely unable
lack lacks lacking few little
"""
NEGATIONS = frozenset(_NEGATIONS.split())
NOT = re.compile(r"n ?['’]t$")
# Function words: no synonym of theirs fits, and WordNet has unusual senses of them.
_FUNCTION = """
a about after again against all also am an and any are aren't as at be because been before being
below between both but by can could d did do does doing done down during each else ever every few
for from further had has have having he her here hers herself him himself his how i if in into is
it its itself just ll m may me might more most much must my myself n't no nor not now of off on
once one only onto or other our ours ourselves out over own re s same shall she should so some
such t than that the their theirs them themselves then there these they this those through to too
under until up ve very was we were what when where which while who whom whose why will with would
yes yet you your yours yourself yourselves
"""
FUNCTION = frozenset(_FUNCTION.split())
# Outside this range of relative length a form is another text: a truncated translation, or a model
# that did not stop.
LEAST_LENGTH, MOST_LENGTH = 0.5, 2.0


@dataclass(frozen=True, slots=True)
class SplitText:
    """``gaps[0] + words[0] + gaps[1] + … + words[n − 1] + gaps[n]`` is the text."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words)

    def __str__(self) -> str:
        pieces = [self.gaps[0]]
        for word, gap in zip(self.words, self.gaps[1:], strict=True):
            pieces += [word, gap]
        return "".join(pieces)

    def changed(self, place: int, word: str) -> SplitText:
        """The text with another word at ``place``."""
        return replace(self, words=(*self.words[:place], word, *self.words[place + 1 :]))

    def without(self, begin: int, end: int) -> SplitText:
        """The text without the words from ``begin`` up to ``end`` and the gaps between them."""
        left, right = self.gaps[begin], self.gaps[end]
        joint = left.rstrip() + right
        if begin == 0 and not left.strip():
            joint = joint.lstrip()
        gaps = (*self.gaps[:begin], joint, *self.gaps[end + 1 :])
        return SplitText((*self.words[:begin], *self.words[end:]), gaps)

    def inserted(self, place: int, word: str) -> SplitText:
        """The text with an additional word before the one at ``place``, or at the end."""
        if place == len(self.words):
            gaps = (*self.gaps[:-1], " " if self.words else self.gaps[0], self.gaps[-1])
            return SplitText((*self.words, word), gaps)
        gaps = (*self.gaps[: place + 1], " ", *self.gaps[place + 1 :])
        return SplitText((*self.words[:place], word, *self.words[place:]), gaps)


def split(text: str) -> SplitText:
    """The words and gaps of a text."""
    words, gaps, end = [], [], 0
    for match in WORD.finditer(text):
        gaps.append(text[end : match.start()])
        words.append(match.group())
        end = match.end()
    return SplitText(tuple(words), (*gaps, text[end:]))


def is_negation(word: str) -> bool:
    """Whether the word negates (English)."""
    plain = word.casefold()
    return plain in NEGATIONS or NOT.search(plain) is not None


def is_name(words: SplitText, place: int) -> bool:
    """Whether a word looks like a name: it is capitalised although it does not begin a sentence. In
    a text without lowercase letters no word is a name."""
    word = words.words[place]
    if not word[:1].isupper() or word.casefold() == "i" or word.casefold()[:2] in ("i'", "i’"):
        return False
    if all(one.isupper() or not one.isalpha() for one in words.words):
        return False
    begins = place == 0 or any(mark in words.gaps[place] for mark in '.!?:\n"“(')
    return not begins or (len(word) > 1 and word.isupper())


def protected_places(words: SplitText, terms: Sequence[str]) -> set[int]:
    """The places of words that belong to one of these terms, ignoring case."""
    if not terms:
        return set()
    protected_terms = [[one.casefold() for one in split(term).words] for term in terms]
    have, protected = [word.casefold() for word in words.words], set()
    for term in protected_terms:
        for at in range(len(have) - len(term) + 1):
            if term and have[at : at + len(term)] == term:
                protected |= set(range(at, at + len(term)))
    return protected


def free_places(words: SplitText, protect: Sequence[str] = ()) -> list[int]:
    """The places of words that may be replaced, moved or deleted: neither numbers, negations, names
    nor protected terms."""
    protected = protected_places(words, protect)
    return [
        place
        for place, word in enumerate(words.words)
        if place not in protected
        and not any(letter.isdigit() for letter in word)
        and not is_negation(word)
        and not is_name(words, place)
    ]


def numbers_of(text: str) -> Counter[str]:
    """How often each number occurs in a text."""
    return Counter(NUMBER.findall(text))


def negations_of(words: SplitText) -> int:
    """The number of negations in a text."""
    return sum(is_negation(word) for word in words.words)


def names_of(words: SplitText) -> Counter[str]:
    """How often each name occurs in a text."""
    return Counter(word for place, word in enumerate(words.words) if is_name(words, place))


def lost(before: str, after: str, protect: Sequence[str] = (), *, names: bool = True) -> str | None:
    """What a form lost of its text, as a keyword (``numbers``, ``negation``, ``names``, ``protected
    terms``, ``length``, ``all words``), or ``None``.

    The form must have the same numbers equally often, the same number of negations, every name, and
    every protected term as often as before. The number of words must be between half and twice that
    of the text, or differ by one.
    """
    old, new = split(before), split(after)
    if len(old) and not len(new):
        return "all words"
    if numbers_of(before) != numbers_of(after):
        return "numbers"
    if negations_of(old) != negations_of(new):
        return "negation"
    have = {word.casefold() for word in new.words}
    if names and any(name.casefold() not in have for name in names_of(old)):
        return "names"
    for term in protect:
        if len(protected_places(old, [term])) != len(protected_places(new, [term])):
            return "protected terms"
    far = not LEAST_LENGTH * len(old) <= len(new) <= MOST_LENGTH * len(old)
    return "length" if far and abs(len(new) - len(old)) > 1 else None


EDA = (
    "gains for CNNs and RNNs on few rows (1901.11196), none for fine-tuned transformers "
    "(2010.01764)"
)
VOWELS = "aeiou"
LEAST_LETTERS = 3
MARKS = (".", ";", "?", ":", "!", ",")


def content_places(words: SplitText, protect: Sequence[str]) -> list[int]:
    """The free places of content words."""
    return [
        place
        for place in free_places(words, protect)
        if len(words.words[place]) >= LEAST_LETTERS
        and words.words[place].isalpha()
        and words.words[place].casefold() not in FUNCTION
    ]


def put(words: SplitText, place: int, new: str) -> SplitText:
    """The words with ``new`` at ``place``, in the old word's case, with a matching article."""
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
    """An enrichment whose ``strength`` is the share of the words that it edits."""

    strength: float = setting(0.1, above=0, most=1)


@dataclass(frozen=True)
class SynonymEdit(WordEdit):
    """A word edit that uses synonyms of WordNet."""

    def ready(self) -> None:
        """Raise ``MachineError`` if WordNet is not installed."""
        wordnet()


@enrichment("synonyms", "text", EDA)
@dataclass(frozen=True)
class Synonyms(SynonymEdit):
    """Synonym replacement. ``strength`` is the largest share of the words that is replaced.
    English."""

    strength: float = setting(0.2, above=0, most=1)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text with up to ``strength`` · words free content words replaced by synonyms."""
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
    """Random insertion. ``strength`` is the number of inserted words as a share of the words.
    English."""

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text with ``strength`` · words synonyms of its words inserted at random places."""
        words, synonyms = split(text), wordnet().synonyms
        content_words = [
            words.words[place].casefold() for place in content_places(words, self.protect)
        ]
        known = [choices for word in content_words if (choices := synonyms(word))]
        if not known:
            return text
        for _ in range(count_of(self.strength, len(words))):
            word = str(rng.choice(known[int(rng.integers(len(known)))]))
            words = words.inserted(int(rng.integers(len(words) + 1)), word)
        return str(words)


@enrichment("swap", "text", EDA)
@dataclass(frozen=True)
class Swap(WordEdit):
    """Random swap. ``strength`` is the number of swaps as a share of the words."""

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
    """Random deletion. ``strength`` is the probability that a word is deleted."""

    strength: float = setting(0.1, above=0, most=0.9)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text without randomly selected free words; at least one word stays."""
        words = split(text)
        gone = [at for at in free_places(words, self.protect) if rng.random() < self.strength]
        for place in reversed(gone[: len(words) - 1]):
            words = words.without(place, place + 1)
        return str(words)


@enrichment("eda", "text", EDA)
@dataclass(frozen=True)
class Eda(SynonymEdit):
    """One of the four EDA operations at random, with equal probability. ``strength`` is the paper's
    α: the share of the words that an operation edits."""

    strength: float = setting(0.1, above=0, most=0.9)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text after the operation that ``rng`` draws."""
        drawn = (Synonyms, Insert, Swap, Delete)[int(rng.integers(4))]
        return drawn(strength=self.strength, protect=self.protect).change(text, rng)


@enrichment("aeda", "text", "gains with RNNs and CNNs, small gains with BERT (2108.13273)")
@dataclass(frozen=True)
class Aeda(WordEdit):
    """AEDA (2108.13273): punctuation marks at random places, at most ``strength`` times the number
    of words. No word is changed, moved or deleted, so the meaning stays by construction."""

    strength: float = setting(1 / 3, above=0, most=1)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text with 1 … ``strength`` · words punctuation marks, each followed by a space,
        before words that are drawn without replacement."""
        words = split(text)
        if not len(words):
            return text
        count = int(rng.integers(1, max(1, int(self.strength * len(words))) + 1))
        places = rng.choice(len(words), size=count, replace=False)
        marks = {int(place): str(rng.choice(MARKS)) for place in places}
        marked = [
            f"{marks[place]} {word}" if place in marks else word
            for place, word in enumerate(words.words)
        ]
        return str(SplitText(tuple(marked), words.gaps))


@enrichment("cutout", "text", "gains of about a point with a consistency loss (2009.13818)")
@dataclass(frozen=True)
class Cutout(WordEdit):
    """Span cutoff (2009.13818): a span of neighbouring words is deleted. ``strength`` is its share
    of the words."""

    strength: float = setting(0.2, above=0, most=0.5)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """The text without such a span of free words; unchanged if no span is that long."""
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
