"""Views: the inputs of checks, one type each for rows, duplicates, vectors, tokens and images.

A view is made once and shared by all checks that read it. The audit
(``analyses/audit/audit.py``) decides whether it can be made, and reports which checks were skipped.
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
from holdfast.quality.label_ranking import LabelRanking, rank_labels
from holdfast.stats.bootstrap import group_codes

if TYPE_CHECKING:
    from holdfast.duplicates.duplicates import CombinedRows
    from holdfast.duplicates.loose_duplicates import LooseDuplicates
    from holdfast.quality.leaks import InflationEstimator

_BATCH_ROWS = 10_000


def text_batches(table: Table) -> Iterator[tuple[int, list[str]]]:
    """The position of each batch's first row, and its texts (pairs joined by a line break)."""
    rows = table.rows.with_format("arrow")
    for start in range(0, len(table), _BATCH_ROWS):
        yield start, _joined_texts(rows[start : start + _BATCH_ROWS]).to_pylist()


def _joined_texts(batch: pa.Table) -> pa.ChunkedArray:
    """The texts of some rows; text pairs are joined by a line break."""
    if "text_pair" not in batch.column_names:
        return batch["text"]
    return pc.binary_join_element_wise(batch["text"], batch["text_pair"], "\n")


def normalize_pair(text: str) -> str:
    """The text normalised by ``normal_text``, each part of a pair separately."""
    return "\n".join(normal_text(part) for part in text.split("\n"))


Vectors = npt.NDArray[np.float32]


# Of more rows a check of single texts reads this many, evenly spaced, and says so.
MAX_SAMPLE = 50_000
# Of more images this many are decoded to examine their pixels, which takes two seconds.
MAX_IMAGE_SAMPLE = 1_000


def _no_column(name: str) -> list[str | None]:
    raise KeyError(name)


@dataclass(frozen=True)
class OtherColumns:
    """The columns of a source that are neither text nor label, as written in the source.

    ``names`` are the column names; ``columns[name]`` gives the values [n] in the order of the
    table's rows, ``None`` for an empty cell. During training there are none.
    """

    names: tuple[str, ...] = ()
    read: Callable[[str], list[str | None]] = _no_column
    _cache: dict[str, list[str | None]] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, name: str) -> list[str | None]:
        if name not in self._cache:
            self._cache[name] = self.read(name)
        return self._cache[name]

    def take(self, positions: Ints) -> OtherColumns:
        """The columns of the rows at these positions."""
        return OtherColumns(self.names, lambda name: [self[name][at] for at in positions.tolist()])


