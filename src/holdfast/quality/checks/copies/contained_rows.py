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
from holdfast.quality.leaks import pair_leaks
from holdfast.quality.pairs import MAX_EXAMPLES, MAX_ROWS_LISTED, SERIOUS_SHARE
from holdfast.quality.views import TableCopies, TableRows, needs_other_file

RUN_WORDS = 8
MIN_RUN_SHARE = 0.7
# Runs that so many rows of either table hold belong to a form.
MAX_RUN_ROWS = 5
# Runs that a text must have to be looked for: 15 words; less may be a quotation.
MIN_RUNS = 8
# Texts that are looked through at once: memory holds their runs.
BLOCK_TEXTS = 50_000
# Of a larger file so many rows are looked for, spread evenly.
MAX_ROWS_SEARCHED = 100_000


@check(
    TableCopies,
    cannot_see="Rows of fewer than 15 words, what is said in other words, and, of files of "
    "more than 100,000 rows, those between the ones that are looked for.",
    error_rate="Runs are compared exactly; a long quotation that both quote by right counts "
    "too. Held against their own test rows TREC and SAMSum have none, BANKING77 one (rightly), "
    "an instruction set 25 of 400, which share the text that they ask about.",
    skip_reason=needs_other_file,
)
def contained_rows(copied: TableCopies) -> CheckResult | None:
    """Lists the source rows that hold a row of another table inside a longer text: seven tenths of
    its runs of eight words, but for runs that more than five rows share. Copies and near-copies are
    ``leaks``. Score: the largest share of another table's rows that are held so."""
    all_rows, source = copied.all_rows, copied.rows
    outer_texts = learned_texts(source.table)
    rows, shares, sentences, examples = [], [0.0], [], []
    for name in copied.others:
        table = all_rows.tables[name]
        step = max(1, -(-len(table) // MAX_ROWS_SEARCHED))
        searched = np.setdiff1d(np.arange(0, len(table), step), pair_leaks(all_rows, name).other)
        searched_rows = TableRows(table.take(searched))
        contained = find_contained(searched_rows.texts, outer_texts)
        if not len(contained):
            continue
        rows.append(contained.outer)
        shares.append(len(contained) * step / len(table))
        sentences.append(
            f"{len(contained)} of the {count_phrase(len(table), 'row')} of {table.source} "
            f"({shares[-1]:.1%}) {'stands' if len(contained) == 1 else 'stand'} inside a longer row"
        )
        examples += [
            CheckExample(
                int(source.ids[contained.outer[n]]),
                f"{contained.share[n]:.0%} of the other's runs of {RUN_WORDS} words stand here",
                int(searched_rows.ids[contained.inner[n]]),
                table.source,
            )
            for n in np.argsort(-contained.share, kind="stable")[:MAX_EXAMPLES].tolist()
        ]
    if not rows:
        return None
    row_positions = np.unique(np.concatenate(rows))
    return result(
        source.ids[row_positions][:MAX_ROWS_LISTED],
        f"{'; '.join(sentences)} here: {MIN_RUN_SHARE:.0%} or more of their runs of {RUN_WORDS} "
        "words",
        "Take these rows, or the parts that they share, out of the training rows: a model has read "
        "what it is then asked.",
        score=min(1.0, max(shares)),
        severity="error" if max(shares) >= SERIOUS_SHARE else "warn",
        count=len(row_positions),
        examples=examples[:MAX_EXAMPLES],
    )


def learned_texts(table: Table) -> list[str]:
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
        _contained_in_block(inner, outer[start : start + BLOCK_TEXTS], start)
        for start in range(0, max(1, len(outer)), BLOCK_TEXTS)
    ]
    contained = Contained(
        np.concatenate([part.inner for part in parts]),
        np.concatenate([part.outer for part in parts]),
        np.concatenate([part.share for part in parts]),
    )
    order = np.lexsort((contained.outer, -contained.share, contained.inner))
    best = order[np.unique(contained.inner[order], return_index=True)[1]]
    return Contained(contained.inner[best], contained.outer[best], contained.share[best])


def _contained_in_block(inner: Sequence[str], outer: Sequence[str], first: int) -> Contained:
    """As ``find_contained``; the first of ``outer`` is called ``first``."""
    keys, owner = _runs([*inner, *outer])
    is_inner = owner < len(inner)
    different, run_index = np.unique(keys, return_inverse=True)
    outer_counts = np.bincount(run_index[~is_inner], minlength=len(different))
    is_rare = outer_counts[run_index] <= MAX_RUN_ROWS
    run_counts = np.bincount(owner[is_inner & is_rare], minlength=len(inner))
    # A join of runs: each of an inner text with all outer ones that hold it, COMMON at most.
    outer_runs = np.flatnonzero(~is_inner & is_rare)
    outer_runs = outer_runs[np.argsort(run_index[outer_runs], kind="stable")]
    ends = np.cumsum(np.bincount(run_index[outer_runs], minlength=len(different)))
    starts = ends - np.bincount(run_index[outer_runs], minlength=len(different))
    inner_runs = np.flatnonzero(is_inner & is_rare)
    pairs = []
    for step in range(MAX_RUN_ROWS):
        at = starts[run_index[inner_runs]] + step
        have = at < ends[run_index[inner_runs]]
        pairs.append(np.column_stack([owner[inner_runs[have]], owner[outer_runs[at[have]]]]))
    pairs_ = np.concatenate(pairs)
    return _best_containers(pairs_[:, 0], pairs_[:, 1] - len(inner) + first, run_counts)


def _best_containers(inner: Ints, outer: Ints, run_counts: Ints) -> Contained:
    """Of each inner text the outer one that shares most of its runs, where that is enough."""
    if not len(inner):
        nothing = np.zeros(0, dtype=np.int64)
        return Contained(nothing, nothing, np.zeros(0))
    pairs, counts = np.unique(np.column_stack([inner, outer]), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    first = np.unique(pairs[order, 0], return_index=True)[1]
    best = order[first]
    share = counts[best] / np.maximum(run_counts[pairs[best, 0]], 1)
    keep = (share >= MIN_RUN_SHARE) & (run_counts[pairs[best, 0]] >= MIN_RUNS)
    return Contained(pairs[best, 0][keep], pairs[best, 1][keep], np.minimum(share[keep], 1.0))


def _runs(texts: Sequence[str]) -> tuple[U64, I64]:
    """A 64-bit key of every run of eight words, each once a text, and the text it is in."""
    read = read_texts(list(texts))
    counts = np.diff(read.starts)
    if len(read.words) < RUN_WORDS:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    hashes = content_keys(to_arrow(read.vocabulary))[read.words]
    keys = np.zeros(len(hashes) - RUN_WORDS + 1, dtype=np.uint64)
    for step in range(RUN_WORDS):
        # A polynomial in an odd number: the same words in another order are another run.
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + hashes[step : step + len(keys)]
    owner = np.repeat(np.arange(len(counts)), counts)
    within_text = owner[: len(keys)] == owner[RUN_WORDS - 1 :]
    keys, owner = keys[within_text], owner[: len(keys)][within_text]
    once = np.unique(np.column_stack([owner.astype(np.uint64), keys]), axis=0)
    return once[:, 1], once[:, 0].astype(np.int64)
