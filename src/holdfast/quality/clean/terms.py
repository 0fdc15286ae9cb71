"""A cleaning step that deletes words, phrases or symbols: cues of a class that new texts will not
have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from holdfast.core.errors import RecipeError
from holdfast.data.texts.general import UNSPACED
from holdfast.quality.clean.treatment import TextTreatment, add_treatment

# In these scripts a term has no ends that could be seen.
_UNSPACED_LETTER = re.compile(f"[{UNSPACED}]")
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
    for start, end in sorted(_spans(folded, settings.drop)):
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
    for term in terms:
        for found in _pattern(term.casefold()).finditer(folded):
            end = found.end()
            while end < len(folded) and unicodedata.category(folded[end]) in ("Mn", "Mc", "Me"):
                end += 1
            # A letter with a mark is another letter; a symbol with one is the same symbol.
            if end == found.end() or not folded[found.end() - 1].isalnum():
                yield found.start(), end


@lru_cache(maxsize=256)
def _pattern(term: str) -> re.Pattern[str]:
    """Matches a term with any white space between its words. It is no part of a longer word, nor of
    one with hyphens or apostrophes."""
    words = term.split()
    between = r"\s*" if _UNSPACED_LETTER.search(term) else r"\s+"
    begin = end = ""
    if words[0][0].isalnum() and not _UNSPACED_LETTER.match(words[0][0]):
        begin = r"(?<!\w)(?<!\w['’-])"
    if words[-1][-1].isalnum() and not _UNSPACED_LETTER.match(words[-1][-1]):
        end = r"(?!\w)(?!['’-]\w)"
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