@dataclass(frozen=True)
class TableRows:
    """The table, and the ``other_columns`` of its source if they are read. ``sample`` and
    ``sampled`` are for checks that read every text."""

    table: Table
    other_columns: OtherColumns = field(default_factory=OtherColumns)

    @property
    def noun(self) -> str:
        return "image" if self.table.has_images else "text"

    @cached_property
    def sample(self) -> Ints:
        """Positions of the rows that a check of single texts reads [≤ 50,000]: all rows, or every
        k-th, always the same."""
        step = -(-len(self.table) // MAX_SAMPLE)
        return np.arange(0, len(self.table), max(1, step))

    @cached_property
    def sampled(self) -> pa.ChunkedArray:
        """The texts of ``sample`` as Arrow data; text pairs are joined by a line break."""
        sampled_rows = (
            self.table if len(self.sample) == len(self.table) else self.table.take(self.sample)
        )
        # Selected rows come in one chunk each, and a pattern is compiled for every chunk.
        return _joined_texts(sampled_rows.rows.with_format("arrow")[:].combine_chunks())

    @property
    def sample_note(self) -> str:
        """A phrase for findings on the sample that was read; empty if all rows were read."""
        if len(self.sample) == len(self.table):
            return ""
        return f" (of {len(self.sample):,} sampled from {len(self.table):,})"

    @cached_property
    def texts(self) -> list[str]:
        """The text of each row [n]; text pairs are joined by a line break."""
        texts: list[str] = _joined_texts(self.table.rows.with_format("arrow")[:]).to_pylist()
        return texts

    @cached_property
    def labels(self) -> Ints:
        """The class of each row [n]; −1 if unknown."""
        labels: Ints = self.table.column("label")
        return labels

    @cached_property
    def group_codes(self) -> Ints | None:
        """The group of each row as whole numbers [n]; ``None`` where none are given."""
        if not self.table.has_groups:
            return None
        return group_codes(self.table.column("group"), len(self.table))

    @cached_property
    def class_counts(self) -> Ints:
        """Rows of each class, [classes]; rows without a known label are not counted."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.table.classes))

    @cached_property
    def ids(self) -> Ints:
        """The row number in the source of each row [n], as findings print it."""
        ids: Ints = self.table.column("row")
        return ids

    @cached_property
    def distinct(self) -> Ints:
        """The positions [m] of the rows whose words, in order, no earlier row has."""
        first: dict[str, int] = {}
        for position, text in enumerate(self.texts):
            first.setdefault(normalize_pair(text), position)
        return np.fromiter(first.values(), dtype=np.int64, count=len(first))


@dataclass(frozen=True)
class ThoroughRows:
    """The table by itself, for checks that are too slow for ``train``: only the audit makes this
    view."""

    rows: TableRows


@dataclass(frozen=True)
class TableCopies:
    """The duplicates in the table and in the tables it is compared with. ``all_rows`` has the table
    as ``source``, and the others by name. ``split_names`` are those that are the validation and
    test rows of this source; the rest were given with ``--against``. ``other_columns`` are those of
    the other tables, by name. ``inflation`` estimates, in points, by how much duplicates inflate an
    accuracy, if a model has read the rows. ``loose_copies`` are the pairs that differ in more
    words, if requested (``audit.loose``)."""

    rows: TableRows
    all_rows: CombinedRows
    split_names: tuple[str, ...] = ()
    other_columns: Mapping[str, OtherColumns] = field(default_factory=dict)
    inflation: InflationEstimator | None = None
    loose_copies: LooseDuplicates | None = None

    @property
    def others(self) -> tuple[str, ...]:
        """The names of all tables except the source."""
        return tuple(name for name in self.all_rows.tables if name != "source")

    def split_inflation_text(self, units: Ints) -> str:
        """A phrase for how much duplicates (equal ``units`` [n]) across a random split inflate an
        accuracy; empty if that is unknown."""
        price = self.inflation.from_split(self.all_rows, units) if self.inflation else None
        return f", and would inflate the measured accuracy by {price}" if price else ""


@dataclass(frozen=True)
class Embedded:
    """The table as vectors (embeddings) of a model.

    ``vectors`` [n, d] are mean-pooled outputs of the frozen ``encoder``, of unit length; ``embed``
    gives those of other texts. ``others`` are the vectors of the tables it is compared with, by
    name. ``tuned_log_p`` [n, classes] are out-of-fold log-probabilities of each row from features
    fine-tuned on the other folds, if requested. ``middle_vectors`` [n, d] come from two thirds of
    the encoder's depth; they hold more style and wording than the last layer. ``unlabelled`` are
    texts without a label, with their vectors. For a large table all this is a sample: ``rows`` are
    the embedded rows. ``references`` are vectors of reference texts in the space of
    ``probe_features``, by name: ``general`` (many subjects) and ``filler``.
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
        """The features of linear probes [n, d or more]: the vectors of all depths, concatenated."""
        inner = () if self.middle_vectors is None else (self.middle_vectors,)
        return np.concatenate([self.vectors, *inner], axis=1)

    @cached_property
    def fold_predictions(self) -> FoldLogProbabilities | None:
        """Out-of-fold predictions of the labels; ``None`` with too few rows, or if labels are not
        classes."""
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
    def label_ranking(self) -> LabelRanking | None:
        """The labelled rows by doubt; ``None`` without ``fold_predictions``."""
        return None if self.fold_predictions is None else rank_labels(self.fold_predictions)

    @cached_property
    def paraphrases(self) -> SimilarPairs:
        """The pairs of distinct rows that paraphrase each other, by position, without duplicates
        and near-duplicates by words."""
        rows = self.rows.distinct
        pairs = paraphrases(self.vectors[rows], [self.rows.texts[at] for at in rows.tolist()])
        first, second = rows[pairs.first], rows[pairs.second]
        return SimilarPairs(first, second, pairs.similarity).where(
            are_no_duplicates(self.rows.table, first, self.rows.table, second)
        )

    @cached_property
    def content_probes(self) -> ContentProbes | None:
        """Probes of the classes, each fitted without a fifth of the rows; ``None`` if fewer than
        two classes have two rows."""
        return fit_content_probes(
            self.vectors, self.rows.labels, len(self.rows.table.classes), self.seed
        )


@dataclass(frozen=True)
class Tokenized:
    """The table as the model's tokens: ``lengths`` [n] of the texts in tokens before truncation,
    ``unknown`` [n] how many of them are the unknown token, ``words`` [n] the number of words,
    ``limit`` the model's token limit. Each length includes ``special`` tokens that are not part of
    the text. ``rendered`` [n] are the lengths of a language model's rows as they are trained:
    chats with their answers and the marks of the template; ``None`` for other models.
    """

    rows: TableRows
    lengths: Ints
    unknown: Ints
    words: Ints
    limit: int
    model: str
    special: int = 0
    rendered: Ints | None = None

    @property
    def trained_lengths(self) -> Ints:
        """The tokens of each row before truncation, [n]."""
        return self.lengths if self.rendered is None else self.rendered


@dataclass(frozen=True)
class Images:
    """A table of images; ``open`` gives the upright Pillow image at a position, ``paths`` are the
    files. ``vectors`` [n, d] of unit length come from a model, if one is given; ``others`` are the
    images it is compared with, by name."""

    rows: TableRows
    paths: Sequence[str]
    open: Callable[[int], Any]
    vectors: Vectors | None = None
    others: Mapping[str, Images] = field(default_factory=dict)

    @cached_property
    def file_facts(self) -> list[FileFacts]:
        """The properties and the thumbnail of each file [n]. Each file is decoded once."""
        return [
            read_file_facts(path, self.open(position)) for position, path in enumerate(self.paths)
        ]

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """The thumbnails of the images [n]."""
        pixels = np.stack([facts.pixels for facts in self.file_facts])
        return Thumbnails(pixels, np.array([facts.shape for facts in self.file_facts]))

    @cached_property
    def copies(self) -> SimilarPairs:
        """The pairs of near-duplicate images, by position; equal content is not included."""
        pairs = near_duplicate_images(self.thumbnails, vectors=self.vectors)
        return pairs.where(have_different_content(self.rows.texts, self.rows.texts, pairs))


@dataclass(frozen=True)
class ImageSample:
    """A sample of a table of images, small enough for ``train``; ``open`` gives the upright RGB
    Pillow image at a position."""

    rows: TableRows
    open: Callable[[int], Any]

    @cached_property
    def sample(self) -> Ints:
        """Positions of the labelled images that are decoded [≤ 1,000], always the same."""
        labelled = np.flatnonzero(self.rows.labels >= 0)
        # With evenly spaced rows, alternating classes could give a sample of one class.
        selected = generator(0, "pixels").permutation(labelled)[:MAX_IMAGE_SAMPLE]
        return np.sort(selected)

    @cached_property
    def labels(self) -> Ints:
        """The classes of ``sample``."""
        return self.rows.labels[self.sample]

    @cached_property
    def traces(self) -> Traces:
        """The traces of image processing in the pixels of ``sample``."""
        return extract_traces(map(self.open, self.sample.tolist()), len(self.sample))


def image_sample(rows: TableRows) -> ImageSample:
    """The view of a table of image files."""
    paths: list[str] = rows.table.column("path")
    return ImageSample(rows, lambda at: read_image(paths[at]).image)


def needs_other_file(view: TableCopies | Embedded | Images) -> str:
    """Why rows cannot be compared with another file; empty if they can."""
    return "" if view.others else "no other file is given: --against FILE"
