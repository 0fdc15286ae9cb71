"""Rows with Holdfast's own columns, the three types of split, and rows added to training.

The splits are distinct types, so that leakage is a type error. Enrichment accepts only
``TrainSplit``. Test scoring accepts only ``HeldOut``, whose ``open`` gives its rows once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Decision, Finding, Floats, Ints

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Disable the progress bars of ``datasets``, which it draws even into a redirected standard
    error."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


Log = Iterable[Decision | Finding]


@dataclass(frozen=True, slots=True)
class Columns:
    """The roles of the source columns. ``template`` joins several into one text, if given.

    ``label_kind`` is the type of a text's label: one ``class``, ``several`` labels or a
    ``number``; ``None`` where a task has only one type. ``label_separator`` separates several.
    ``label_missing`` are the labels, as written, that mean an unknown label.
    """

    text: tuple[str, ...]
    label: str | None
    group: str | None = None
    template: str | None = None
    label_kind: str | None = None
    label_separator: str | None = None
    label_missing: tuple[str, ...] = ()

    @property
    def are_pairs(self) -> bool:
        """Whether a row has two texts that no template joins."""
        return len(self.text) > 1 and self.template is None

    @property
    def one_class(self) -> bool:
        """Whether a label is one class, of a text or of an image."""
        return self.label_kind in (None, "class")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in memory-mapped Arrow, with Holdfast's own column names.

    Columns of ``rows``: ``row`` int64, the 0-based position in the source file as read; ``text``
    string; ``text_pair`` string, where the task reads pairs; ``label`` int64, an index into
    ``classes`` (-1 where unknown); ``group`` string, where groups are given. Rows whose text or
    label is missing are already dropped, and a ``Finding`` counts them.

    ``classes`` are the labels as the source writes them, in sorted order. Where a text has a number
    or several labels, they are the strata of the split instead: ranges of numbers, or sets of
    labels. The column ``value`` float64 then holds the number, or ``labels`` a list of indices into
    ``names``.
    """

    rows: datasets.Dataset
    classes: tuple[str, ...]
    columns: Columns
    source: str
    source_rows: int
    findings: tuple[Finding, ...] = ()
    decisions: tuple[Decision, ...] = field(default_factory=tuple)
    names: tuple[str, ...] = ()
    # The rows as an Arrow table, cached: making it takes ``datasets`` milliseconds.
    _arrow: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Sequence[int] | Ints) -> Table:
        """The rows at these positions of this table (not source rows), in that order."""
        return replace(self, rows=self.rows.select(np.asarray(positions, dtype=np.int64)))

    def with_column(self, name: str, values: Sequence[object]) -> Table:
        """The rows with ``values`` [n] as the column ``name``, which replaces one of that name."""
        import datasets

        rows, feature = self.rows, None
        if not len(rows):
            # ``add_column`` fails if all rows of a table with an added column were removed.
            rows = datasets.Dataset.from_dict(dict.fromkeys(rows.column_names, ()), rows.features)
        if name in rows.column_names:
            rows, feature = rows.remove_columns(name), rows.features[name]
        with without_progress_bars():
            return replace(self, rows=rows.add_column(name, list(values), feature=feature))

    def positions_of(self, rows: Ints) -> Ints:
        """The positions of these source rows, each of which must be in this table."""
        source_rows = np.asarray(self.column("row"), dtype=np.int64)
        order = np.argsort(source_rows, kind="stable")
        return np.asarray(order[np.searchsorted(source_rows, rows, sorter=order)])

    def column(self, name: str) -> Any:
        """One column as a NumPy array (numbers) or a list (strings)."""
        # Through Arrow, as one column: ``datasets`` makes an object of each row otherwise.
        if not self._arrow:
            self._arrow.append(self.rows.with_format("arrow"))
        values = self._arrow[0][:][name]
        return values.to_numpy() if name in ("row", "label", "value") else values.to_pylist()

    @property
    def has_images(self) -> bool:
        """Whether a row is an image, whose ``text`` is the hash of its pixels."""
        return "path" in self.rows.column_names

    @property
    def has_pairs(self) -> bool:
        return "text_pair" in self.rows.column_names

    @property
    def has_groups(self) -> bool:
        return "group" in self.rows.column_names


@dataclass(frozen=True, slots=True)
class TrainSplit:
    """Training rows: the only ones that the model learns from and that may be enriched."""

    table: Table

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True, slots=True)
class ValidSplit:
    """Validation rows, for every decision: stopping, choosing, calibrating, acting."""

    table: Table

    def __len__(self) -> int:
        return len(self.table)


