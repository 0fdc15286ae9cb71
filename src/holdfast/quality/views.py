"""What a check may read, each a type: rows, duplicates, vectors, tokens, images.

A view is made once and shared by all checks that take it. The audit
(``analyses/audit/audit.py``) decides whether it can be made at all, and reports which checks were
skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.data.images.decode import read_image
from holdfast.data.table import Table
from holdfast.data.texts.general import normal_text
from holdfast.duplicates.images import Thumbnails, have_different_content, near_duplicate_images
from holdfast.duplicates.semantic import are_no_duplicates, paraphrases
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import has_classes
from holdfast.quality.fold_predictions import (
    ContentProbes,
    FoldLogProbabilities,
    cross_fit,
    fit_content_probes,
)
from holdfast.quality.image_facts import FileFacts, Traces, extract_traces, read_file_facts

if TYPE_CHECKING:
    from holdfast.duplicates.duplicates import CombinedRows
    from holdfast.duplicates.loose_duplicates import LooseDuplicates
    from holdfast.quality.leaks import InflationEstimator

_BATCH_ROWS = 10_000


def text_batches(table: Table) -> Iterator[tuple[int, list[str]]]:
    """The position of each batch's first row, and its texts (pairs with a line break between)."""
    rows = table.rows.with_format("arrow")
    for start in range(0, len(table), _BATCH_ROWS):
        yield start, _joined_texts(rows[start : start + _BATCH_ROWS]).to_pylist()


def _joined_texts(batch: pa.Table) -> pa.ChunkedArray:
    """The texts of some rows; of a pair both, with a line break between."""
    if "text_pair" not in batch.column_names:
        return batch["text"]
    return pc.binary_join_element_wise(batch["text"], batch["text_pair"], "\n")


def normalize_pair(text: str) -> str:
    """The text as ``normal_text`` has it, each part of a pair by itself."""
    return "\n".join(normal_text(part) for part in text.split("\n"))


Vectors = npt.NDArray[np.float32]


# Of more rows a check of single texts looks at so many, spread evenly, and says so.
MAX_SAMPLE = 50_000
# Of more images so many are decoded for what their pixels keep: two seconds.
MAX_IMAGE_SAMPLE = 1_000


def _no_column(name: str) -> list[str | None]:
    raise KeyError(name)


@dataclass(frozen=True)
class OtherColumns:
    """The columns of a source that are neither text nor label, as the source writes them.

    ``names`` are theirs; ``columns[name]`` gives the values [n] in the order of the table's rows,
    ``None`` where a cell is empty. There are none while a run is trained.
    """

    names: tuple[str, ...] = ()
    read: Callable[[str], list[str | None]] = _no_column
    _cache: dict[str, list[str | None]] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, name: str) -> list[str | None]:
        if name not in self._cache:
            self._cache[name] = self.read(name)
        return self._cache[name]

    def take(self, positions: Ints) -> OtherColumns:
        """Those of some rows, by their positions."""
        return OtherColumns(self.names, lambda name: [self[name][at] for at in positions.tolist()])


