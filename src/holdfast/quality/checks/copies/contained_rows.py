"""Rows of another file that stand inside a longer row of the source: runs of eight words that two
texts share.

A run of eight words that many rows share is a form (an instruction's frame, a footer), and says
nothing of two of them. Of the others a text is contained in a row where seven tenths of its runs
stand there; the rest is for those that begin in a form and end in the text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.wording import count_phrase
from holdfast.data.table import Table
from holdfast.duplicates.normalise import content_keys, to_arrow
from holdfast.duplicates.words import I64, U64, read_texts
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.leaks import leaks_with
from holdfast.quality.pairs import EXAMPLES, LISTED, SERIOUS
from holdfast.quality.views import Copied, TableRows, alone

RUN = 8
SHARE = 0.7
# Runs that so many rows of either table hold belong to a form.
COMMON = 5
# Runs that a text must have to be looked for: 15 words; less may be a quotation.
LEAST = 8
# Texts that are looked through at once: memory holds their runs.
BLOCK = 50_000
# Of a larger file so many rows are looked for, spread evenly.
ROWS = 100_000


@check(
    Copied,
    cannot_see="Rows of fewer than 15 words, what is said in other words, and, of files of "
    "more than 100,000 rows, those between the ones that are looked for.",
    error_rate="Runs are compared exactly; a long quotation that both quote by right counts "
    "too. Held against their own test rows TREC and SAMSum have none, BANKING77 one (rightly), "
    "an instruction set 25 of 400, which share the text that they ask about.",
    nothing=alone,
)
def contained_rows(copied: Copied) -> CheckResult | None:
    """Lists the source rows that hold a row of another table inside a longer text: seven tenths of
    its runs of eight words, but for runs that more than five rows share. Copies and near-copies are
    ``leaks``. Score: the largest share of another table's rows that are held so."""
    gathered, source = copied.gathered, copied.rows
    outer = whole_texts(source.table)
    rows, shares, told, examples = [], [0.0], [], []
    for name in copied.others:
        table = gathered.tables[name]
        step = max(1, -(-len(table) // ROWS))
        asked = np.setdiff1d(np.arange(0, len(table), step), leaks_with(gathered, name).other)
        part = TableRows(table.take(asked))
        found = find_contained(part.texts, outer)
        if not len(found):
            continue
        rows.append(found.outer)
        shares.append(len(found) * step / len(table))
        told.append(
            f"{len(found)} of the {count_phrase(len(table), 'row')} of {table.source} "
            f"({shares[-1]:.1%}) {'stands' if len(found) == 1 else 'stand'} inside a longer row"
        )
        examples += [
            CheckExample(
                int(source.ids[found.outer[n]]),
                f"{found.share[n]:.0%} of the other's runs of {RUN} words stand here",
                int(part.ids[found.inner[n]]),
                table.source,
            )
            for n in np.argsort(-found.share, kind="stable")[:EXAMPLES].tolist()
        ]
    if not rows:
        return None
    named = np.unique(np.concatenate(rows))
    return result(
        source.ids[named][:LISTED],
        f"{'; '.join(told)} here: {SHARE:.0%} or more of their runs of {RUN} words",
        "Take these rows, or the parts that they share, out of the training rows: a model has read "
        "what it is then asked.",
        score=min(1.0, max(shares)),
        severity="error" if max(shares) >= SERIOUS else "warn",
        count=len(named),
        examples=examples[:EXAMPLES],
    )


def whole_texts(table: Table) -> list[str]:
    """All that is learned of each row: the text, and the target or every turn of a chat."""
    texts = TableRows(table).texts
    names = table.rows.column_names
    if "target" in names:
        return [f"{text}\n{more}" for text, more in zip(texts, table.column("target"), strict=True)]
    if "turns" not in names:
        return texts
    turns = [json.loads(cell) for cell in table.column("turns")]
    return [
        "\n".join(str(turn.get("content") or "") for turn in each) or text
        for text, each in zip(texts, turns, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Contained:
    """``inner`` [m] positions of texts that stand inside the texts at ``outer`` [m]; ``share`` [m]
    of their runs do."""

    inner: Ints
    outer: Ints
    share: Floats

    def __len__(self) -> int:
        return len(self.inner)


def find_contained(inner: Sequence[str], outer: Sequence[str]) -> Contained:
    """The texts of ``inner`` that stand inside one of ``outer``, each with the one that holds most
    of it."""
    parts = [
        _within(inner, outer[start : start + BLOCK], start)
        for start in range(0, max(1, len(outer)), BLOCK)
    ]
    found = Contained(
        np.concatenate([part.inner for part in parts]),
        np.concatenate([part.outer for part in parts]),
        np.concatenate([part.share for part in parts]),
    )
    order = np.lexsort((found.outer, -found.share, found.inner))
    best = order[np.unique(found.inner[order], return_index=True)[1]]
    return Contained(found.inner[best], found.outer[best], found.share[best])


def _within(inner: Sequence[str], outer: Sequence[str], first: int) -> Contained:
    """As ``find_contained``; the first of ``outer`` is called ``first``."""
    keys, owner = _runs([*inner, *outer])
    mine = owner < len(inner)
    different, place = np.unique(keys, return_inverse=True)
    held = np.bincount(place[~mine], minlength=len(different))
    usual = held[place] <= COMMON
    looked = np.bincount(owner[mine & usual], minlength=len(inner))
    # A join of runs: each of an inner text with all outer ones that hold it, COMMON at most.
    theirs = np.flatnonzero(~mine & usual)
    theirs = theirs[np.argsort(place[theirs], kind="stable")]
    ends = np.cumsum(np.bincount(place[theirs], minlength=len(different)))
    starts = ends - np.bincount(place[theirs], minlength=len(different))
    asked = np.flatnonzero(mine & usual)
    pairs = []
    for step in range(COMMON):
        at = starts[place[asked]] + step
        have = at < ends[place[asked]]
        pairs.append(np.column_stack([owner[asked[have]], owner[theirs[at[have]]]]))
    found = np.concatenate(pairs)
    return _most(found[:, 0], found[:, 1] - len(inner) + first, looked)


def _most(inner: Ints, outer: Ints, looked: Ints) -> Contained:
    """Of each inner text the outer one that shares most of its runs, where that is enough."""
    if not len(inner):
        nothing = np.zeros(0, dtype=np.int64)
        return Contained(nothing, nothing, np.zeros(0))
    pairs, counts = np.unique(np.column_stack([inner, outer]), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    first = np.unique(pairs[order, 0], return_index=True)[1]
    best = order[first]
    share = counts[best] / np.maximum(looked[pairs[best, 0]], 1)
    keep = (share >= SHARE) & (looked[pairs[best, 0]] >= LEAST)
    return Contained(pairs[best, 0][keep], pairs[best, 1][keep], np.minimum(share[keep], 1.0))


def _runs(texts: Sequence[str]) -> tuple[U64, I64]:
    """A 64-bit key of every run of eight words, each once a text, and the text it is in."""
    read = read_texts(list(texts))
    counts = np.diff(read.starts)
    if len(read.words) < RUN:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    hashes = content_keys(to_arrow(read.vocabulary))[read.words]
    keys = np.zeros(len(hashes) - RUN + 1, dtype=np.uint64)
    for step in range(RUN):
        # A polynomial in an odd number: the same words in another order are another run.
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + hashes[step : step + len(keys)]
    owner = np.repeat(np.arange(len(counts)), counts)
    whole = owner[: len(keys)] == owner[RUN - 1 :]
    keys, owner = keys[whole], owner[: len(keys)][whole]
    once = np.unique(np.column_stack([owner.astype(np.uint64), keys]), axis=0)
    return once[:, 1], once[:, 0].astype(np.int64)
