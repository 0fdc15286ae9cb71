"""Leakage between splits: duplicates in another file, and across the splits that a column names."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.duplicates.duplicates import nearest_protected
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, result
from holdfast.quality.leaks import pair_leaks
from holdfast.quality.pairs import MAX_EXAMPLES, MAX_ROWS_LISTED, SERIOUS_SHARE, pair_examples
from holdfast.quality.views import OtherColumns, TableCopies, TableRows, needs_other_file

# Shorter texts, such as the answer "None.", may legitimately repeat.
MIN_WORDS = 3
_LIKENESS = "similarity {:.2f}"


@check(
    TableCopies,
    cannot_see="Paraphrases, texts of fewer than five words with a changed word, and files that "
    "were not given.",
    error_rate="Every pair is verified word by word. It cannot tell leakage from a text that "
    "repeats by chance (a greeting, a short answer). Texts of one or two words therefore give a "
    "warning, not an error.",
    skip_reason=needs_other_file,
)
def leaks(copied: TableCopies) -> CheckResult | None:
    """Lists the rows that are verified duplicates or near-duplicates of a row of another table.
    Score: the largest share of another table's rows that the source also contains."""
    all_rows, ids = copied.all_rows, copied.rows.ids
    source_labels, contents = (
        all_rows.tables["source"].column("label"),
        all_rows.duplicates.contents,
    )
    is_classes = has_classes(all_rows.tables["source"])
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
        # Only classes have the same numbers in both files.
        differ = (one >= 0) & (other >= 0) & (one != other) & is_classes
        conflicting = len(np.unique(pairs.other[differ]))
        labels = f", {conflicting} of them with another label" if conflicting else ""
        price = copied.inflation.from_leaks(all_rows, pairs) if copied.inflation else None
        cost = f"; they would inflate an accuracy measured on that file by {price}" if price else ""
        sentences.append(
            f"{len(copied_rows)} of the {count_phrase(len(table), 'row')} of {table.source} "
            f"({percent_phrase(shares[-1], 1)}) are in the source, "
            f"{int(same[copied_rows].sum())} of them "
            f"character for character{labels}{cost}"
        )
        # The clearest examples are the most similar pairs, and of these the longest.
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
        f"{count_phrase(len(source), 'row is a duplicate', 'rows are duplicates')} or "
        f"near-{'duplicate' if len(source) == 1 else 'duplicates'} of rows of another file: "
        f"{'; '.join(sentences)}",
        "Remove them from one of the two files. train --test FILE removes such rows from the "
        "training set automatically and lists them.",
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
    """Why the check is skipped; empty if it runs."""
    if split_column(copied.rows.other_columns) is not None:
        return ""
    return (
        f"no split column ({', '.join(SPLIT_COLUMN_NAMES[:3])}, …, with train among its values) "
        "was found"
    )


@check(
    TableCopies,
    cannot_see="Splits in a column of another name or with other values; paraphrases.",
    error_rate="Every pair is verified word by word. A text that repeats by chance is reported "
    "too.",
    skip_reason=needs_split_column,
)
def split_leaks(copied: TableCopies) -> CheckResult | None:
    """Lists the validation and test rows, according to a split column of the source, that are
    duplicates or near-duplicates of a training row. Score: the largest such share of a split."""
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
                f"{len(hit)} of the {count_phrase(len(rows), f'{split} row')} "
                f"({percent_phrase(shares[-1], 1)})"
            )
    if not copied_rows:
        return None
    copied_positions, ids = np.concatenate(copied_rows), copied.rows.ids
    order = copied_positions[np.argsort(-nearest.similarity[copied_positions], kind="stable")]
    examples = tuple(
        CheckExample(
            int(ids[at]),
            f"{splits[at]} row and training row, similarity {nearest.similarity[at]:.2f}",
            int(ids[nearest.copy_of[at]]),
        )
        for at in order[:MAX_EXAMPLES].tolist()
    )
    return result(
        ids[order[:MAX_ROWS_LISTED]],
        f"according to the column {column!r}, {' and '.join(sentences)} duplicate or nearly "
        "duplicate a training row",
        "Remove these training rows, or let train make the split: it assigns duplicates to the "
        "same split.",
        score=max(shares),
        severity="error" if max(shares) >= SERIOUS_SHARE else "warn",
        count=len(copied_positions),
        examples=examples,
    )


def split_column(columns: OtherColumns) -> str | None:
    """The split column: it has a usual name, each of its values names a split, and train is among
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