@dataclass(frozen=True)
class TableRows:
    """The table, and the ``other_columns`` of its source, where they are read. ``sample`` and
    ``sampled`` are for checks that read every text."""

    table: Table
    other_columns: OtherColumns = field(default_factory=OtherColumns)

    @cached_property
    def sample(self) -> Ints:
        """Positions of the rows that a check of single texts reads [≤ 50,000]: all, or every k-th,
        the same each time."""
        step = -(-len(self.table) // MAX_SAMPLE)
        return np.arange(0, len(self.table), max(1, step))

    @cached_property
    def sampled(self) -> pa.ChunkedArray:
        """The texts of ``sample`` in Arrow; of a pair both, with a line break between."""
        sampled_rows = (
            self.table if len(self.sample) == len(self.table) else self.table.take(self.sample)
        )
        # Rows that were picked come in a chunk each, and a pattern is compiled for every chunk.
        return _joined_texts(sampled_rows.rows.with_format("arrow")[:].combine_chunks())

    @property
    def sample_note(self) -> str:
        """What a reason says of the rows that were looked at: nothing where they are all."""
        if len(self.sample) == len(self.table):
            return ""
        return f" (of {len(self.sample):,} that were looked at, among {len(self.table):,})"

    @cached_property
    def texts(self) -> list[str]:
        """The text of each row [n]; of a pair both, with a line break between."""
        texts: list[str] = _joined_texts(self.table.rows.with_format("arrow")[:]).to_pylist()
        return texts

    @cached_property
    def labels(self) -> Ints:
        """The class of each row [n]; −1 where it is not known."""
        labels: Ints = self.table.column("label")
        return labels

    @cached_property
    def class_counts(self) -> Ints:
        """Rows of each class, [classes]; rows without a known label are not counted."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.table.classes))

    @cached_property
    def ids(self) -> Ints:
        """The row of the source that each row is [n]: what findings name."""
        ids: Ints = self.table.column("row")
        return ids

    @cached_property
    def distinct(self) -> Ints:
        """The positions [m] of the rows whose words no earlier row has in the same order."""
        first: dict[str, int] = {}
        for position, text in enumerate(self.texts):
            first.setdefault(normalize_pair(text), position)
        return np.fromiter(first.values(), dtype=np.int64, count=len(first))


@dataclass(frozen=True)
class ThoroughRows:
    """The table alone, for checks that take longer than a training should wait for: the audit makes
    this view, ``train`` does not."""

    rows: TableRows


@dataclass(frozen=True)
class TableCopies:
    """The table and the duplicates in it and in the tables it is compared with: ``all_rows`` has
    the table as ``source``, and the others by their names. ``split_names`` are those names that are
    the validation and test rows of this source; the rest was given with ``--against``.
    ``other_columns`` are those of the other tables, by name; ``inflation`` estimates in points by
    how much duplicates inflate an accuracy, where a model has read the rows; ``loose_copies`` are
    the pairs of all their texts that differ in more words, if requested (``audit.loose``)."""

    rows: TableRows
    all_rows: CombinedRows
    split_names: tuple[str, ...] = ()
    other_columns: Mapping[str, OtherColumns] = field(default_factory=dict)
    inflation: InflationEstimator | None = None
    loose_copies: LooseDuplicates | None = None

    @property
    def others(self) -> tuple[str, ...]:
        """The names of all tables but the source."""
        return tuple(name for name in self.all_rows.tables if name != "source")

    def split_inflation_text(self, units: Ints) -> str:
        """What copies (equal ``units`` [n]) cost where a random division parts them, in words;
        nothing where that cannot be told."""
        price = self.inflation.from_split(self.all_rows, units) if self.inflation else None
        return f", and an accuracy measured on it would be too good by {price}" if price else ""


def needs_other_file(copied: TableCopies) -> str:
    """Why nothing can be held against other rows."""
    return "" if copied.others else "no other file is named: --against FILE"


@dataclass(frozen=True)
class Embedded:
    """The table in the geometry of a model.

    ``vectors`` [n, d] unit length, the mean-pooled frozen ``encoder``; ``embed`` gives those of
    other texts. ``others`` are the vectors of the tables it is compared with, by name.
    ``tuned_log_p`` [n, classes] are out-of-fold log-probabilities of each row by features tuned on
    the other folds, if requested. ``middle_vectors`` [n, d] are the vectors of the encoder at two
    thirds of its depth, which hold more of style and wording than the last ones. ``unlabelled`` are
    texts without a label, with their vectors. Of a large table all this is a sample: ``rows`` are
    those that were embedded. ``references`` are texts of a known sort in the space of
    ``probe_features``, by name: ``general`` of many subjects, ``filler`` that says nothing.
    """

    rows: TableRows
    vectors: Vectors
    encoder: str
    embed: Callable[[Sequence[str]], Vectors]
    others: Mapping[str, tuple[Table, Vectors]] = field(default_factory=dict)
    tuned_log_p: Floats | None = None
    middle_vectors: Vectors | None = None
    seed: int = 0
    unlabelled: tuple[Table, Vectors] | None = None
    references: Mapping[str, Vectors] = field(default_factory=dict)

    @cached_property
    def probe_features(self) -> Vectors:
        """What probes read [n, d or more]: the vectors of all depths side by side."""
        inner = () if self.middle_vectors is None else (self.middle_vectors,)
        return np.concatenate([self.vectors, *inner], axis=1)

    @cached_property
    def fold_predictions(self) -> FoldLogProbabilities | None:
        """What the rows say of each other's labels, from fits that had not seen the row; ``None``
        where there are too few, or labels are no classes."""
        table = self.rows.table
        if not has_classes(table):
            return None
        return cross_fit(
            self.probe_features,
            self.rows.texts,
            self.rows.labels,
            classes=len(table.classes),
            seed=self.seed,
            tuned_log_p=self.tuned_log_p,
        )

    @cached_property
    def paraphrases(self) -> SimilarPairs:
        """The pairs of distinct rows that say the same in other words, by position; copies and
        near-copies word for word are not among them."""
        rows = self.rows.distinct
        pairs = paraphrases(self.vectors[rows], [self.rows.texts[at] for at in rows.tolist()])
        first, second = rows[pairs.first], rows[pairs.second]
        return SimilarPairs(first, second, pairs.similarity).where(
            are_no_duplicates(self.rows.table, first, self.rows.table, second)
        )

    @cached_property
    def content_probes(self) -> ContentProbes | None:
        """Probes of the classes, each fitted without a fifth of the rows; ``None`` where fewer than
        two classes have two rows."""
        return fit_content_probes(
            self.vectors, self.rows.labels, len(self.rows.table.classes), self.seed
        )


@dataclass(frozen=True)
class Tokenized:
    """The table as the model reads it: ``lengths`` [n] tokens before anything is cut, ``unknown``
    [n] how many of them are the unknown token, ``words`` [n] words; ``limit`` the model's tokens.
    Of each length ``special`` tokens are not the text's.
    """

    rows: TableRows
    lengths: Ints
    unknown: Ints
    words: Ints
    limit: int
    model: str
    special: int = 0


@dataclass(frozen=True)
class Images:
    """A table of pictures; ``open`` gives the upright picture of a position as the library Pillow
    has it, ``paths`` its files. ``vectors`` [n, d] unit length are those of a model, where one is
    given; ``others`` the pictures it is held against, by name."""

    rows: TableRows
    paths: Sequence[str]
    open: Callable[[int], Any]
    vectors: Vectors | None = None
    others: Mapping[str, Images] = field(default_factory=dict)

    @cached_property
    def file_facts(self) -> list[FileFacts]:
        """What each file says beside what it shows [n], and its thumbnail. Each is decoded once."""
        return [
            read_file_facts(path, self.open(position)) for position, path in enumerate(self.paths)
        ]

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """The pictures made small [n]."""
        pixels = np.stack([facts.pixels for facts in self.file_facts])
        return Thumbnails(pixels, np.array([facts.shape for facts in self.file_facts]))

    @cached_property
    def copies(self) -> SimilarPairs:
        """The pairs of positions whose pixels agree though they are not the same."""
        pairs = near_duplicate_images(self.thumbnails, vectors=self.vectors)
        return pairs.where(have_different_content(self.rows.texts, self.rows.texts, pairs))


@dataclass(frozen=True)
class ImageSample:
    """A sample of a table of images, small enough that a training waits for it too; ``open`` gives
    the upright RGB image of a position as the library Pillow has it."""

    rows: TableRows
    open: Callable[[int], Any]

    @cached_property
    def sample(self) -> Ints:
        """Positions of the labelled images that are decoded [≤ 1,000], the same each time."""
        labelled = np.flatnonzero(self.rows.labels >= 0)
        # A step would meet one class alone where classes take turns.
        selected = generator(0, "pixels").permutation(labelled)[:MAX_IMAGE_SAMPLE]
        return np.sort(selected)

    @cached_property
    def labels(self) -> Ints:
        """The classes of ``sample``."""
        return self.rows.labels[self.sample]

    @cached_property
    def traces(self) -> Traces:
        """What the pixels of ``sample`` keep of how the images were made."""
        return extract_traces(map(self.open, self.sample.tolist()), len(self.sample))


def image_sample(rows: TableRows) -> ImageSample:
    """The view of a table of image files."""
    paths: list[str] = rows.table.column("path")
    return ImageSample(rows, lambda at: read_image(paths[at]).image)
