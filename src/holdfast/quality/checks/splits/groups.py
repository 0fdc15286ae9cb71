"""Group leakage: a group in two files, columns that look like an undeclared group, and pairs of
rows with different labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.clean import named_groups
from holdfast.data.table import Table
from holdfast.duplicates.opposite_pairs import opposite_pairs_of
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, has_texts, result
from holdfast.quality.checks.splits.leaks import split_column
from holdfast.quality.pairs import MAX_EXAMPLES, MAX_ROWS_LISTED, SERIOUS_SHARE
from holdfast.quality.views import Embedded, TableCopies, TableRows, Vectors, needs_other_file


def needs_group_and_file(copied: TableCopies) -> str:
    """Why the check is skipped; empty if it runs."""
    if not copied.all_rows.tables["source"].has_groups:
        return "no group column is given: --group COL"
    return needs_other_file(copied)


@check(
    TableCopies,
    cannot_see="Groups without a column. --group names the column; unnamed_groups suggests one.",
    error_rate="Exact. Two files may use one name for two different groups.",
    skip_reason=needs_group_and_file,
)
def shared_groups(copied: TableCopies) -> CheckResult | None:
    """Lists the rows whose group (the column given by ``--group``) also has rows in another table.
    Score: the largest share of another table's rows that are in such a group."""
    all_rows = copied.all_rows
    source = all_rows.tables["source"]
    if not source.has_groups:
        return None
    source_groups: list[str] = source.column("group")
    any_shared = np.zeros(len(source_groups), dtype=bool)
    shares, sentences, examples = [0.0], [], []
    for name in copied.others:
        table = all_rows.tables[name]
        if not table.has_groups:
            continue
        other_groups: list[str] = table.column("group")
        shared = named_groups(source) & named_groups(table)
        if not shared:
            continue
        is_shared = np.array([group in shared for group in source_groups])
        any_shared |= is_shared
        rows = sum(group in shared for group in other_groups)
        shares.append(rows / len(other_groups))
        sentences.append(
            f"{count_phrase(len(shared), 'group')} with {count_phrase(rows, 'row')} of "
            f"{table.source} ({percent_phrase(shares[-1], 1)})"
        )
        examples += _group_examples(copied, table, shared)
    if not sentences:
        return None
    return result(
        copied.rows.ids[any_shared][:MAX_ROWS_LISTED],
        f"{count_phrase(int(any_shared.sum()), 'row')} "
        f"{'is' if any_shared.sum() == 1 else 'are'} in groups ({source.columns.group!r}) that "
        f"another file also contains: {'; '.join(sentences)}",
        "Put each group into one file only: a model predicts rows of a known group better than "
        "rows of a new one. train --test FILE --group removes such rows from the training set.",
        score=max(shares),
        severity="error" if max(shares) >= SERIOUS_SHARE else "warn",
        count=int(any_shared.sum()),
        examples=examples[:MAX_EXAMPLES],
    )


def _group_examples(copied: TableCopies, other: Table, shared: set[str]) -> list[CheckExample]:
    """The first row of either table for each of the first ``shared`` groups."""
    source_groups: list[str] = copied.all_rows.tables["source"].column("group")
    other_groups: list[str] = other.column("group")
    ids, other_ids = copied.rows.ids, other.column("row")
    first_groups = [group for group in dict.fromkeys(source_groups) if group in shared]
    return [
        CheckExample(
            int(ids[source_groups.index(group)]),
            f"both in group {group!r}",
            int(other_ids[other_groups.index(group)]),
            other.source,
        )
        for group in first_groups[:MAX_EXAMPLES]
    ]


# Fewer values define slices, not groups; nearly one value per row groups nothing.
MIN_GROUPS, MAX_GROUP_SHARE = 8, 0.6
MIN_FILLED_SHARE = 0.9
# Least difference in cosine similarity. Two random rows of one class of CR have 0.11 ± 0.11.
MIN_DIFFERENCE = 0.05
PERMUTATIONS = 99
MAX_ROWS = 4000


@dataclass(frozen=True, slots=True)
class GroupLikeness:
    """Mean similarity of two rows that share a value, ``within``, and its mean after permuting the
    values among the rows of each class, ``between``. ``rank`` counts the permutations with at least
    ``within``."""

    within: float
    between: float
    rank: int

    @property
    def difference(self) -> float:
        return self.within - self.between


def needs_unnamed_columns(embedded: Embedded) -> str:
    """Why the check is skipped; empty if it runs."""
    if embedded.rows.table.has_groups:
        return "a group column is given"
    return "" if embedded.rows.other_columns.names else "there are no other columns"


