"""Rows on two sides: copies in another file, and across the parts that a column names."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import count_phrase
from holdfast.duplicates.duplicates import nearest_protected
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.leaks import leaks_with
from holdfast.quality.pairs import EXAMPLES, LISTED, SERIOUS, examples_of
from holdfast.quality.views import Copied, OtherColumns, TableRows, alone

# Words from which on a text is no answer such as "None.", which many rows give by right.
TELLING = 3
_LIKENESS = "similarity {:.2f}"


@check(
    Copied,
    cannot_see="The same said in other words, texts of fewer than five words with a word "
    "changed, and what a file that was not named holds.",
    error_rate="Every pair is verified word by word. Whether a text repeated by chance (a "
    "greeting, a short answer) is a leak, it cannot tell: texts of one or two words make it a "
    "warning, no error.",
    nothing=alone,
)
def leaks(copied: Copied) -> CheckResult | None:
    """Lists the rows that are verified copies or near-copies of a row of another table. Score: the
    largest share of another table's rows that the source holds too."""
    gathered, ids = copied.gathered, copied.rows.ids
    mine, contents = gathered.tables["source"].column("label"), gathered.duplicates.contents
    sources, told, shares, telling = [], [], [], []
    examples: list[CheckExample] = []
    for name in copied.others:
        pairs, table = leaks_with(gathered, name), gathered.tables[name]
        if not len(pairs):
            continue
        theirs = np.unique(pairs.other)
        sources.append(pairs.source)
        shares.append(len(theirs) / len(table))
        # A word or two may repeat by chance.
        texts = TableRows(table.take(theirs)).texts
        telling.append(sum(len(text.split()) >= TELLING for text in texts) / len(table))
        same = np.isin(contents[gathered.span(name)], contents[gathered.span("source")])
        one, other = mine[pairs.source], table.column("label")[pairs.other]
        odd = len(np.unique(pairs.other[(one >= 0) & (other >= 0) & (one != other)]))
        labels = f", {odd} of them with another label" if odd else ""
        price = copied.pricing.of_leaks(gathered, pairs) if copied.pricing else None
        cost = f", which would lift an accuracy measured on them by {price}" if price else ""
        told.append(
            f"{len(theirs)} of the {count_phrase(len(table), 'row')} of {table.source} "
            f"({shares[-1]:.1%}) stand here, {int(same[theirs].sum())} of them to the letter"
            f"{labels}{cost}"
        )
        # The plainest are the most alike, and of these the longest.
        lengths = np.array([len(text) for text in table.column("text")])
        order = np.lexsort((-lengths[pairs.other], -pairs.similarity))
        alike = SimilarPairs(pairs.source[order], pairs.other[order], pairs.similarity[order])
        rows = table.column("row")
        examples += examples_of(alike, ids, rows, _LIKENESS, table.source, most=EXAMPLES)
    if not told:
        return None
    source = np.unique(np.concatenate(sources))
    return result(
        ids[source[:LISTED]],
        f"{count_phrase(len(source), 'row copies or nearly copies', 'rows copy or nearly copy')} a row "
        f"of another file: {'; '.join(told)}",
        "Take them out of one of the two. train --test FILE leaves such rows out of the training "
        "part by itself, and lists them.",
        score=max(shares),
        severity="error" if max(telling) >= SERIOUS else "warn",
        count=len(source),
        examples=examples,
    )


NAMES = ("split", "subset", "partition", "set", "fold_name", "data_split", "dataset_split")
TRAIN = ("train", "training", "trn")
HELD = {
    "test": ("test", "testing", "tst", "held_out", "heldout", "eval", "evaluation"),
    "validation": ("valid", "validation", "val", "dev", "development"),
}


def undivided(copied: Copied) -> str:
    """Why there is nothing to see."""
    if side_column(copied.rows.beside) is not None:
        return ""
    return f"no column names sides ({', '.join(NAMES[:3])}, with train among its values)"


@check(
    Copied,
    cannot_see="Sides that a column of another name, or with other words in it, divides; "
    "copies in other words.",
    error_rate="Every pair is verified word by word; a text repeated by chance counts too.",
    nothing=undivided,
)
def split_leaks(copied: Copied) -> CheckResult | None:
    """Lists the validation and test rows, by a column of the source that says so, that copy or
    nearly copy a training row. Score: the largest share of either side that does."""
    column = side_column(copied.rows.beside)
    if column is None:
        return None
    sides = np.array([_side(value) for value in copied.rows.beside[column]])
    span, copies = copied.gathered.span("source"), copied.gathered.duplicates
    train = np.zeros(len(copies), dtype=bool)
    train[span] = sides == "train"
    nearest = nearest_protected(copies, train)
    held, shares, told = [], [0.0], []
    for side in ("test", "validation"):
        rows = np.flatnonzero(sides == side)
        hit = rows[nearest.copy_of[rows] >= 0]
        if len(hit):
            held.append(hit)
            shares.append(len(hit) / len(rows))
            told.append(f"{len(hit)} of the {count_phrase(len(rows), f'{side} row')} ({shares[-1]:.1%})")
    if not held:
        return None
    found, ids = np.concatenate(held), copied.rows.ids
    order = found[np.argsort(-nearest.similarity[found], kind="stable")]
    examples = tuple(
        CheckExample(
            int(ids[at]),
            f"{sides[at]}, of a training row; similarity {nearest.similarity[at]:.2f}",
            int(ids[nearest.copy_of[at]]),
        )
        for at in order[:EXAMPLES].tolist()
    )
    return result(
        ids[order[:LISTED]],
        f"by the column {column!r}, {' and '.join(told)} copy or nearly copy a training row",
        "Take the training rows that they copy out, or let train divide the rows by itself: it "
        "puts copies on one side.",
        score=max(shares),
        severity="error" if max(shares) >= SERIOUS else "warn",
        count=len(found),
        examples=examples,
    )


def side_column(beside: OtherColumns) -> str | None:
    """The column that names sides: usually called so, each of its values a side, train among
    them."""
    for name in beside.names:
        if name.strip().lower() in NAMES:
            values = {_side(value) for value in set(beside[name])}
            if "train" in values and len(values) > 1 and "" not in values:
                return name
    return None


def _side(value: str | None) -> str:
    word = (value or "").strip().lower()
    if word in TRAIN:
        return "train"
    return next((side for side, words in HELD.items() if word in words), "")
