"""Rows on two sides: copies in another file, and across the parts that a column names."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import count_phrase
from holdfast.duplicates.duplicates import nearest_protected
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.leaks import pair_leaks
from holdfast.quality.pairs import MAX_EXAMPLES, MAX_ROWS_LISTED, SERIOUS_SHARE, pair_examples
from holdfast.quality.views import OtherColumns, TableCopies, TableRows, needs_other_file

# Words from which on a text is no answer such as "None.", which many rows give by right.
MIN_WORDS = 3
_LIKENESS = "similarity {:.2f}"


@check(
    TableCopies,
    cannot_see="The same said in other words, texts of fewer than five words with a word "
    "changed, and what a file that was not named holds.",
    error_rate="Every pair is verified word by word. Whether a text repeated by chance (a "
    "greeting, a short answer) is a leak, it cannot tell: texts of one or two words make it a "
    "warning, no error.",
    skip_reason=needs_other_file,
)
def leaks(copied: TableCopies) -> CheckResult | None:
    """Lists the rows that are verified copies or near-copies of a row of another table. Score: the
    largest share of another table's rows that the source holds too."""
    all_rows, ids = copied.all_rows, copied.rows.ids
    source_labels, contents = (
        all_rows.tables["source"].column("label"),
        all_rows.duplicates.contents,
    )
    sources, sentences, shares, substantial = [], [], [], []
    examples: list[CheckExample] = []
    for name in copied.others:
        pairs, table = pair_leaks(all_rows, name), all_rows.tables[name]
        if not len(pairs):
            continue
        copied_rows = np.unique(pairs.other)
        sources.append(pairs.source)
        shares.append(len(copied_rows) / len(table))
        # A word or two may repeat by chance.
        texts = TableRows(table.take(copied_rows)).texts
        substantial.append(sum(len(text.split()) >= MIN_WORDS for text in texts) / len(table))
        same = np.isin(contents[all_rows.span(name)], contents[all_rows.span("source")])
        one, other = source_labels[pairs.source], table.column("label")[pairs.other]
        conflicting = len(np.unique(pairs.other[(one >= 0) & (other >= 0) & (one != other)]))
        labels = f", {conflicting} of them with another label" if conflicting else ""
        price = copied.inflation.from_leaks(all_rows, pairs) if copied.inflation else None
        cost = f", which would lift an accuracy measured on them by {price}" if price else ""
        sentences.append(
            f"{len(copied_rows)} of the {count_phrase(len(table), 'row')} of {table.source} "
            f"({shares[-1]:.1%}) stand here, {int(same[copied_rows].sum())} of them to the letter"
            f"{labels}{cost}"
        )
        # The plainest are the most alike, and of these the longest.
        lengths = np.array([len(text) for text in table.column("text")])
        order = np.lexsort((-lengths[pairs.other], -pairs.similarity))
        alike = SimilarPairs(pairs.source[order], pairs.other[order], pairs.similarity[order])
        rows = table.column("row")
        examples += pair_examples(
            alike, ids, rows, _LIKENESS, table.source, max_examples=MAX_EXAMPLES
        )
    if not sentences:
        return None
    source = np.unique(np.concatenate(sources))
    return result(
        ids[source[:MAX_ROWS_LISTED]],
        f"{count_phrase(len(source), 'row copies or nearly copies', 'rows copy or nearly copy')} "
        f"a row of another file: {'; '.join(sentences)}",
        "Take them out of one of the two. train --test FILE leaves such rows out of the training "
        "part by itself, and lists them.",
        score=max(shares),
        severity="error" if max(substantial) >= SERIOUS_SHARE else "warn",
        count=len(source),
        examples=examples,
    )


SPLIT_COLUMN_NAMES = (
    "split",
    "subset",
    "partition",
    "set",
    "fold_name",
    "data_split",
    "dataset_split",
)
TRAIN_NAMES = ("train", "training", "trn")
HELD_OUT_NAMES = {
    "test": ("test", "testing", "tst", "held_out", "heldout", "eval", "evaluation"),
    "validation": ("valid", "validation", "val", "dev", "development"),
}


def needs_split_column(copied: TableCopies) -> str:
    """Why there is nothing to see."""
    if split_column(copied.rows.other_columns) is not None:
        return ""
    return (
        f"no column names sides ({', '.join(SPLIT_COLUMN_NAMES[:3])}, with train among its values)"
    )


@check(
    TableCopies,
    cannot_see="Sides that a column of another name, or with other words in it, divides; "
    "copies in other words.",
    error_rate="Every pair is verified word by word; a text repeated by chance counts too.",
    skip_reason=needs_split_column,
)
def split_leaks(copied: TableCopies) -> CheckResult | None:
    """Lists the validation and test rows, by a column of the source that says so, that copy or
    nearly copy a training row. Score: the largest share of either side that does."""
    column = split_column(copied.rows.other_columns)
    if column is None:
        return None
    splits = np.array([_split_name(value) for value in copied.rows.other_columns[column]])
    span, copies = copied.all_rows.span("source"), copied.all_rows.duplicates
    train = np.zeros(len(copies), dtype=bool)
    train[span] = splits == "train"
    nearest = nearest_protected(copies, train)
    copied_rows, shares, sentences = [], [0.0], []
    for split in ("test", "validation"):
        rows = np.flatnonzero(splits == split)
        hit = rows[nearest.copy_of[rows] >= 0]
        if len(hit):
            copied_rows.append(hit)
            shares.append(len(hit) / len(rows))
            sentences.append(
                f"{len(hit)} of the {count_phrase(len(rows), f'{split} row')} ({shares[-1]:.1%})"
            )
    if not copied_rows:
        return None
    copied_positions, ids = np.concatenate(copied_rows), copied.rows.ids
    order = copied_positions[np.argsort(-nearest.similarity[copied_positions], kind="stable")]
    examples = tuple(
        CheckExample(
            int(ids[at]),
            f"{splits[at]}, of a training row; similarity {nearest.similarity[at]:.2f}",
            int(ids[nearest.copy_of[at]]),
        )
        for at in order[:MAX_EXAMPLES].tolist()
    )
    return result(
        ids[order[:MAX_ROWS_LISTED]],
        f"by the column {column!r}, {' and '.join(sentences)} copy or nearly copy a training row",
        "Take the training rows that they copy out, or let train divide the rows by itself: it "
        "puts copies on one side.",
        score=max(shares),
        severity="error" if max(shares) >= SERIOUS_SHARE else "warn",
        count=len(copied_positions),
        examples=examples,
    )


def split_column(columns: OtherColumns) -> str | None:
    """The column that names sides: usually called so, each of its values a side, train among
    them."""
    for name in columns.names:
        if name.strip().lower() in SPLIT_COLUMN_NAMES:
            values = {_split_name(value) for value in set(columns[name])}
            if "train" in values and len(values) > 1 and "" not in values:
                return name
    return None


def _split_name(value: str | None) -> str:
    word = (value or "").strip().lower()
    if word in TRAIN_NAMES:
        return "train"
    return next((split for split, words in HELD_OUT_NAMES.items() if word in words), "")
