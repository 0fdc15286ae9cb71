"""Entity counts behind entity F1: entities labelled, predicted and found.

An entity is a span of words with a type; it is found where a predicted entity has the same first
word, last word and type. Tags are read as conlleval and seqeval's default mode read them, whatever
the scheme: an ``I-`` that follows another type or ``O`` begins an entity. ``L-`` and ``U-`` are
read as ``E-`` and ``S-``, which seqeval's default mode does not; tags without prefixes make an
entity of each run of one tag.

Source: the CoNLL-2000 evaluation script; Nakayama 2018, seqeval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.data.tags.scheme import are_untyped, entity_types, parse_tag

OUTSIDE, BEGIN, INSIDE, END, SINGLE = range(5)
_CODES = {"B": BEGIN, "I": INSIDE, "E": END, "S": SINGLE}


@dataclass(frozen=True, slots=True)
class TagTable:
    """The meaning of each tag, by its index: ``marks`` [tags] and ``types`` [tags], an index into
    ``entities`` or −1 outside.
    """

    names: tuple[str, ...]
    entities: tuple[str, ...]
    marks: Ints
    types: Ints

    @classmethod
    def of(cls, names: Sequence[str]) -> TagTable:
        """The table of the tags ``names``, in the order of a model's outputs."""
        bare = are_untyped(names)
        entities = entity_types(names, bare)
        place = {entity: number for number, entity in enumerate(entities)}
        marks = [parse_tag(name, bare) for name in names]
        # A tag without a prefix continues as long as it repeats.
        codes = [_CODES.get(m.letter, INSIDE) if m.entity else OUTSIDE for m in marks]
        types = [place.get(mark.entity, -1) for mark in marks]
        return cls(tuple(names), entities, np.array(codes), np.array(types))


@dataclass(frozen=True, slots=True)
class Spans:
    """Entities in the order of their words, each [entities]: the places of their first and last
    word among all words, and their types.
    """

    first: Ints
    last: Ints
    types: Ints


def spans_of(tags: Ints, counts: Ints, table: TagTable) -> Spans:
    """The entities of the words ``tags`` [words] of consecutive sentences of ``counts`` [n] words.
    No entity crosses the end of a sentence.
    """
    marks, types = table.marks[tags], table.types[tags]
    # The tag before each word, with none before the first of a sentence; one more follows the last.
    ends = np.cumsum(counts)
    cut = np.zeros(len(tags) + 1, dtype=bool)
    cut[np.concatenate([[0], ends])] = True
    # Each pair of neighbouring tags decides by itself whether an entity begins or ends there.
    before, mark = np.append(OUTSIDE, marks), np.append(marks, OUTSIDE)
    type_before, type_here = np.append(-1, types), np.append(types, -1)
    other = cut | (type_before != type_here)
    over = np.isin(before, (END, SINGLE)) | np.isin(mark, (BEGIN, SINGLE, OUTSIDE))
    closes = (before != OUTSIDE) & (other | over)
    opens = (mark != OUTSIDE) & (
        other | np.isin(mark, (BEGIN, SINGLE)) | np.isin(before, (END, SINGLE, OUTSIDE))
    )
    first = np.flatnonzero(opens)
    return Spans(first, np.flatnonzero(closes) - 1, types[first])


def entity_counts(truth: Ints, answers: Ints, counts: Ints, table: TagTable) -> Floats:
    """Entities of each sentence and type that are found, predicted and labelled,
    [n, 3 · entities]: all found, then all predicted, then all labelled.

    ``truth`` and ``answers`` [words] are tags of consecutive sentences of ``counts`` [n] words.
    """
    entities = len(table.entities)
    counts_by_type = np.zeros((len(counts), 3, entities))
    sentence = np.repeat(np.arange(len(counts)), counts)
    real, predicted = spans_of(truth, counts, table), spans_of(answers, counts, table)
    np.add.at(counts_by_type[:, 1], (sentence[predicted.first], predicted.types), 1)
    np.add.at(counts_by_type[:, 2], (sentence[real.first], real.types), 1)
    # The first word identifies an entity, so that comparing ends and types is enough.
    _, one, two = np.intersect1d(real.first, predicted.first, return_indices=True)
    same = (real.last[one] == predicted.last[two]) & (real.types[one] == predicted.types[two])
    hits = one[same]
    np.add.at(counts_by_type[:, 0], (sentence[real.first[hits]], real.types[hits]), 1)
    return counts_by_type.reshape(len(counts), 3 * entities)
