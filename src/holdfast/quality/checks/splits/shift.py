"""Whether other rows come from the same place, and from the same time or a later one."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.pairs import MAX_ROWS_LISTED
from holdfast.quality.two_samples import (
    MIN_SET_ROWS,
    DiscriminatingWord,
    TwoSampleResult,
    classifier_two_sample_test,
    cluster_topics,
    discriminating_words,
    proportions_p_value,
)
from holdfast.quality.views import (
    Embedded,
    OtherColumns,
    TableCopies,
    TableRows,
    Vectors,
    needs_other_file,
)

_ALPHA = 0.01
_MAX_ROWS = 2000
_CLEAR_AREA = 0.65
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Shift:
    """What parts the table from another: its name, the classifier's answer, words, and sentences
    on labels and topics. ``rows_here`` and ``rows_there`` are the positions that were compared."""

    name: str
    two_sample: TwoSampleResult
    terms: list[DiscriminatingWord]
    sentences: list[str]
    rows_here: Ints
    rows_there: Ints


@check(
    Embedded,
    cannot_see="A shift in what the labels mean, and one that the encoder does not see.",
    error_rate="At most one in a hundred files of the same place: none in 160 random divisions "
    "of CR, MR, TREC and BANKING77 into 600 and 250 rows.",
)
def shift(view: Embedded) -> CheckResult | None:
    """Reports another file whose rows differ from the table's: where a classifier on the vectors
    tells rows it was not fitted on apart better than chance, or the shares of labels or of topics
    (clusters of both files together) differ.

    Up to 2,000 distinct rows of each file. The three tests of each file share an error of 1 % over
    all files (Bonferroni). A warning where the area under the ROC curve is 0.65 or more: then the
    score there is one of other data. Score: 2 · area − 1, or 0 where only shares differ.
    """
    tests = 3 * max(1, len(view.others))
    shifts = [
        shift_
        for name, (table, vectors) in view.others.items()
        if (shift_ := _compare(view, name, table, vectors, _ALPHA / tests)) is not None
    ]
    if not shifts:
        return None
    strongest = max(shifts, key=lambda one: one.two_sample.area.value)
    area = strongest.two_sample.area.value
    ids, shown = view.rows.ids, view.others[strongest.name][0]
    unlike = strongest.rows_here[np.argsort(strongest.two_sample.one, kind="stable")[: 5 * _SHOWN]]
    last = strongest.rows_there[np.argsort(-strongest.two_sample.other, kind="stable")[:_SHOWN]]
    return result(
        ids[unlike] if area >= _CLEAR_AREA else (),
        "; ".join(_sentence(one) for one in shifts),
        "Ask which of the files is like what the model will meet, and test on rows of that kind; "
        "a score there says little about the other.",
        score=max(0.0, 2 * area - 1),
        severity="warn" if area >= _CLEAR_AREA else "info",
        count=len(shifts),
        # The rows of both files that are most unlike the other file, side by side.
        examples=(
            CheckExample(int(ids[a]), "each the least like the other file", int(b), strongest.name)
            for a, b in zip(unlike[:_SHOWN], shown.column("row")[last], strict=False)
        ),
    )


def _compare(
    view: Embedded, name: str, table: Table, vectors: Vectors, alpha: float
) -> _Shift | None:
    other = TableRows(table)
    rows_here = _subsample(view.rows.distinct, view.seed, "table")
    rows_there = _subsample(other.distinct, view.seed, name)
    if min(len(rows_here), len(rows_there)) < MIN_SET_ROWS:
        return None
    # One side of the interval alone is asked for.
    two_sample = classifier_two_sample_test(
        view.vectors[rows_here], vectors[rows_there], view.seed, 1 - 2 * alpha
    )
    if two_sample is None:
        return None
    sentences = []
    labels = _label_counts(view.rows, other, rows_here, rows_there)
    if labels is not None and proportions_p_value(*labels[1:]) <= alpha:
        sentences.append(f"labels: {_largest_differences(*labels)}")
    clusters = cluster_topics(
        np.concatenate([view.vectors[rows_here], vectors[rows_there]]), view.seed
    )
    counts = [
        np.bincount(part, minlength=int(clusters.max()) + 1)
        for part in (clusters[: len(rows_here)], clusters[len(rows_here) :])
    ]
    if proportions_p_value(counts[0], counts[1]) <= alpha:
        shares = np.abs(counts[0] / len(rows_here) - counts[1] / len(rows_there)).sum() / 2
        sentences.append(f"{shares:.0%} of the rows would have to change their topic")
    if two_sample.area.low <= 0.5 and not sentences:
        return None
    terms = discriminating_words(
        [view.rows.texts[at] for at in rows_here.tolist()],
        [other.texts[at] for at in rows_there.tolist()],
    )
    return _Shift(name, two_sample, terms, sentences, rows_here, rows_there)


def _subsample(positions: Ints, seed: int, name: str) -> Ints:
    if len(positions) <= _MAX_ROWS:
        return positions
    selected = generator(seed, "shift", name).permutation(len(positions))[:_MAX_ROWS]
    return positions[np.sort(selected)]


def _label_counts(
    one: TableRows, other: TableRows, rows_here: Ints, rows_there: Ints
) -> tuple[list[str], Ints, Ints] | None:
    """The class names, and the rows of each on both sides; ``None`` where a side has none."""
    names = sorted({*one.table.classes, *other.table.classes})
    places = {name: at for at, name in enumerate(names)}
    counts = []
    for rows, positions in ((one, rows_here), (other, rows_there)):
        known = rows.labels[positions]
        known = known[known >= 0]
        if not len(known) or not rows.table.columns.one_class:
            return None
        numbers = np.array([places[name] for name in rows.table.classes], dtype=np.int64)
        counts.append(np.bincount(numbers[known], minlength=len(names)))
    return names, counts[0], counts[1]


def _largest_differences(names: list[str], one: Ints, other: Ints) -> str:
    a, b = one / one.sum(), other / other.sum()
    order = np.argsort(-np.abs(a - b), kind="stable")[:2]
    return ", ".join(f"{names[at]!r} {a[at]:.0%} here and {b[at]:.0%} there" for at in order)


def _sentence(one: _Shift) -> str:
    area = one.two_sample.area
    parts = [f"rows of {one.name} are told from these with an area of {area.value:.2f} "]
    parts[0] += f"(from {area.low:.2f}; 0.5 is chance)"
    if one.terms:
        parts.append(
            "words: "
            + ", ".join(
                f"{term.word!r} {term.one:.0%} here and {term.other:.0%} there"
                for term in one.terms[:_SHOWN]
            )
        )
    return ", ".join([*parts, *one.sentences])


# A column in which as many of the cells are dates is one of dates.
MIN_DATES_SHARE = 0.95
MIN_DATES = 20


def needs_shared_column(copied: TableCopies) -> str:
    """Why there is nothing to see."""
    shared = {name for columns in copied.other_columns.values() for name in columns.names}
    if needs_other_file(copied) or shared & {*copied.rows.other_columns.names}:
        return needs_other_file(copied)
    return "no column beside the texts stands in both files"


@check(
    TableCopies,
    cannot_see="Dates in another form than 2024-01-31, and rows without dates.",
    error_rate="Exact in what it compares; whether time matters for the task it cannot tell.",
    skip_reason=needs_shared_column,
)
def time_order(copied: TableCopies) -> CheckResult | None:
    """Compares the dates of the source with those of another table, by a column that both have:
    ISO 8601 dates or times. Warns where half of the other's rows or more are older than the newest
    of the source. Score: that share. Silent where the other table begins after the source ends."""
    worst: tuple[float, str, str, Floats, Floats] | None = None
    for name in copied.others:
        other_columns = copied.other_columns.get(name, OtherColumns())
        for column in copied.rows.other_columns.names:
            if column not in other_columns.names:
                continue
            here, there = (
                parse_dates(copied.rows.other_columns[column]),
                parse_dates(other_columns[column]),
            )
            if here is None or there is None:
                continue
            share = float((there[~np.isnan(there)] < np.nanmax(here)).mean())
            if share >= 0.5 and (worst is None or share > worst[0]):
                worst = (share, name, column, here, there)
    if worst is None:
        return None
    share, name, column, here, there = worst
    newer = np.flatnonzero(here > np.nanmin(there))
    source = copied.all_rows.tables[name].source
    return result(
        copied.rows.ids[newer][:MAX_ROWS_LISTED],
        f"by {column!r}, {share:.0%} of the rows of {source} ({_span(there)}) are older than the "
        f"newest row here ({_span(here)}): a score on them tells how well it does on days that it "
        "has seen, not on those to come",
        "Where it is to be used on later rows, hold it against rows that are newer than all of "
        "these.",
        score=share,
        count=len(newer),
    )


def parse_dates(values: Sequence[str | None]) -> Floats | None:
    """Seconds since 1970 of a column [n], NaN where a cell is empty or none; ``None`` where it is
    no column of dates."""
    if len(values) < MIN_DATES:
        return None
    filled_values = [value.strip() for value in values if value and value.strip()]
    # A number such as 20240131 is a date to the standard, and an id to most files.
    if len(filled_values) < MIN_DATES_SHARE * len(values) or not all(
        "-" in value for value in filled_values[:MIN_DATES]
    ):
        return None
    timestamps = np.array([_seconds(value) for value in values])
    return timestamps if np.isfinite(timestamps).mean() >= MIN_DATES_SHARE else None


def _seconds(value: str | None) -> float:
    try:
        moment = datetime.datetime.fromisoformat((value or "").strip())
    except ValueError:
        return float("nan")
    # Without a zone a time is taken as it is: columns are compared with themselves.
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


def _span(seconds: Floats) -> str:
    ends = (np.nanmin(seconds), np.nanmax(seconds))
    return " to ".join(
        datetime.datetime.fromtimestamp(float(end), datetime.UTC).date().isoformat() for end in ends
    )
