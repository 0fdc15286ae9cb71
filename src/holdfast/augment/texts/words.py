"""A text as its words and what stands between them, which words may be touched, and what a form of
the text must keep.

What holds a label is rarely known, but a text that lost its numbers, a negation, a name or a term
that the user protects says something else (``lost``). The similarity of the two as a sentence
encoder sees them is ``text_forms.py``'s.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

# An apostrophe or hyphen inside belongs to the word: don't, well-known. Sets that come cut into
# words have "do n't", "do n 't" and "it 's".
WORD = re.compile(r"\bn ?['’]t\b|(?<!\w)['’](?:s|re|ve|ll|d|m)\b|\w+(?:['’\-]\w+)*")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NEGATIONS = """
not no never none nor neither nothing nobody nowhere without cannot hardly barely scarcely unable
lack lacks lacking few little
"""
NEGATIONS = frozenset(_NEGATIONS.split())
NOT = re.compile(r"n ?['’]t$")
# Words that carry grammar: no synonym of theirs fits, and WordNet has odd senses of them.
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
# Beyond these a form is another text: a translation that was cut, a model that went on and on.
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
        """With another word at ``place``."""
        return replace(self, words=(*self.words[:place], word, *self.words[place + 1 :]))

    def without(self, begin: int, end: int) -> SplitText:
        """Without the words from ``begin`` up to ``end``, nor what stands between them."""
        left, right = self.gaps[begin], self.gaps[end]
        joint = left.rstrip() + right
        if begin == 0 and not left.strip():
            joint = joint.lstrip()
        gaps = (*self.gaps[:begin], joint, *self.gaps[end + 1 :])
        return SplitText((*self.words[:begin], *self.words[end:]), gaps)

    def inserted(self, place: int, word: str) -> SplitText:
        """With one word more before the one at ``place``, or at the end."""
        if place == len(self.words):
            gaps = (*self.gaps[:-1], " " if self.words else self.gaps[0], self.gaps[-1])
            return SplitText((*self.words, word), gaps)
        gaps = (*self.gaps[: place + 1], " ", *self.gaps[place + 1 :])
        return SplitText((*self.words[:place], word, *self.words[place:]), gaps)


def split(text: str) -> SplitText:
    """The words of a text."""
    words, gaps, end = [], [], 0
    for found in WORD.finditer(text):
        gaps.append(text[end : found.start()])
        words.append(found.group())
        end = found.end()
    return SplitText(tuple(words), (*gaps, text[end:]))


def is_negation(word: str) -> bool:
    """Whether the word turns what is said into its contrary (English)."""
    plain = word.casefold()
    return plain in NEGATIONS or NOT.search(plain) is not None


def is_name(words: SplitText, place: int) -> bool:
    """Whether a word looks like a name: a capital that no sentence's beginning explains. A text
    without a small letter has no names to tell."""
    word = words.words[place]
    if not word[:1].isupper() or word.casefold() == "i" or word.casefold()[:2] in ("i'", "i’"):
        return False
    if all(one.isupper() or not one.isalpha() for one in words.words):
        return False
    begins = place == 0 or any(mark in words.gaps[place] for mark in '.!?:\n"“(')
    return not begins or (len(word) > 1 and word.isupper())


def protected_places(words: SplitText, terms: Sequence[str]) -> set[int]:
    """The places of words that belong to one of these terms, whatever the case."""
    if not terms:
        return set()
    wanted = [[one.casefold() for one in split(term).words] for term in terms]
    have, found = [word.casefold() for word in words.words], set()
    for term in wanted:
        for at in range(len(have) - len(term) + 1):
            if term and have[at : at + len(term)] == term:
                found |= set(range(at, at + len(term)))
    return found


def free_places(words: SplitText, protect: Sequence[str] = ()) -> list[int]:
    """The places of words that may be replaced, moved or left out: neither numbers, negations,
    names nor protected terms."""
    held = protected_places(words, protect)
    return [
        place
        for place, word in enumerate(words.words)
        if place not in held
        and not any(letter.isdigit() for letter in word)
        and not is_negation(word)
        and not is_name(words, place)
    ]


def numbers_of(text: str) -> Counter[str]:
    """How often each number stands in a text."""
    return Counter(NUMBER.findall(text))


def negations_of(words: SplitText) -> int:
    """How many words of a text negate."""
    return sum(is_negation(word) for word in words.words)


def names_of(words: SplitText) -> Counter[str]:
    """How often each name stands in a text."""
    return Counter(word for place, word in enumerate(words.words) if is_name(words, place))


def lost(before: str, after: str, protect: Sequence[str] = (), *, names: bool = True) -> str | None:
    """What a form lost of its text in a word (``numbers``, ``negation``, ``names``, ``protected
    terms``, ``length``, ``all words``), or ``None`` where nothing is missed.

    Numbers must be the same, as often; negations as many; every name and every protected term must
    be there as often as before; the words at least half and at most twice as many, or one apart.
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
