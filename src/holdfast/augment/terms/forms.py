"""A text with the terms of one group in the place of another's, its grammar kept (English).

Capitals follow the text ("HE" → "SHE", "emily" → "jamal"), an article follows the sound ("a
German" → "an Indian"), and of words that are two things the next word decides: "her" before a word
of content is "his", elsewhere "him"; "his" before one is "her", elsewhere "hers". That reads "saw
her yesterday" wrongly. A genitive's 's stays where it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from holdfast.augment.terms.lexicon import Axis, TermBlock
from holdfast.augment.texts.words import FUNCTION

# Written with a vowel and spoken with a consonant, and the other way round.
CONSONANT = re.compile(r"(?:u(?:ni|s|k|g|ti)|eu|one\b|once\b|ewe)", re.I)
VOWEL = re.compile(r"(?:[aeiou]|hour|honest|honou?r|heir)", re.I)
NEXT = re.compile(r"\s+([\w'’-]+)")
ARTICLE = re.compile(r"\b(an?)(\s+)$", re.I)
# Words of grammar that stand between a determiner and its noun, not behind an object.
BETWEEN = frozenset(["own", "few", "other", "same", "very", "more", "most", "once"])


class Mention(NamedTuple):
    """A term in a text: where, of which block, group and place there, in which slot."""

    start: int
    end: int
    block: int
    group: str
    place: int
    slot: str


# block, the group to write, the mention → which term of that group.
Pick = Callable[[TermBlock, str, Mention], int]


def same_place(block: TermBlock, group: str, mention: Mention) -> int:
    """The term that stands where the old one did in its list."""
    return mention.place


def mentions(axis: Axis, text: str) -> list[Mention]:
    """The terms of ``axis`` in ``text``, in their order."""
    found = []
    for match in axis.pattern.finditer(text):
        readings = axis.known[match.group().casefold()]
        block, group, place, slot = _reading(readings, text[match.end() :])
        found.append(Mention(match.start(), match.end(), block, group, place, slot))
    return found


def _reading(
    readings: tuple[tuple[int, str, int, str], ...], after: str
) -> tuple[int, str, int, str]:
    if len(readings) == 1:
        return readings[0]
    by_slot = {one[3]: one for one in readings}
    following = NEXT.match(after)
    word = following.group(1).casefold() if following else ""
    owns = bool(word) and (word not in FUNCTION or word in BETWEEN)
    if owns and "determiner" in by_slot:
        return by_slot["determiner"]
    return next((by_slot[s] for s in ("object", "possessive") if s in by_slot), readings[0])


def in_group(
    axis: Axis,
    text: str,
    group: str,
    found: list[Mention],
    pick: Pick = same_place,
    *,
    anew: bool = False,
) -> str:
    """``text`` with all terms of the axis (``found``) as those of ``group``; ``anew``: terms that
    are of that group already, and not matched, are picked as the others are."""
    pieces: list[str] = []
    end = 0
    for one in found:
        block = axis.blocks[one.block]
        old = text[one.start : one.end]
        new = old
        if one.group != group or (anew and not block.matched):
            chosen = one.place if block.matched else pick(block, group, one)
            new = _cased(block.groups[group][chosen].word(one.slot) or old, old)
        before = text[end : one.start]
        # Of the text as it is read to the ear; without a change it stays to the letter.
        pieces += [before if new == old else _article(before, new), new]
        end = one.end
    return "".join([*pieces, text[end:]])


def inserted(block: TermBlock, text: str, group: str, place: int) -> str:
    """``text`` behind the block's frame with a term of ``group``; in small letters where the text
    has no capital."""
    word = block.groups[group][place].word(block.framed)
    assert block.frame is not None
    assert word is not None
    before, _, after = block.frame.partition("{}")
    head = f"{_article(before, word)}{word}{after}"
    plain = text == text.lower() and text != text.upper()
    return (head.lower() if plain else head[:1].upper() + head[1:]) + text


def _cased(new: str, old: str) -> str:
    if len(old) > 1 and old.isupper():
        return new.upper()
    if old[:1].isupper():
        return new[:1].upper() + new[1:]
    return new.lower()


def _article(before: str, word: str) -> str:
    """What stands before a word, with an indefinite article that fits it."""
    found = ARTICLE.search(before)
    if found is None:
        return before
    vowel = VOWEL.match(word) is not None and CONSONANT.match(word) is None
    fitting = _cased("an" if vowel else "a", found.group(1))
    return before[: found.start()] + fitting + found.group(2)
