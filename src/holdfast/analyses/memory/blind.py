"""A baseline without the model: how well a classifier that does not use it separates members from
others.

If it separates them, an attack may do so without any memorization (2406.16201), so nothing can be
concluded from the attack.

The features of a row are its words, length, punctuation and label, or an image's colours.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.analyses.memory.membership import LEVEL, as_estimate
from holdfast.core.errors import DataError
from holdfast.core.records import Estimate, Floats
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.quality.two_samples import classifier_two_sample_test

FEATURE_WIDTH = 64


def blind_area(members: Floats, others: Floats, seed: int) -> Estimate:
    """The area under the ROC curve of a logistic regression that separates ``members`` [n, d] from
    ``others`` [m, d] without the model, each row scored by a fit without it."""
    found = classifier_two_sample_test(others, members, seed, LEVEL)
    return Estimate(None, why="too few rows") if found is None else as_estimate(found.area)


def sets_differ(blind: Estimate) -> bool:
    """Whether the two sets differ without the model."""
    return blind.low is not None and blind.low > 0.5


_WORD = re.compile(r"\w+")
BUCKETS = 4096
# Only the beginning of a long text is read.
MAX_CHARACTERS = 20_000
MAX_CLASSES = 50
THUMBNAIL_SIDE = 8
IMAGE_COLUMN = "path"


def features_of(members: Table, others: Table, width: int) -> tuple[Floats, Floats]:
    """The rows of both tables as numbers [n, d] and [m, d]: ``width`` directions of their words (or
    pixels), the lengths, the shares of digits, capitals and punctuation, and the label."""
    tables = (members, others)
    if IMAGE_COLUMN in members.rows.column_names:
        pixels = np.concatenate([_thumbnails(table.column(IMAGE_COLUMN)) for table in tables])
        parts = [directions(pixels - pixels.mean(axis=0), width), pixels.mean(axis=1)[:, None]]
    else:
        texts = [text for table in tables for text in texts_of(table)]
        parts = [directions(_words(texts), width), _shape(texts)]
    parts.append(_labels(tables))
    features = np.concatenate(parts, axis=1)
    return features[: len(members)], features[len(members) :]


def texts_of(table: Table) -> list[str]:
    """All text of a row in one string; for pairs both texts."""
    texts = [str(text or "") for text in table.column("text")]
    if not table.has_pairs:
        return texts
    return [
        f"{one}\n{two or ''}" for one, two in zip(texts, table.column("text_pair"), strict=True)
    ]


def directions(table: Any, width: int) -> Floats:
    """The rows of a table [n, d], dense or sparse, on its ``width`` strongest directions, each
    scaled to a standard deviation of 1. Raises ``DataError`` if the directions cannot be found."""
    from scipy.sparse.linalg import ArpackError, svds

    n_directions = min(width, min(table.shape) - 1)
    if n_directions < 1 or not abs(table).sum():
        return np.zeros((table.shape[0], 1))
    # The start vector decides signs: a fixed one gives equal rows equal numbers. It must not be
    # all ones, which centred columns map to zero.
    start_vector = generator(0, "directions").standard_normal(min(table.shape))
    try:
        left, sizes, _ = svds(table.astype(np.float64), k=n_directions, v0=start_vector)
    except ArpackError as error:
        rule = f"have no strongest directions: the solver failed ({error})"
        raise DataError("the rows to compare", rule, None, "Try other rows.") from error
    left = left[:, sizes > 1e-9][:, ::-1]
    return np.asarray(left * np.sqrt(len(left)))


def _words(texts: Sequence[str]) -> Any:
    """The words in each text [n, 4096], hashed, each row scaled to length 1."""
    from scipy.sparse import csr_array

    columns: list[int] = []
    ends = [0]
    for text in texts:
        words = set(_WORD.findall(text[:MAX_CHARACTERS].casefold()))
        columns += sorted({zlib.crc32(word.encode("utf-8", "replace")) % BUCKETS for word in words})
        ends.append(len(columns))
    counts = np.maximum(np.diff(ends), 1)
    weights = np.repeat(1 / np.sqrt(counts), np.diff(ends))
    hashed = np.asarray(columns, dtype=np.int32)
    rarity = np.log1p(len(texts) / np.maximum(np.bincount(hashed, minlength=BUCKETS), 1))
    return csr_array(
        (weights * rarity[hashed], hashed, np.asarray(ends)), shape=(len(texts), BUCKETS)
    )


def _shape(texts: Sequence[str]) -> Floats:
    """Log length, log number of words, and shares of digits, capitals and punctuation [n, 5]."""
    rows = []
    for text in texts:
        text = text[:MAX_CHARACTERS]
        n = max(1, len(text))
        digits = sum(map(str.isdigit, text)) / n
        capitals = sum(map(str.isupper, text)) / n
        marks = sum(not c.isalnum() and not c.isspace() for c in text) / n
        rows.append([np.log(n), np.log1p(len(text.split())), digits, capitals, marks])
    return _scaled(np.asarray(rows, dtype=np.float64).reshape(-1, 5))


def _labels(tables: Sequence[Table]) -> Floats:
    """The class of each row, one-hot for the fifty most frequent classes; a number as it is."""
    names = tables[0].rows.column_names
    if "value" in names:
        values = np.concatenate([np.asarray(t.column("value"), dtype=float) for t in tables])
        return _scaled(np.nan_to_num(values)[:, None])
    if "label" not in names:
        return np.zeros((sum(map(len, tables)), 0))
    labels = np.concatenate([np.asarray(t.column("label")) for t in tables])
    classes, counts = np.unique(labels, return_counts=True)
    frequent = classes[np.argsort(-counts, kind="stable")[:MAX_CLASSES]]
    if len(frequent) < 2:
        return np.zeros((len(labels), 0))
    return _scaled((labels[:, None] == frequent[None]).astype(np.float64))


def _scaled(table: Floats) -> Floats:
    spread = table.std(axis=0)
    return np.asarray((table - table.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0))


def _thumbnails(paths: Sequence[str]) -> Floats:
    """Images as thumbnails of 8 × 8 pixels [n, 192]."""
    from pathlib import Path

    from holdfast.data.images.decode import UnreadableImage, read_image

    pixels = np.zeros((len(paths), THUMBNAIL_SIDE * THUMBNAIL_SIDE * 3))
    for position, path in enumerate(paths):
        try:
            image = read_image(Path(path)).image
        except UnreadableImage as error:
            remedy = "Restore the file."
            raise DataError(str(path), "can no longer be read", str(error), remedy) from error
        small = np.asarray(image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE)))
        pixels[position] = small.reshape(-1) / 255
    return pixels
