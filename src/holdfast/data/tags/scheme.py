"""How tags mark entities: the scheme of a set of sentences, and where it is broken.

| scheme | an entity | marks |
|---|---|---|
| ``IOB2`` | every entity begins with ``B-`` | B I |
| ``IOB1`` | ``B-`` only parts two entities of one type that touch | B I |
| ``BIOES`` | as IOB2, its last word is ``E-``, a single one ``S-`` | B I E S |
| ``plain`` | a run of one tag | none |

A word outside of every entity is ``O``; BILOU writes ``L-`` for ``E-`` and ``U-`` for ``S-``. Where
there is one type only, its name may be missing: ``B``, ``I`` and ``O`` (see ``are_bare``).
Source: Ramshaw and Marcus 1995 (cmp-lg/9505040), Ratinov and Roth 2009 for BILOU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Scheme = Literal["IOB1", "IOB2", "BIOES", "plain"]
OUTSIDE = "O"
MARKS = "BIESLU"
# Of two names, the one that the rules below are written in.
SAME = {"L": "E", "U": "S"}
# The type of entities whose tags name none, as seqeval calls it.
NAMELESS = "_"


class TagParts(NamedTuple):
    """A tag in its parts: ``letter`` B, I, E or S (empty without a prefix, and for ``O``), and the
    ``entity`` type (empty for ``O``)."""

    letter: str
    entity: str


@dataclass(frozen=True, slots=True)
class Break:
    """A tag that its scheme does not allow after ``before``, in the sentence at ``row`` (a place in
    the list), at the word ``word``; ``better`` is what would be right."""

    row: int
    word: int
    tag: str
    before: str
    better: str


@dataclass(frozen=True, slots=True)
class FoundScheme:
    """The scheme that fits best, and the words that break it."""

    scheme: Scheme
    breaks: tuple[Break, ...] = ()


def are_bare(tags: Collection[str]) -> bool:
    """Whether these, all tags of a set, are marks of one type that has no name. ``B`` and ``O`` are
    among them then: ``U`` and ``L`` may as well be of upper and lower case, ``S`` a noun.

    >>> are_bare(["O", "B", "I"]), are_bare(["O", "U", "L"]), are_bare(["O", "B", "V"])
    (True, False, False)
    """
    found = set(tags)
    return {OUTSIDE, "B"} <= found <= {OUTSIDE, *MARKS}


def mark_of(tag: str, bare: bool = False) -> TagParts:
    """The parts of a tag; ``bare`` says that a letter alone is a mark.

    >>> mark_of("B-PER"), mark_of("L-LOC"), mark_of("O"), mark_of("NOUN")
    (Mark(letter='B', entity='PER'), Mark(letter='E', entity='LOC'), Mark(letter='', entity=''), \
Mark(letter='', entity='NOUN'))
    """
    if tag == OUTSIDE:
        return TagParts("", "")
    if bare and tag in set(MARKS):
        return TagParts(SAME.get(tag, tag), NAMELESS)
    if len(tag) > 2 and tag[1] == "-" and tag[0] in MARKS:
        return TagParts(SAME.get(tag[0], tag[0]), tag[2:])
    return TagParts("", tag)


def entity_types(tags: Iterable[str], bare: bool = False) -> tuple[str, ...]:
    """The types of entities that tags name, sorted."""
    return tuple(sorted({mark_of(tag, bare).entity for tag in tags} - {""}))


def order_of_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags as classes: ``O`` first, then type by type, B, I, E, S. A type has every mark that
    any type has: a scheme is whole, and other rows may hold what these do not."""
    found = set(tags)
    if are_bare(found):
        return tuple(sorted(found, key=(OUTSIDE + MARKS).index))
    marks = {tag[0] for tag in found if mark_of(tag).letter}
    plain = {tag for tag in found if tag != OUTSIDE and not mark_of(tag).letter}
    made = [OUTSIDE] if OUTSIDE in found else []
    if marks:
        types = entity_types(found - plain)
        order = sorted(marks, key=MARKS.index)
        made += [f"{letter}-{entity}" for entity in types for letter in order]
    return (*made, *sorted(plain))


def find_scheme(sentences: Sequence[Sequence[str]]) -> FoundScheme:
    """The scheme of sentences of tags. Marks beside tags without any are breaks of the marked
    scheme; where IOB1 and IOB2 are both broken, the one with fewer breaks is meant."""
    tags = {tag for sentence in sentences for tag in sentence}
    bare = are_bare(tags)
    kinds = {tag: mark_of(tag, bare) for tag in tags}
    letters = {mark.letter for tag, mark in kinds.items() if tag != OUTSIDE}
    # Without a single mark no tag can break a scheme.
    if letters <= {""}:
        return FoundScheme("plain")
    schemes: tuple[Scheme, ...] = ("BIOES",) if letters & {"E", "S"} else ("IOB2", "IOB1")
    found = [FoundScheme(one, tuple(_breaks(sentences, kinds, one))) for one in schemes]
    # A wrong tag breaks the scheme that is meant once, the other one nearly everywhere.
    return min(found, key=lambda one: len(one.breaks))


def _breaks(
    sentences: Sequence[Sequence[str]], kinds: dict[str, TagParts], scheme: Scheme
) -> Iterator[Break]:
    for row, sentence in enumerate(sentences):
        before, last = OUTSIDE, TagParts("", "")
        for word, tag in enumerate(sentence):
            now = kinds[tag]
            better = _better(now, last, tag, scheme)
            if better is not None:
                yield Break(row, word, tag, before, better)
            before, last = tag, now
        if scheme == "BIOES" and last.letter in ("B", "I"):
            yield Break(row, len(sentence), "the end", before, _closing(last))


def _better(now: TagParts, last: TagParts, tag: str, scheme: Scheme) -> str | None:
    """What would be right in place of this tag; ``None`` where it is right."""
    if not now.letter:
        if now.entity:
            return f"B-{now.entity}, I-{now.entity} or {OUTSIDE}"
        return _closing(last) if scheme == "BIOES" and last.letter in ("B", "I") else None
    same = now.entity == last.entity
    if scheme == "IOB2":
        return _tag("B", now) if now.letter == "I" and not same else None
    if scheme == "IOB1":
        return _tag("I", now) if now.letter == "B" and not same else None
    is_open = last.letter in ("B", "I")
    if now.letter in ("I", "E"):
        return None if is_open and same else _tag("B" if now.letter == "I" else "S", now)
    return _closing(last) if is_open else None


def _closing(last: TagParts) -> str:
    return f"an {_tag('E', last)} before it"


def _tag(letter: str, mark: TagParts) -> str:
    return letter if mark.entity == NAMELESS else f"{letter}-{mark.entity}"
