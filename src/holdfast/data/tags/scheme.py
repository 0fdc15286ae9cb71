"""Tagging schemes for entities: detect the scheme of a set of sentences, and where it is broken.

| scheme | an entity | prefixes |
|---|---|---|
| ``IOB2`` | every entity begins with ``B-`` | B I |
| ``IOB1`` | ``B-`` only separates two adjacent entities of one type | B I |
| ``BIOES`` | as IOB2, its last word is ``E-``, a single one ``S-`` | B I E S |
| ``plain`` | a run of one tag | none |

A word outside of every entity is ``O``; BILOU writes ``L-`` for ``E-`` and ``U-`` for ``S-``. Where
there is only one type, its name may be missing: ``B``, ``I`` and ``O`` (see ``are_untyped``).
Source: Ramshaw and Marcus 1995 (cmp-lg/9505040), Ratinov and Roth 2009 for BILOU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Scheme = Literal["IOB1", "IOB2", "BIOES", "plain"]
OUTSIDE = "O"
MARKS = "BIESLU"
# BILOU letters, and the ones that the rules below use.
CANONICAL_LETTER = {"L": "E", "U": "S"}
# The type of entities whose tags name none, as in seqeval.
UNTYPED = "_"


class TagParts(NamedTuple):
    """A parsed tag: ``letter`` B, I, E or S (empty without a prefix, and for ``O``), and the
    ``entity`` type (empty for ``O``)."""

    letter: str
    entity: str


@dataclass(frozen=True, slots=True)
class SchemeBreak:
    """A tag that its scheme does not allow after ``before``, in the sentence at ``row`` (an index
    into the list), at the word ``word``; ``better`` is the correct tag."""

    row: int
    word: int
    tag: str
    before: str
    better: str


@dataclass(frozen=True, slots=True)
class DetectedScheme:
    """The scheme that fits best, and the words that break it."""

    scheme: Scheme
    breaks: tuple[SchemeBreak, ...] = ()


def are_untyped(tags: Collection[str]) -> bool:
    """Whether ``tags``, all tags of a set, are prefixes of one unnamed type. ``B`` and ``O`` must
    be among them: ``U`` and ``L`` may also mean upper and lower case, ``S`` a noun.

    >>> are_untyped(["O", "B", "I"]), are_untyped(["O", "U", "L"]), are_untyped(["O", "B", "V"])
    (True, False, False)
    """
    distinct = set(tags)
    return {OUTSIDE, "B"} <= distinct <= {OUTSIDE, *MARKS}


def parse_tag(tag: str, bare: bool = False) -> TagParts:
    """The parts of a tag; ``bare`` says that a letter by itself is a prefix.

    >>> parse_tag("B-PER"), parse_tag("L-LOC"), parse_tag("O")
    (TagParts(letter='B', entity='PER'), TagParts(letter='E', entity='LOC'), \
TagParts(letter='', entity=''))
    >>> parse_tag("NOUN")
    TagParts(letter='', entity='NOUN')
    """
    if tag == OUTSIDE:
        return TagParts("", "")
    if bare and tag in set(MARKS):
        return TagParts(CANONICAL_LETTER.get(tag, tag), UNTYPED)
    if len(tag) > 2 and tag[1] == "-" and tag[0] in MARKS:
        return TagParts(CANONICAL_LETTER.get(tag[0], tag[0]), tag[2:])
    return TagParts("", tag)


def entity_types(tags: Iterable[str], bare: bool = False) -> tuple[str, ...]:
    """The types of entities that tags name, sorted."""
    return tuple(sorted({parse_tag(tag, bare).entity for tag in tags} - {""}))


def tag_order(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags as classes: ``O`` first, then type by type, B, I, E, S. Each type gets every prefix
    that any type has, since other rows may contain tags that these rows lack."""
    distinct = set(tags)
    if are_untyped(distinct):
        return tuple(sorted(distinct, key=(OUTSIDE + MARKS).index))
    marks = {tag[0] for tag in distinct if parse_tag(tag).letter}
    plain = {tag for tag in distinct if tag != OUTSIDE and not parse_tag(tag).letter}
    ordered = [OUTSIDE] if OUTSIDE in distinct else []
    if marks:
        types = entity_types(distinct - plain)
        order = sorted(marks, key=MARKS.index)
        ordered += [f"{letter}-{entity}" for entity in types for letter in order]
    return (*ordered, *sorted(plain))


def detect_scheme(sentences: Sequence[Sequence[str]]) -> DetectedScheme:
    """The scheme of sentences of tags. Tags with a prefix decide: tags without one then break the
    scheme. Where both IOB1 and IOB2 are broken, the one with fewer breaks is chosen."""
    tags = {tag for sentence in sentences for tag in sentence}
    bare = are_untyped(tags)
    parts_of_tag = {tag: parse_tag(tag, bare) for tag in tags}
    letters = {mark.letter for tag, mark in parts_of_tag.items() if tag != OUTSIDE}
    # Without any prefix no tag can break a scheme.
    if letters <= {""}:
        return DetectedScheme("plain")
    schemes: tuple[Scheme, ...] = ("BIOES",) if letters & {"E", "S"} else ("IOB2", "IOB1")
    candidates = [
        DetectedScheme(one, tuple(_breaks(sentences, parts_of_tag, one))) for one in schemes
    ]
    # A wrong tag breaks the right scheme once, the other one nearly everywhere.
    return min(candidates, key=lambda one: len(one.breaks))


def _breaks(
    sentences: Sequence[Sequence[str]], parts_of_tag: dict[str, TagParts], scheme: Scheme
) -> Iterator[SchemeBreak]:
    for row, sentence in enumerate(sentences):
        before, last = OUTSIDE, TagParts("", "")
        for word, tag in enumerate(sentence):
            now = parts_of_tag[tag]
            better = _better(now, last, scheme)
            if better is not None:
                yield SchemeBreak(row, word, tag, before, better)
            before, last = tag, now
        if scheme == "BIOES" and last.letter in ("B", "I"):
            yield SchemeBreak(row, len(sentence), "the end", before, _closing(last))


def _better(now: TagParts, last: TagParts, scheme: Scheme) -> str | None:
    """The correct tag in place of this one; ``None`` where it is correct."""
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
    return letter if mark.entity == UNTYPED else f"{letter}-{mark.entity}"
