"""The label written into the text: the model would read it off, and learn nothing."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from holdfast.auditing.checks import CHECKS
from holdfast.core.records import Finding
from holdfast.data.table import Table

_SAMPLE = 20_000
_LEAST_ROWS = 20
_OWN, _OTHERS = 0.5, 0.02
_MARKED = 0.95
_BETWEEN = re.compile(r"[\W_]+")


def label_giveaway(table: Table) -> Finding | None:
    """Reports a class whose name opens or closes at least half of its texts and at most 2 % of the
    others'; or an opening or closing word of its own for *every* class, in 95 % of its texts.

    Looks at up to 20,000 rows spread over the table and only at classes of 20 rows or more there.
    A keyword inside the texts is no giveaway: it may be what the class is about. Score: the share
    of its class's texts that give it away.
    """
    labels, words = _sample(table)
    for end, place in ((0, "begins"), (-1, "ends")):
        found = _name(table, labels, words, end, place) or _mark(table, labels, words, end, place)
        if found is not None:
            return found
    return None


def _sample(table: Table) -> tuple[np.ndarray, list[list[str]]]:
    step = max(1, len(table) // _SAMPLE)
    part = table.take(np.arange(0, len(table), step))
    return part.column("label"), [_words(text) for text in part.column("text")]


def _words(text: str) -> list[str]:
    # fastText writes labels as __label__NAME
    return _BETWEEN.sub(" ", text.casefold().replace("__label__", " ")).split()


def _name(
    table: Table, labels: np.ndarray, words: list[list[str]], end: int, place: str
) -> Finding | None:
    for index, name in enumerate(table.classes):
        wanted = _words(name)
        own = labels == index
        if own.sum() < _LEAST_ROWS or not wanted or (name.isascii() and len(name) < 2):
            continue
        span = slice(None, len(wanted)) if end == 0 else slice(-len(wanted), None)
        has = np.array([row[span] == wanted for row in words])
        share, others = has[own].mean(), has[~own].mean() if (~own).any() else 0.0
        if share >= _OWN and others <= _OTHERS:
            because = f"{share:.0%} of the texts of class {name!r} {place[:-1]} with its name"
            return _finding(float(share), int(has[own].sum()), because)
    return None


def _mark(
    table: Table, labels: np.ndarray, words: list[list[str]], end: int, place: str
) -> Finding | None:
    present = [index for index in range(len(table.classes)) if (labels == index).any()]
    marks: dict[str, float] = {}
    hits = 0
    for index in present:
        own = [words[n] for n in np.flatnonzero(labels == index)]
        word, count = Counter(row[end] if row else "" for row in own).most_common(1)[0]
        share = count / len(own)
        if len(own) < _LEAST_ROWS or share < _MARKED or not word or word in marks:
            return None
        marks[word] = share
        hits += count
    if len(marks) < 2:
        return None
    shown = ", ".join(map(repr, list(marks)[:4]))
    because = f"nearly every text {place} with a word that only its class has ({shown})"
    return _finding(min(marks.values()), hits, because)


def _finding(share: float, count: int, because: str) -> Finding:
    return Finding(
        "label_giveaway", "error", share, count, (), because,
        "Take that word out of the texts: real ones will not have it.",
    )  # fmt: skip


CHECKS.add("label_giveaway", label_giveaway)
