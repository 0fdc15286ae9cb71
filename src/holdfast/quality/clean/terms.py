"""A cleaning step that deletes words, phrases or symbols: cues of a class that new texts will not
have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from holdfast.core.errors import RecipeError
from holdfast.data.texts.general import UNSPACED
from holdfast.quality.clean.treatment import TextTreatment, add_treatment

# In these scripts a term has no ends that could be seen.
_UNSPACED_LETTER = re.compile(f"[{UNSPACED}]")
_IN_WORDS = "['\u2019\u2010\u2011-]"
# Symbols: what joins several to one, what selects a form of one, skin tones, the halves of flags.
_JOINER, _VARIANTS = "\u200d", "\ufe0e\ufe0f"
_SKIN_TONES = "".join(map(chr, range(0x1F3FB, 0x1F400)))
_LETTERS_OF_FLAGS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
# Left over where a term was the first or the last word.
_PAUSES = ",;:"


@dataclass(frozen=True, slots=True)
class Terms:
    """``drop``: the terms, in upper or lower case."""

    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.drop or not all(isinstance(one, str) and one.strip() for one in self.drop):
            remedy = "For example --set 'clean.terms.drop=[\"best regards\"]'."
            rule = "must be a list of words, phrases or symbols"
            raise RecipeError("clean.terms.drop", rule, list(self.drop), remedy)


def drop_terms(text: str, settings: Terms) -> str:
    """The text without the terms, and a single space or line break where they were inside it.

    >>> drop_terms("Kindly, what is it?", Terms(("kindly",)))
    'what is it?'
    """
    folded, places = _casefold(text)
    spans: list[tuple[int, int]] = []
    for start, end in sorted(set(_spans(folded, settings.drop))):
        begin, stop = places[start], places[end - 1] + 1
        if spans and not text[spans[-1][1] : begin].strip():
            begin, stop = spans[-1][0], max(stop, spans[-1][1])
            spans.pop()
        spans.append((begin, stop))
    if not spans:
        return text
    ends = [0, *(stop for _, stop in spans)]
    left, *pieces = (
        text[a:b] for a, b in zip(ends, [*(start for start, _ in spans), len(text)], strict=True)
    )
    for piece in pieces:
        left = _joined(left, piece)
    return left


def _joined(left: str, right: str) -> str:
    """The text on both sides of a deleted term."""
    before, after = left.rstrip(), right.lstrip()
    if not before or not after:
        return after.lstrip(_PAUSES + " ") if after else before.rstrip(_PAUSES + " ")
    space = left[len(before) :] + right[: len(right) - len(after)]
    gap = "\n" if "\n" in space else " " if space else ""
    return f"{before}{gap}{after}"


def _casefold(text: str) -> tuple[str, Sequence[int]]:
    """The text in one case, and the place in ``text`` of each of its characters."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded, range(len(text))
    parts = [character.casefold() for character in text]
    return "".join(parts), [place for place, part in enumerate(parts) for _ in part]


def _spans(folded: str, terms: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where a term begins and ends."""
    for words in _words_of(tuple(terms)):
        if words[0] not in folded:
            continue
        for found in _pattern(words).finditer(folded):
            end = found.end()
            while end < len(folded) and _is_mark(folded[end]):
                end += 1
            # A letter with a mark is another letter; a symbol with one is the same symbol.
            if end > found.end() and folded[found.end() - 1].isalnum():
                continue
            # Joined symbols are another symbol.
            if folded[end : end + 1] != _JOINER:
                yield found.start(), end


@lru_cache(maxsize=8)
def _words_of(terms: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The words of each term in one case, with their accents as one character with the letter and
    as two."""
    forms = {
        unicodedata.normalize(form, term.casefold().rstrip(_VARIANTS) or term)
        for term in terms
        for form in ("NFC", "NFD")
    }
    return tuple(tuple(form.split()) for form in sorted(forms))


def _is_mark(character: str) -> bool:
    """Whether it changes the character before it: accents, forms and skin tones of symbols."""
    return unicodedata.category(character) in ("Mn", "Mc", "Me") or character in _SKIN_TONES


@cache
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Matches a term with any white space between its words. It is no part of a longer word, nor of
    one with hyphens or apostrophes, nor of a flag or of joined symbols."""
    between = r"\s*" if any(map(_UNSPACED_LETTER.search, words)) else r"\s+"
    first, last = words[0][0], words[-1][-1]
    begin, end = f"(?<!{_JOINER})", ""
    if first.isalnum() and not _UNSPACED_LETTER.match(first):
        begin = rf"(?<!\w)(?<!\w{_IN_WORDS})"
    if last.isalnum() and not _UNSPACED_LETTER.match(last):
        end = rf"(?!\w)(?!{_IN_WORDS}\w)"
    if "".join(words) in _LETTERS_OF_FLAGS:
        begin, end = f"(?<![{_LETTERS_OF_FLAGS}])", f"(?![{_LETTERS_OF_FLAGS}])"
    return re.compile(begin + between.join(map(re.escape, words)) + end)


add_treatment(
    TextTreatment(
        "terms",
        Terms,
        drop_terms,
        pattern=".",
        because="contained terms that clean.terms.drop names",
        order=62,
    )
)
