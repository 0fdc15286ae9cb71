"""Sentences that open or close many texts, taken out: signatures, disclaimers, headers.

Only in a file: a text that comes later would keep what those of the training have lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from holdfast.quality.clean.treatment import Edit, NoSettings, RowSet, TableTreatment, add

_LEAST_ROWS, _SHARE, LEAST_WORDS = 20, 0.01, 5
_MOST_ROUNDS = 10
_FIRST = re.compile(r"\s*([^\n]*?[.!?](?=\s)|[^\n]+)")
_LAST = re.compile(r"(?:[.!?\"')\]]\s+|\n)([^\n.!?]+[.!?]*)\s*\Z")


def first_line(text: str) -> str | None:
    """The first sentence or line of a text that has more; ``None`` where it is short or all."""
    match = _FIRST.match(text)
    return _long(match[1], text) if match else None


def last_line(text: str) -> str | None:
    """The last sentence or line of a text that has more; ``None`` where it is short or all."""
    # Only the end is searched: a pattern of sentences takes the square of a long text.
    match = _LAST.search(text[-400:])
    return _long(match[1], text) if match else None


def _long(line: str, text: str) -> str | None:
    line = " ".join(line.split())
    whole = " ".join(text.split()) if len(text) < 2 * len(line) else ""
    return line if len(line.split()) >= LEAST_WORDS and line != whole else None


def often_enough(rows: int) -> float:
    """In how many of so many texts a sentence must stand to be boilerplate."""
    return max(_LEAST_ROWS, _SHARE * rows)


def without_boilerplate(side: RowSet, settings: NoSettings | None = None) -> Sequence[Edit]:
    """An edit for each text that opens or closes with a sentence of five words or more which at
    least 20 texts and 1 % of them share; again and again, as signatures have several lines."""
    edits = []
    for name in side.text:
        before = [cell or "" for cell in side.columns[name]]
        now = before
        for _ in range(_MOST_ROUNDS):
            last = now
            for line, at_end in ((first_line, False), (last_line, True)):
                now = _without(now, line, at_end)
            if now == last:
                break
        edits += [
            Edit(n, name, text, "opened or closed with a sentence of many texts")
            for n, text in enumerate(now)
            if text != before[n]
        ]
    return edits


def _without(texts: list[str], line: Callable[[str], str | None], at_end: bool) -> list[str]:
    lines = [line(text) for text in texts]
    found: dict[str, set[str]] = {}
    for one, text in zip(lines, texts, strict=True):
        if one is not None:
            found.setdefault(one, set()).add(text)
    often = {one for one, members in found.items() if len(members) >= often_enough(len(texts))}
    return [
        _cut(text, one, at_end) if one is not None and one in often else text
        for one, text in zip(lines, texts, strict=True)
    ]


def _cut(text: str, line: str, at_end: bool) -> str:
    pattern = r"\s+".join(map(re.escape, line.split()))
    pattern = rf"\s*{pattern}\s*\Z" if at_end else rf"\A\s*{pattern}\s*"
    return re.sub(pattern, "", text)


add(
    TableTreatment("boilerplate", NoSettings, without_boilerplate, order=80, fixes=("boilerplate",))
)
