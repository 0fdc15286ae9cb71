"""The rows of a comparison: the same training, validation and test rows for every system.

Copies and near-copies are taken out of the whole set first (one row of each group stays), so that
Holdfast's own division drops nothing and no system is paid for remembering a test row.
"""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from holdfast.core.seeds import generator
from holdfast.duplicates.duplicates import find_duplicates

if TYPE_CHECKING:
    from holdfast.data.table import Table

FILES = {"cr": ("cr.csv",), "mr": ("mr.csv",), "trec": ("train.csv", "test.csv")}
SETS = tuple(FILES)
POOL = 2000
VALID_SHARE = 0.18
# Holdfast refuses a training file with fewer than three different texts of a class; with one row
# in validation that makes four. It concerns TREC's ABBR alone (1.6 % of the rows).
LEAST = {"train": 3, "valid": 1}


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts and their labels, by name."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Iterable[int]) -> Rows:
        chosen = [int(position) for position in positions]
        return Rows(tuple(self.texts[i] for i in chosen), tuple(self.labels[i] for i in chosen))

    def records(self) -> list[dict[str, str]]:
        """A record of each row, as ``holdfast.train`` takes them."""
        pairs = zip(self.texts, self.labels, strict=True)
        return [{"text": text, "label": label} for text, label in pairs]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a system gets: it learns from ``train``, chooses by ``valid``, is scored on ``test``."""

    train: Rows
    valid: Rows
    test: Rows

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.train.labels))

    def named(self) -> dict[str, Rows]:
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def whole(self) -> Parts:
        """The same, for a system that uses no validation rows: it learns from those too."""
        texts = self.train.texts + self.valid.texts
        return Parts(Rows(texts, self.train.labels + self.valid.labels), self.valid, self.test)


def data_folder() -> Path:
    """Where the data sets are: ``HOLDFAST_DATA``, else ``../shared/data`` beside the project."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("HOLDFAST_DATA", beside))
    if not folder.is_dir():
        raise SystemExit(f"not run: set HOLDFAST_DATA to the folder of the data sets ({folder})")
    return folder


@functools.cache
def clean_set(name: str) -> Rows:
    """A whole data set without copies and without empty texts, which Holdfast leaves out."""
    rows: list[tuple[str, str]] = []
    for file in FILES[name]:
        with (data_folder() / name / file).open(encoding="utf-8", newline="") as lines:
            rows += [
                (row["text"], row["label"]) for row in csv.DictReader(lines) if row["text"].strip()
            ]
    return without_copies(Rows(tuple(text for text, _ in rows), tuple(label for _, label in rows)))


def without_copies(rows: Rows) -> Rows:
    """The first row of each group of copies, until no two rows are copies of each other."""
    while True:
        copies = find_duplicates(rows.texts)
        first = np.unique(copies.groups, return_index=True)[1]
        if len(first) == len(rows):
            return rows
        rows = rows.take(np.sort(first))


def draw(
    rows: Rows, *, seed: int, train: int, valid: int, test: slice | None = None, pool: int = POOL
) -> Parts:
    """Training and validation rows by seed, stratified; test rows from a pool that is the same for
    every seed and size, and never touched by the others. ``test`` takes a piece of the pool.

    A class has at least three rows in training and one in validation (``LEAST``).
    """
    order = generator(0, "benchmark", "pool").permutation(len(rows))
    held, rest = order[:pool], order[pool:]
    shuffled = rest[generator(seed, "benchmark", "rows").permutation(len(rest))]
    labelled = stratified(rows, shuffled, train + valid, sum(LEAST.values()))
    chosen = stratified(rows, labelled, valid, LEAST["valid"])
    others = labelled[~np.isin(labelled, chosen)]
    tested = held if test is None else held[test]
    return Parts(rows.take(others), rows.take(chosen), rows.take(tested))


def stratified(rows: Rows, positions: np.ndarray, count: int, least: int) -> np.ndarray:
    """The first of ``positions`` of each class, as many as the class's share of ``count``."""
    if count > len(positions):
        raise ValueError(f"{count} rows are wanted, and there are {len(positions)}")
    labels = np.array([rows.labels[position] for position in positions])
    classes, sizes = np.unique(labels, return_counts=True)
    quotas = allocate(sizes.tolist(), count, least)
    taken = [
        np.flatnonzero(labels == name)[:quota] for name, quota in zip(classes, quotas, strict=True)
    ]
    return positions[np.sort(np.concatenate(taken))]


def allocate(sizes: Sequence[int], count: int, least: int = 0) -> list[int]:
    """``count`` places over classes of these sizes, to within one row of their shares; but at
    least ``least`` each, or all that a class has.

    >>> allocate([90, 9, 1], 10), allocate([90, 9, 1], 10, least=1)
    ([9, 1, 0], [8, 1, 1])
    """
    shares = np.array(sizes) * count / sum(sizes)
    given = np.minimum(sizes, least)
    if given.sum() > count:
        raise ValueError(f"{count} rows are too few for {least} of each of {len(sizes)} classes")
    while given.sum() < count:
        missing = np.where(given < sizes, shares - given, -np.inf)
        given[int(missing.argmax())] += 1
    return [int(number) for number in given]


class Counts(TypedDict):
    """How many labelled rows a system gets."""

    train: int
    valid: int


def labelled_counts(labelled: int) -> Counts:
    """Training and validation rows of ``labelled`` in all: 82 and 18 %."""
    valid = round(labelled * VALID_SHARE)
    return {"train": labelled - valid, "valid": valid}


def table_of(rows: Rows, classes: tuple[str, ...]) -> Table:
    """The rows as Holdfast's own table."""
    import datasets

    from holdfast.data.table import Columns, Table

    place = {name: index for index, name in enumerate(classes)}
    columns = {
        "row": list(range(len(rows))),
        "text": list(rows.texts),
        "label": [place[label] for label in rows.labels],
    }
    made, said = (
        datasets.Dataset.from_dict(columns),
        Columns(("text",), "label", label_kind="class"),
    )
    return Table(made, classes, said, "benchmark", len(rows))
