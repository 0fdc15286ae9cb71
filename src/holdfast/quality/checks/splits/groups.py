"""Rows that belong together: a group in two files, and a column that nobody named as one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.checks.splits.leaks import side_column
from holdfast.quality.pairs import EXAMPLES, LISTED, SERIOUS
from holdfast.quality.views import Copied, Embedded, Vectors, alone


def grouped(copied: Copied) -> str:
    """Why there is nothing to see."""
    if not copied.gathered.tables["source"].has_groups:
        return "no column of groups is named: --group COL"
    return alone(copied)


@check(
    Copied,
    cannot_see="Groups without a column: --group names it, and unnamed_groups proposes one.",
    error_rate="Exact. Two files may use one name for two groups.",
    nothing=grouped,
)
def shared_groups(copied: Copied) -> CheckResult | None:
    """Lists the rows whose group, by the column that ``--group`` names, has rows in another table
    too. Score: the largest share of another table's rows that are of such a group."""
    gathered = copied.gathered
    source = gathered.tables["source"]
    if not source.has_groups:
        return None
    own: list[str] = source.column("group")
    hit = np.zeros(len(own), dtype=bool)
    shares, told, examples = [0.0], [], []
    for name in copied.others:
        table = gathered.tables[name]
        if not table.has_groups:
            continue
        theirs: list[str] = table.column("group")
        shared = {*own} & {*theirs}
        if not shared:
            continue
        mine = np.array([group in shared for group in own])
        hit |= mine
        rows = sum(group in shared for group in theirs)
        shares.append(rows / len(theirs))
        told.append(
            f"{count_phrase(len(shared), 'group')} with {count_phrase(rows, 'row')} of {table.source} "
            f"({shares[-1]:.1%})"
        )
        ids, other = copied.rows.ids, table.column("row")
        examples += [
            CheckExample(
                int(ids[own.index(g)]),
                f"both of group {g!r}",
                int(other[theirs.index(g)]),
                table.source,
            )
            for g in [group for group in dict.fromkeys(own) if group in shared][:EXAMPLES]
        ]
    if not told:
        return None
    return result(
        copied.rows.ids[hit][:LISTED],
        f"{count_phrase(int(hit.sum()), 'row')} {'is' if hit.sum() == 1 else 'are'} of groups "
        f"({source.columns.group!r}) that stand in another file too: {'; '.join(told)}",
        "Put each group into one file: a model that knows the group answers its rows better than "
        "those of a new one. train --test FILE --group leaves such rows out of the training part.",
        score=max(shares),
        severity="error" if max(shares) >= SERIOUS else "warn",
        count=int(hit.sum()),
        examples=examples[:EXAMPLES],
    )


# Fewer values divide rows into slices; nearly one a row groups nothing.
FEWEST, MOST_SHARE = 8, 0.6
FILLED = 0.9
# Of the similarity of two rows of one class; between two random ones of CR it is 0.11, ± 0.11.
LEAST = 0.05
PERMUTATIONS = 99
ROWS = 4000


@dataclass(frozen=True, slots=True)
class Likeness:
    """Mean similarity of two rows that share a value, ``within``, and of such pairs when values are
    exchanged among the rows of a class, ``between``; ``rank`` is how many exchanges came near."""

    within: float
    between: float
    rank: int

    @property
    def apart(self) -> float:
        return self.within - self.between


def bare(embedded: Embedded) -> str:
    """Why there is nothing to see."""
    if embedded.rows.table.has_groups:
        return "the column of groups is named"
    return "" if embedded.rows.beside.names else "there are no other columns"


@check(
    Embedded,
    cannot_see="Groups whose rows are no more alike to the model than others of their class, "
    "columns of fewer than 8 values, and groups without a column.",
    error_rate="One column of values dealt out at random in a hundred passes the test, and "
    "fewer the least difference. A topic or a rating passes rightly, and may be no group.",
    nothing=bare,
)
def unnamed_groups(embedded: Embedded) -> CheckResult | None:
    """Proposes a column as the group: many values, repeated, whose rows are more alike than others
    of their class by 0.05 of cosine similarity and in none of 99 exchanges (a permutation test
    within classes, p = 0.01). The column of the largest difference. Score: that difference."""
    rows, table = embedded.rows, embedded.rows.table
    if table.has_groups:
        return None
    alike: list[tuple[str, Likeness, int]] = []
    for name in rows.beside.names:
        codes = _codes(rows.beside[name]) if name != side_column(rows.beside) else None
        if codes is not None:
            found = likeness(embedded.vectors, codes, rows.labels, embedded.seed)
            if not found.rank and found.apart >= LEAST:
                alike.append((name, found, int(codes.max()) + 1))
    if not alike:
        return None
    # The first of those that are equally far apart.
    name, found, count = max(alike, key=lambda one: one[1].apart)
    return result(
        (),
        f"rows that share a value of the column {name!r} ({count_phrase(count, 'value')}) are more "
        f"alike than others of their class: a similarity of {found.within:.2f}, where "
        f"{found.between:.2f} is usual; a random division puts them on both sides",
        f"If they are related (one user, source, conversation), add --group {name}: each value "
        "then falls on one side.",
        score=min(1.0, found.apart),
        count=count,
    )


def likeness(vectors: Vectors, codes: Ints, labels: Ints, seed: int) -> Likeness:
    """How alike rows [n, d] of one code [n] are (−1: none), against exchanges within labels [n]."""
    random = generator(seed, "groups")
    known = np.flatnonzero(codes >= 0)
    if len(known) > ROWS:
        # Whole groups, so that there are pairs left.
        order = random.permutation(int(codes.max()) + 1)[codes[known]]
        known = np.sort(known[np.argsort(order, kind="stable")[:ROWS]])
    x, code, mark = vectors[known], codes[known], labels[known]
    within = _mean(x, code)
    exchanged = [_mean(x, _exchange(code, mark, random)) for _ in range(PERMUTATIONS)]
    return Likeness(within, float(np.mean(exchanged)), sum(e >= within for e in exchanged))


def _mean(x: Vectors, code: Ints) -> float:
    """Mean cosine similarity of two rows of one code: (‖Σx‖² − k) ÷ k (k − 1) of each k rows."""
    _, place, sizes = np.unique(code, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), x.shape[1]))
    np.add.at(sums, place, x)
    pairs = float((sizes * (sizes - 1)).sum())
    return float(((sums**2).sum() - len(x)) / pairs) if pairs else 0.0


def _exchange(code: Ints, mark: Ints, random: np.random.Generator) -> Ints:
    """The codes, dealt out anew among the rows of each mark."""
    made = code.copy()
    for value in np.unique(mark):
        at = np.flatnonzero(mark == value)
        made[at] = code[random.permutation(at)]
    return made


def _codes(values: list[str | None]) -> Ints | None:
    """A number for each value [n], −1 for none; ``None`` where the column groups nothing."""
    filled = [value for value in values if value]
    distinct = dict.fromkeys(filled)
    if len(filled) < FILLED * len(values) or not len(distinct) >= FEWEST:
        return None
    if len(distinct) > MOST_SHARE * len(filled):
        return None
    at = {value: number for number, value in enumerate(distinct)}
    return np.array([at[value] if value else -1 for value in values], dtype=np.int64)