@check(
    Embedded,
    cannot_see="Groups whose rows the model finds no more similar than other rows of their class, "
    "columns of fewer than 8 values, and groups without a column.",
    error_rate="One in a hundred columns of random values passes the test, and fewer also reach "
    "the minimum difference. A topic or a rating passes legitimately and may not be a group.",
    skip_reason=needs_unnamed_columns,
)
def unnamed_groups(embedded: Embedded) -> CheckResult | None:
    """Suggests a group column: one with many repeated values, whose rows are more similar than
    other rows of their class. The mean cosine similarity must be higher by 0.05, and higher than in
    all of 99 permutations within classes (p = 0.01). It suggests the column with the largest
    difference. Score: that difference."""
    rows, table = embedded.rows, embedded.rows.table
    if table.has_groups:
        return None
    candidates: list[tuple[str, GroupLikeness, int]] = []
    for name in rows.other_columns.names:
        codes = (
            _group_codes(rows.other_columns[name])
            if name != split_column(rows.other_columns)
            else None
        )
        if codes is not None:
            likeness_ = group_likeness(embedded.vectors, codes, rows.labels, embedded.seed)
            if not likeness_.rank and likeness_.difference >= MIN_DIFFERENCE:
                candidates.append((name, likeness_, int(codes.max()) + 1))
    if not candidates:
        return None
    # max takes the first of equal differences.
    name, likeness_, count = max(candidates, key=lambda one: one[1].difference)
    return result(
        (),
        f"rows that share a value of the column {name!r} ({count_phrase(count, 'value')}) are more "
        f"similar than other rows of their class: mean cosine similarity {likeness_.within:.2f} "
        f"instead of {likeness_.between:.2f}. A random split puts such rows into several splits",
        f"If they are related (same user, source or conversation), add --group {name}: the rows of "
        "each value then stay in one split.",
        score=min(1.0, likeness_.difference),
        count=count,
    )


def group_likeness(vectors: Vectors, codes: Ints, labels: Ints, seed: int) -> GroupLikeness:
    """How similar rows [n, d] with one code [n] are (−1: no code), compared with permutations of
    the codes within labels [n]."""
    random = generator(seed, "groups")
    known = np.flatnonzero(codes >= 0)
    if len(known) > MAX_ROWS:
        # Sample complete groups, so that pairs remain.
        order = random.permutation(int(codes.max()) + 1)[codes[known]]
        known = np.sort(known[np.argsort(order, kind="stable")[:MAX_ROWS]])
    x, code, mark = vectors[known], codes[known], labels[known]
    within = _mean_similarity(x, code)
    exchanged = [
        _mean_similarity(x, _permute_within(code, mark, random)) for _ in range(PERMUTATIONS)
    ]
    return GroupLikeness(within, float(np.mean(exchanged)), sum(e >= within for e in exchanged))


def _mean_similarity(x: Vectors, code: Ints) -> float:
    """Mean cosine similarity of two rows with one code: (‖Σx‖² − k) ÷ k (k − 1) for k rows."""
    _, place, sizes = np.unique(code, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), x.shape[1]))
    np.add.at(sums, place, x)
    pairs = float((sizes * (sizes - 1)).sum())
    return float(((sums**2).sum() - len(x)) / pairs) if pairs else 0.0


def _permute_within(code: Ints, label: Ints, random: np.random.Generator) -> Ints:
    """The codes, permuted at random among the rows of each label."""
    exchanged = code.copy()
    for value in np.unique(label):
        at = np.flatnonzero(label == value)
        exchanged[at] = code[random.permutation(at)]
    return exchanged


def _group_codes(values: list[str | None]) -> Ints | None:
    """A number for each value [n], −1 for an empty cell; ``None`` if the column is no group."""
    filled = [value for value in values if value]
    distinct = dict.fromkeys(filled)
    if len(filled) < MIN_FILLED_SHARE * len(values) or not len(distinct) >= MIN_GROUPS:
        return None
    if len(distinct) > MAX_GROUP_SHARE * len(filled):
        return None
    at = {value: number for number, value in enumerate(distinct)}
    return np.array([at[value] if value else -1 for value in values], dtype=np.int64)


def needs_no_group(rows: TableRows) -> str:
    """Why the check is skipped; empty if it runs."""
    return "a group column is given" if rows.table.has_groups else ""


@check(
    TableRows,
    cannot_see="Pairs if most rows are unpaired or there are few pairs, pairs that share no words, "
    "a third row on a subject, and tables of more than 60 classes or 10,000 rows.",
    error_rate="Samples of 50 to 1,600 rows from ten real data sets: reported for every sample of "
    "the one set that consists of such pairs, and for none of the others (benchmarks/pairs.py).",
    applies_to=lambda table: has_texts(table) and has_classes(table),
    skip_reason=needs_no_group,
)
def opposite_labels(rows: TableRows) -> CheckResult | None:
    """Reports rows that come in pairs on one subject with different labels. It tests mutual nearest
    neighbours by words: the share with different labels must be significantly above the midpoint
    between the share among random pairs and 100 % (binomial test, p < 0.001). Score: that share of
    the neighbours."""
    pairs = opposite_pairs_of(rows.table)
    if pairs is None:
        return None
    share = pairs.different / pairs.neighbours
    ids = rows.ids
    return result(
        ids[np.sort(np.concatenate([pairs.first, pairs.second]))][:MAX_ROWS_LISTED],
        f"{percent_phrase(share)} of {count_phrase(pairs.neighbours, 'pair')} of nearest "
        "neighbours by words "
        f"have different labels, compared with {percent_phrase(pairs.expected)} of random "
        "pairs: rows seem to "
        "come in pairs on one subject, such as a text and its rewritten form. A model trained on "
        "one row of a pair tends to predict that row's label for the other one",
        "The default split (data.split.by=rows) keeps the rows of a detected pair together. If a "
        "column identifies the pairs, name it with --group: it is exact.",
        score=share,
        count=2 * len(pairs),
        examples=[
            CheckExample(int(ids[first]), "nearest row by words, other label", int(ids[second]))
            for first, second in zip(
                pairs.first[:MAX_EXAMPLES].tolist(),
                pairs.second[:MAX_EXAMPLES].tolist(),
                strict=True,
            )
        ],
    )
