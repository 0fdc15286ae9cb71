"""Rows of another file that are contained in a longer row of the source: shared 8-word runs.

A run of eight words that many rows share belongs to a template (an instruction's frame, a footer)
and is ignored. A text counts as contained in a row if the row has at least 70 % of the text's other
runs. The missing 30 % allow for runs that begin in a template and end in the text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.table import Table
from holdfast.duplicates.normalise import content_keys, to_arrow
from holdfast.duplicates.words import I64, U64, read_texts
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.leaks import pair_leaks
from holdfast.quality.pairs import MAX_EXAMPLES, MAX_ROWS_LISTED, SERIOUS_SHARE
from holdfast.quality.views import TableCopies, TableRows, needs_other_file

RUN_WORDS = 8
MIN_RUN_SHARE = 0.7
# A run that more rows of the source contain belongs to a template.
MAX_RUN_ROWS = 5
# Fewest runs of a text that is searched for: 15 words. A shorter match may be a quotation.
MIN_RUNS = 8
# Texts searched at a time: their runs are held in memory.
BLOCK_TEXTS = 50_000
# Of a larger file this many rows are searched for, evenly spaced.
MAX_ROWS_SEARCHED = 100_000


@check(
    TableCopies,
    cannot_see="Rows of fewer than 15 words, and paraphrases. In files of more than 100,000 rows "
    "it searches for evenly spaced rows only and misses the others.",
    error_rate="Of 300 test rows planted inside longer training rows it found 87 % (70 % of those "
    "in TREC). Runs are compared exactly, so a long quotation that both texts share is reported "
    "too. Compared with their own test rows, TREC and SAMSum have none and BANKING77 has one, a "
    "true one. An instruction set has 25 of 400; these share the text they ask about.",
    skip_reason=needs_other_file,
)
def contained_rows(copied: TableCopies) -> CheckResult | None:
    """Lists the source rows that contain a row of another table inside a longer text: at least
    70 % of its 8-word runs. Runs that more than five source rows share are ignored. The check
    ``leaks`` lists duplicates and near-duplicates. Score: the largest share of another table's rows
    that are contained in this way."""
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
            f"({percent_phrase(shares[-1], 1)}) {'is' if len(contained) == 1 else 'are'} "
            "contained in a longer row"
        )
        examples += [
            CheckExample(
                int(source.ids[contained.outer[n]]),
                f"contains {percent_phrase(contained.share[n])} of the {RUN_WORDS}-word runs "
                "of the other row",
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
        f"{'; '.join(sentences)} of the source: {percent_phrase(MIN_RUN_SHARE)} or more of their "
        f"{RUN_WORDS}-word runs",
        "Remove these rows, or the shared parts, from the training rows: otherwise the model is "
        "tested on text that it saw in training.",
        score=min(1.0, max(shares)),
        severity="error" if max(shares) >= SERIOUS_SHARE else "warn",
        count=len(row_positions),
        examples=examples[:MAX_EXAMPLES],
    )


def learned_texts(table: Table) -> list[str]:
    """All text of each row that a model learns: the text, and the target or every chat turn."""
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
    """Positions ``inner`` [m] of texts that are contained in the texts at ``outer`` [m], and the
    ``share`` [m] of their runs that the outer text has."""

    inner: Ints
    outer: Ints
    share: Floats

    def __len__(self) -> int:
        return len(self.inner)


def find_contained(inner: Sequence[str], outer: Sequence[str]) -> Contained:
    """The texts of ``inner`` that are contained in one of ``outer``, each with the outer text that
    has most of its runs."""
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
    """``find_contained`` for one block of outer texts; ``first`` is the position of its first."""
    keys, owner = _runs([*inner, *outer])
    is_inner = owner < len(inner)
    different, run_index = np.unique(keys, return_inverse=True)
    outer_counts = np.bincount(run_index[~is_inner], minlength=len(different))
    is_rare = outer_counts[run_index] <= MAX_RUN_ROWS
    run_counts = np.bincount(owner[is_inner & is_rare], minlength=len(inner))
    # Join on runs: each run of an inner text with the outer texts that have it, MAX_RUN_ROWS at
    # most.
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
    """For each inner text the outer text that shares most of its runs, if the share is enough."""
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
    """A 64-bit key of every 8-word run, once per text, and the position of its text."""
    read = read_texts(list(texts))
    counts = np.diff(read.starts)
    if len(read.words) < RUN_WORDS:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    hashes = content_keys(to_arrow(read.vocabulary))[read.words]
    keys = np.zeros(len(hashes) - RUN_WORDS + 1, dtype=np.uint64)
    for step in range(RUN_WORDS):
        # A polynomial hash with an odd base: the same words in another order are another run.
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + hashes[step : step + len(keys)]
    owner = np.repeat(np.arange(len(counts)), counts)
    within_text = owner[: len(keys)] == owner[RUN_WORDS - 1 :]
    keys, owner = keys[within_text], owner[: len(keys)][within_text]
    once = np.unique(np.column_stack([owner.astype(np.uint64), keys]), axis=0)
    return once[:, 1], once[:, 0].astype(np.int64)
