"""Replace the terms of one group in a text by those of another, keeping the grammar (English).

Capitals follow the text ("HE" → "SHE", "emily" → "jamal"), and articles follow the sound ("a
German" → "an Indian"). Ambiguous words depend on the next word: "her" before a content word becomes
"his", elsewhere "him"; "his" before a content word becomes "her", elsewhere "hers". This is wrong
for "saw her yesterday". A genitive 's stays in place.

``counterfactual`` makes such forms of training rows (1807.11714). If a name, a pronoun or a country
is correlated with a label, forms with another group's term have the same label, so the model cannot
learn the correlation.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from holdfast.augment.registry import EachText, enrichment
from holdfast.augment.terms.lexicon import Axis, TermBlock, built_in, read_lexicon
from holdfast.augment.texts.word_edits import FUNCTION
from holdfast.core.errors import RecipeError
from holdfast.core.settings import setting

# Words that begin with a vowel letter but a consonant sound, and vice versa.
CONSONANT = re.compile(r"(?:u(?:ni|s|k|g|ti)|eu|one\b|once\b|ewe)", re.I)
VOWEL = re.compile(r"(?:[aeiou]|hour|honest|honou?r|heir)", re.I)
NEXT = re.compile(r"\s+([\w'’-]+)")
ARTICLE = re.compile(r"\b(an?)(\s+)$", re.I)
# Function words between a determiner and its noun, which do not follow an object.
BETWEEN = frozenset(["own", "few", "other", "same", "very", "more", "most", "once"])


class Mention(NamedTuple):
    """A term in a text: its span, its block, its group, its place in the group, and its slot."""

    start: int
    end: int
    block: int
    group: str
    place: int
    slot: str


# (block, new group, mention) → the index of the term in that group.
Pick = Callable[[TermBlock, str, Mention], int]


def same_place(block: TermBlock, group: str, mention: Mention) -> int:
    """The term at the same place in the other group's list."""
    return mention.place


def mentions(axis: Axis, text: str) -> list[Mention]:
    """The terms of ``axis`` in ``text``, in order."""
    matches = []
    for match in axis.pattern.finditer(text):
        readings = axis.known[match.group().casefold()]
        block, group, place, slot = _reading(readings, text[match.end() :])
        matches.append(Mention(match.start(), match.end(), block, group, place, slot))
    return matches


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
    mentions_found: list[Mention],
    pick: Pick = same_place,
    *,
    anew: bool = False,
) -> str:
    """``text`` with all terms of the axis (``mentions_found``) replaced by terms of ``group``. With
    ``anew``, unmatched terms that are already of that group are replaced too."""
    pieces: list[str] = []
    end = 0
    for one in mentions_found:
        block = axis.blocks[one.block]
        old = text[one.start : one.end]
        new = old
        if one.group != group or (anew and not block.matched):
            place = one.place if block.matched else pick(block, group, one)
            new = _cased(block.groups[group][place].word(one.slot) or old, old)
        before = text[end : one.start]
        # Adjust the article to the new term; without a change the text stays as it is.
        pieces += [before if new == old else _article(before, new), new]
        end = one.end
    return "".join([*pieces, text[end:]])


def inserted(block: TermBlock, text: str, group: str, place: int) -> str:
    """``text`` after the block's frame with a term of ``group``; in lowercase if the text has no
    capital."""
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
    """The text before a word, with an indefinite article that fits it."""
    match = ARTICLE.search(before)
    if match is None:
        return before
    vowel = VOWEL.match(word) is not None and CONSONANT.match(word) is None
    fitting = _cased("an" if vowel else "a", match.group(1))
    return before[: match.start()] + fitting + match.group(2)


BUILT_IN = "built-in"
_lexicon = functools.cache(read_lexicon)


def any_group(
    axis: Axis, text: str, rng: np.random.Generator, *, insert: bool = False
) -> str | None:
    """The text with its terms of ``axis`` replaced by those of a random group. Its own group is as
    likely as any other: otherwise group and label would not be independent in the forms. An
    unmatched term is replaced by a random one, the same term always by the same one. With
    ``insert``, a text without terms gets one before it. ``None`` if there is nothing to change.
    """
    mentions_found = mentions(axis, text)
    group = axis.groups[int(rng.integers(len(axis.groups)))]
    if not mentions_found:
        blocks = [block for block in axis.blocks if block.insertable] if insert else []
        if not blocks:
            return None
        block = blocks[int(rng.integers(len(blocks)))]
        return inserted(block, text, group, int(rng.choice(block.insertable)))
    drawn: dict[tuple[int, str, int], int] = {}

    def pick(block: TermBlock, _: str, one: Mention) -> int:
        key = (one.block, one.group, one.place)
        return drawn.setdefault(key, int(rng.integers(block.size)))

    return in_group(axis, text, group, mentions_found, pick, anew=True)


@enrichment(
    "counterfactual",
    "text",
    "reduced the effect of a name planted in 1,500 reviews from 32 and 45 points to 0.6 and 1.1 "
    "(benchmarks/results/fairness.md); 1807.11714 reports the same for gender in two other tasks",
)
@dataclass(frozen=True)
class Counterfactual(EachText):
    """``axes``: which of the lexicon's axes are changed, each separately (all by default);
    ``terms``: the file of a custom lexicon; ``insert``: put a term before texts that have none. The
    default ``share`` is all rows, because a form may keep the row's own group. English, except with
    a custom lexicon."""

    share: float = setting(1.0, above=0, most=1)
    axes: tuple[str, ...] = setting(())
    terms: str = setting(BUILT_IN)
    insert: bool = setting(False)
    keeps_names = False

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Apply ``any_group`` for each axis in turn."""
        axes, new, changed = self._axes(), text, False
        for axis in axes:
            other = any_group(axis, new, rng)
            new, changed = (new, changed) if other is None else (other, True)
        if changed or not self.insert or not text.strip():
            return new
        return any_group(axes[int(rng.integers(len(axes)))], text, rng, insert=True) or text

    def ready(self) -> None:
        """Raise ``RecipeError`` if the file is not a lexicon or lacks a requested axis."""
        self._axes()

    def _axes(self) -> list[Axis]:
        known = built_in() if self.terms == BUILT_IN else _lexicon(self.terms)
        wrong = [name for name in self.axes if name not in known]
        if wrong:
            remedy = f"Available: {', '.join(known)}."
            rule = "names an axis that is not in the lexicon"
            raise RecipeError("augment.counterfactual.axes", rule, wrong[0], remedy)
        return [known[name] for name in self.axes or known]
