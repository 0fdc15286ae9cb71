"""Rows that say the same in other words: within the table, with another label, in another file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.auditing.check import Check, Example, Found, add, anything, with_classes
from holdfast.auditing.views import Embedded, Rows
from holdfast.copies.semantic import AGREEMENT, in_other_words, paraphrases
from holdfast.copies.vectors import Pairs
from holdfast.core.records import Finding, Ints
from holdfast.core.wording import counted

_SHOWN = 20
_CUT = 60
_CANNOT_SEE = (
    "What the encoder does not see: languages that it was not trained on, words beyond its limit. "
    "Of sentences translated to another language and back it lists a third."
)
_ERROR_RATE = (
    "Of 27 pairs drawn from those of CR, MR, TREC and BANKING77 with an agreement of 0.92 to 0.95, "
    "where the doubtful ones are, 26 were judged to say the same."
)


def semantic_copies(view: Embedded) -> Found | None:
    """Lists the rows that say what another row says in other words: pairs whose agreement
    (``copies/semantic.py``) is 0.92 or more and that are no copies word for word. Each row is
    compared with its ten nearest. Score: the share of rows in such pairs."""
    pairs = view.paraphrases
    if not len(pairs):
        return None
    rows, ids, texts = _rows(pairs), view.rows.ids, view.rows.texts
    # The plainest example is one in the middle: the first differ by hardly a word.
    a, b = int(pairs.first[len(pairs) // 2]), int(pairs.second[len(pairs) // 2])
    finding = Finding(
        "semantic_copies",
        "info",
        len(rows) / len(view.rows.table),
        len(rows),
        tuple(ids[rows].tolist()),
        f"{counted(len(rows), 'row')} say what another says in other words "
        f"({counted(len(pairs), 'pair')} with an agreement of {AGREEMENT} or more in the space of "
        f"{view.encoder}), e.g. rows {ids[a]} and {ids[b]}: {_cut(texts[a])} and {_cut(texts[b])}",
        "They count as fewer rows than they are. Where they are forms of one question, give them a "
        "group (--group), so that no side tests what another has learned.",
    )
    return Found(finding, _examples(pairs, ids, ids))


def semantic_conflicts(view: Embedded) -> Found | None:
    """Lists the pairs of ``semantic_copies`` whose labels differ: one of the two may be wrong, or
    the classes overlap. Score: the share of rows in such pairs."""
    labels, classes = view.rows.labels, view.rows.table.classes
    ids, texts, known = view.rows.ids, view.rows.texts, view.paraphrases
    one, other = labels[known.first], labels[known.second]
    pairs = known.where((one >= 0) & (other >= 0) & (one != other))
    if not len(pairs):
        return None
    rows = _rows(pairs)
    named = [
        f"{classes[labels[a]]!r} and {classes[labels[b]]!r}"
        for a, b in zip(pairs.first[:_SHOWN], pairs.second[:_SHOWN], strict=True)
    ]
    a, b = int(pairs.first[0]), int(pairs.second[0])
    finding = Finding(
        "semantic_conflicts",
        "info",
        len(rows) / len(labels),
        len(rows),
        tuple(ids[rows].tolist()),
        f"{counted(len(pairs), 'pair')} of rows say the same in other words under different "
        f"labels, e.g. rows {ids[a]} and {ids[b]} are {named[0]}: {_cut(texts[a])} and "
        f"{_cut(texts[b])}",
        "Read these pairs: correct a label, or write down what parts the two classes.",
    )
    return Found(finding, _examples(pairs, ids, ids, notes=named))


def semantic_leaks(view: Embedded) -> Found | None:
    """Lists the rows that say what a row of another file says in other words; copies word for word
    are leaks of their own. Score: the largest share of a file's rows that are met so."""
    rows, ids = view.rows, view.rows.ids
    met: dict[str, Ints] = {}
    mine: list[Ints] = []
    examples: list[tuple[Example, ...]] = []
    for name, (table, vectors) in view.others.items():
        theirs = Rows(table)
        found = paraphrases(view.vectors, rows.texts, (vectors, theirs.texts))
        pairs = found.where(in_other_words(rows.table, found.first, table, found.second))
        if len(pairs):
            met[name] = np.unique(pairs.second)
            mine.append(pairs.first)
            examples.append(_examples(pairs, ids, theirs.ids, name))
    if not met:
        return None
    positions = np.unique(np.concatenate(mine))
    said = " and ".join(
        f"{len(found):,} of the {len(view.others[name][0]):,} rows of {name}"
        for name, found in met.items()
    )
    finding = Finding(
        "semantic_leaks",
        "info",
        max(len(found) / len(view.others[name][0]) for name, found in met.items()),
        len(positions),
        tuple(ids[positions].tolist()),
        f"{said} stand here in other words (agreement {AGREEMENT} or more in the space of "
        f"{view.encoder})",
        "Divide by what the rows are forms of (--group): a score on such rows says little about "
        "new ones.",
    )
    return Found(finding, tuple(example for part in examples for example in part)[:_SHOWN])


def _rows(pairs: Pairs) -> Ints:
    return np.unique(np.concatenate([pairs.first, pairs.second]))


def _examples(
    pairs: Pairs, ids: Ints, others: Ints, file: str | None = None, notes: Sequence[str] = ()
) -> tuple[Example, ...]:
    return tuple(
        Example(
            int(ids[pairs.first[n]]),
            ", ".join([*notes[n : n + 1], f"agreement {pairs.similarity[n]:.2f}"]),
            int(others[pairs.second[n]]),
            file,
        )
        for n in range(min(_SHOWN, len(pairs)))
    )


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= _CUT else f"{flat[: _CUT - 1]}…")


add(Check("semantic_copies", Embedded, semantic_copies, _CANNOT_SEE, _ERROR_RATE, anything))
add(
    Check(
        "semantic_conflicts",
        Embedded,
        semantic_conflicts,
        _CANNOT_SEE,
        f"{_ERROR_RATE} Which of the labels is wrong, or whether the classes overlap, it cannot "
        "tell.",
        with_classes,
    )
)
add(Check("semantic_leaks", Embedded, semantic_leaks, _CANNOT_SEE, _ERROR_RATE, anything))
