"""Distribution shift between files, and the order of their dates."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import percent_phrase
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
    """How another table differs: its name, the classifier's result, words, and sentences on labels
    and topics. ``rows_here`` and ``rows_there`` are the compared positions."""

    name: str
    two_sample: TwoSampleResult
    terms: list[DiscriminatingWord]
    sentences: list[str]
    rows_here: Ints
    rows_there: Ints


@check(
    Embedded,
    cannot_see="A shift in the meaning of the labels, a shift that the encoder cannot see, and "
    "with a group column any shift of a file with fewer than 20 groups.",
    error_rate="At most 1 % of files from the same distribution. It reported none of 160 random "
    "splits of CR, MR, TREC and BANKING77 into 600 and 250 rows.",
    skip_reason=needs_other_file,
)
def shift(view: Embedded) -> CheckResult | None:
    """Reports a file whose distribution differs from the table's: an out-of-fold classifier on the
    vectors separates the two better than chance, or the shares of labels or of topics (clusters of
    both files together) differ.

    It reads up to 2,000 distinct rows of each file, one of each group where a column of groups is
    given. The three tests of each file share an error
    rate of 1 % over all files (Bonferroni). It is a warning from an AUC of 0.65 on: then a score on
    that file is a score on different data. Score: 2 · AUC − 1, or 0 if only shares differ.
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
        ". ".join(_sentence(one) for one in shifts),
        "Decide which file resembles the data in the application, and test on such rows. A score "
        "on one file says little about the other.",
        score=max(0.0, 2 * area - 1),
        severity="warn" if area >= _CLEAR_AREA else "info",
        count=len(shifts),
        # The rows of both files that are least like the other file, as pairs.
        examples=(
            CheckExample(int(ids[a]), "each least like the other file", int(b), strongest.name)
            for a, b in zip(unlike[:_SHOWN], shown.column("row")[last], strict=False)
        ),
    )


def _compare(
    view: Embedded, name: str, table: Table, vectors: Vectors, alpha: float
) -> _Shift | None:
    other = TableRows(table)
    rows_here = _subsample(view.rows, view.seed, "table")
    rows_there = _subsample(other, view.seed, name)
    if min(len(rows_here), len(rows_there)) < MIN_SET_ROWS:
        return None
    # Only the lower limit of the interval is used.
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
        sentences.append(
            f"topics: {percent_phrase(shares)} of the rows would have to change topic to match"
        )
    if two_sample.area.low <= 0.5 and not sentences:
        return None
    terms = discriminating_words(
        [view.rows.texts[at] for at in rows_here.tolist()],
        [other.texts[at] for at in rows_there.tolist()],
    )
    return _Shift(name, two_sample, terms, sentences, rows_here, rows_there)


def _subsample(rows: TableRows, seed: int, name: str) -> Ints:
    positions = rows.distinct
    codes = rows.group_codes
    if codes is not None:
        # Rows of one group are alike, which no test here allows for.
        order = generator(seed, "shift, groups", name).permutation(positions)
        positions = np.sort(order[np.unique(codes[order], return_index=True)[1]])
    if len(positions) <= _MAX_ROWS:
        return positions
    selected = generator(seed, "shift", name).permutation(len(positions))[:_MAX_ROWS]
    return positions[np.sort(selected)]


def _label_counts(
    one: TableRows, other: TableRows, rows_here: Ints, rows_there: Ints
) -> tuple[list[str], Ints, Ints] | None:
    """The class names, and the rows of each in both tables; ``None`` if a table has no classes."""
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
    return ", ".join(
        f"{names[at]!r} {percent_phrase(b[at])} instead of {percent_phrase(a[at])}" for at in order
    )


def _sentence(one: _Shift) -> str:
    area = one.two_sample.area
    parts = [f"{one.name}: a classifier separates its rows from the source with an AUC of "]
    parts[0] += f"{area.value:.2f} (lower limit {area.low:.2f}, chance 0.5)"
    if one.terms:
        parts.append(
            "words: "
            + ", ".join(
                f"{term.word!r} in {percent_phrase(term.other)} instead of "
                f"{percent_phrase(term.one)} of the rows"
                for term in one.terms[:_SHOWN]
            )
        )
    return "; ".join([*parts, *one.sentences])


# A column counts as dates if this share of its cells are dates.
MIN_DATES_SHARE = 0.95
MIN_DATES = 20


def needs_shared_column(copied: TableCopies) -> str:
    """Why the check is skipped; empty if it runs."""
    shared = {name for columns in copied.other_columns.values() for name in columns.names}
    if needs_other_file(copied) or shared & {*copied.rows.other_columns.names}:
        return needs_other_file(copied)
    return "the files share no column other than the text"


@check(
    TableCopies,
    cannot_see="Dates in a format other than 2024-01-31, and rows without dates.",
    error_rate="Exact. It cannot tell whether time matters for the task.",
    skip_reason=needs_shared_column,
)
def time_order(copied: TableCopies) -> CheckResult | None:
    """Compares the dates (ISO 8601 dates or times) of the source and another table in a column that
    both have. It warns if half or more of the other table's rows are older than the newest row of
    the source. Reports nothing if the other table begins after the source ends. Score: that
    share."""
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
        f"according to {column!r}, {percent_phrase(share)} of the rows of {source} "
        f"({_span(there)}) are older "
        f"than the newest row of the source ({_span(here)}). A score on them measures the model on "
        "a period that it was trained on, not on later data",
        "If the model will be used on later rows, test it on rows that are newer than all rows of "
        "the source.",
        score=share,
        count=len(newer),
    )


def parse_dates(values: Sequence[str | None]) -> Floats | None:
    """Seconds since 1970 of a column [n], NaN for a cell that is empty or no date; ``None`` if the
    column does not hold dates."""
    if len(values) < MIN_DATES:
        return None
    filled_values = [value.strip() for value in values if value and value.strip()]
    # The standard reads a number such as 20240131 as a date; in most files it is an id.
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
    # A time without a zone is read as UTC: a column is compared only with itself.
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


def _span(seconds: Floats) -> str:
    ends = (np.nanmin(seconds), np.nanmax(seconds))
    return " to ".join(
        datetime.datetime.fromtimestamp(float(end), datetime.UTC).date().isoformat() for end in ends
    )