class HeldOut:
    """The test rows. ``open`` returns them once; a second call is a defect.

    A run opens them to score them, and records in ``events.jsonl`` when it did; ``--dry-run``,
    which keeps nothing, to count those that would be truncated.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._opened = False

    def __len__(self) -> int:
        return len(self._table)

    def open(self) -> Table:
        if self._opened:
            raise Defect("the test rows", "were opened a second time in one run")
        self._opened = True
        return self._table


@dataclass(frozen=True, slots=True)
class Splits:
    """The splits of a source. ``records`` is an Arrow table for ``splits.parquet``, one line per
    source row: ``file`` string, ``row`` int64, ``split`` (train|valid|test|dropped), ``group``
    string or null, ``note`` string or null (why it was moved or dropped). ``moved`` rows are in
    another split than if every row were split by itself. ``units`` [train + valid] are equal for
    rows that duplicates or a group hold together."""

    train: TrainSplit
    valid: ValidSplit
    test: HeldOut
    records: pa.Table
    findings: tuple[Finding, ...] = ()
    decisions: tuple[Decision, ...] = ()
    moved: int = 0
    units: Ints | None = None


# The origins of added rows.
ORIGINS = ("name", "description", "unlabelled", "synthetic", "mixed", "canary", "taught")


@dataclass(frozen=True, slots=True)
class AddedRows:
    """Added rows [m].

    ``table`` has the columns of the table that they are added to, as far as a task reads them;
    its ``row`` is −1, −2, …, which no source row has. ``weights`` [m], at least 0, are relative to
    a row of the table, which has weight 1; a row of weight 0 is left out of a fit.
    ``origins`` [m] are of ``ORIGINS``. See ``added_texts``, ``join_added``.
    """

    table: Table
    weights: Floats
    origins: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.table), len(self.weights), len(self.origins)}
        if len(sizes) > 1:
            raise Defect("added rows", "need one weight and one origin each", tuple(sizes))
        weights = np.asarray(self.weights)
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise Defect("added rows", "have a weight that is negative or not finite")
        unknown = set(self.origins) - set(ORIGINS)
        if unknown:
            raise Defect("added rows", f"must have an origin of {ORIGINS}", unknown.pop())

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def counts(self) -> dict[str, int]:
        """The number of rows per origin that have a positive weight."""
        used = (o for o, w in zip(self.origins, self.weights, strict=True) if w > 0)
        return dict(Counter(used))

    def positions_of(self, origins: Sequence[str] | None) -> Ints:
        """Positions of the rows of these origins (of all for ``None``) that have a positive
        weight."""
        included = ORIGINS if origins is None else origins
        known = np.asarray([origin in included for origin in self.origins], dtype=bool)
        return np.flatnonzero(known & (np.asarray(self.weights) > 0))


def added_texts(
    like: Table,
    texts: Sequence[str],
    labels: Sequence[int] | Ints,
    *,
    origin: str,
    weights: float | Sequence[float] | Floats = 1.0,
) -> AddedRows:
    """Texts with one class each, an index into ``like.classes``, to be learned with the rows of
    ``like``. ``weights`` is one number for all, or one per text.

    Raises ``Defect`` where lengths differ, a label is not a class, or ``like`` has pairs of texts.
    """
    import datasets

    marks = np.asarray(labels, dtype=np.int64)
    if len(marks) and not (marks.min() >= 0 and marks.max() < len(like.classes)):
        raise Defect(
            "added rows", f"must have one of {len(like.classes)} classes", int(marks.max())
        )
    if like.has_pairs:
        raise Defect("added rows", "must be pairs of texts if and only if those of the table are")
    if len(texts) != len(marks):
        raise Defect("added rows", "need one label each", (len(texts), len(marks)))
    numbers = (-1 - np.arange(len(texts))).tolist()
    columns = {"row": numbers, "text": list(map(str, texts)), "label": marks.tolist()}
    rows = datasets.Dataset.from_dict(columns)
    return AddedRows(
        replace(like, rows=rows, source="", source_rows=0, findings=(), decisions=()),
        np.broadcast_to(np.asarray(weights, dtype=np.float64), (len(texts),)).copy(),
        (origin,) * len(texts),
    )


def join_added(*parts: AddedRows) -> AddedRows:
    """Several sets of added rows as one, with new row numbers."""
    import datasets

    rows = datasets.concatenate_datasets([part.table.rows for part in parts])
    numbers = (-1 - np.arange(len(rows))).tolist()
    rows = rows.remove_columns("row").add_column("row", numbers)
    return AddedRows(
        replace(parts[0].table, rows=rows),
        np.concatenate([np.asarray(part.weights) for part in parts]),
        tuple(origin for part in parts for origin in part.origins),
    )
