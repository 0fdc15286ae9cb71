"""What a recipe's way to divide needs beyond the rows: times, sources or topics of each row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from holdfast.core.decisions import notify
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Ints
from holdfast.core.seeds import derive_seed
from holdfast.core.tasks import IMAGE_TASKS
from holdfast.data.columns.extra import with_column
from holdfast.data.table import Table
from holdfast.recipe import Recipe
from holdfast.split.strategies import STRATIFIED, SplitStrategy

if TYPE_CHECKING:
    from holdfast.split.strategies import By


# Rows that topics are found on; the others join the nearest.
MAX_SAMPLE = 50_000
MAX_SHOWN = 5


def split_strategy(recipe: Recipe, table: Table) -> SplitStrategy:
    """How the recipe divides ``table``.

    Raises ``RecipeError`` or ``DataError`` where the column that it divides by cannot be used.
    """
    split = recipe.data.split
    if split.stable:
        basis = "the name of its group" if table.has_groups else "its text"
        because = f"data.split.stable: each row's side follows from {basis} and the seed alone"
        return SplitStrategy(stable=True, because=because)
    if split.by == "time":
        return _by_time(table, recipe)
    if split.by == "topic":
        return _by_topic(table, recipe)
    if split.by == "group":
        if not table.has_groups:
            raise RecipeError("data.split.by", "is group, and the rows have none", None, _TEXTS)
        return _by_names("group", str(recipe.data.group), table.column("group"), split.held)
    if split.by == "source":
        column = str(recipe.data.source)
        values = _column(table, recipe, "source")
        # As a group: a row without a source is one of its own.
        rows = table.column("row").tolist()
        names = [
            v.strip() if v and v.strip() else f"(no source) row {r}"
            for v, r in zip(values, rows, strict=True)
        ]
        return _by_names("source", column, names, split.held)
    return STRATIFIED


_TEXTS = "Name a column with data.group, or divide by rows."


def _by_names(
    group_type: By, column: str, values: Sequence[str], held_out: tuple[str, ...] | None
) -> SplitStrategy:
    names, numbers = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    known_names = names.tolist()
    for name in held_out or ():
        if name not in known_names:
            raise RecipeError(
                "data.split.held",
                f"names a {group_type} that no row of the column {column!r} has",
                name,
                suggest_name(name, known_names[:1000])
                or f"Known: {', '.join(map(repr, known_names[:MAX_SHOWN]))} …",
            )
    held_indices = tuple(known_names.index(name) for name in held_out or ())
    because = (
        f"data.split.by: {group_type}: the {{side}} rows are whole {group_type}s of "
        f"the column {column!r}"
    )
    return SplitStrategy(
        group_type, because, numbers.astype(np.int64), tuple(known_names), held_indices
    )


def _by_time(table: Table, recipe: Recipe) -> SplitStrategy:
    column = str(recipe.data.time)
    values = _column(table, recipe, "time")
    ages = np.array([parse_time(value) for value in values], dtype=np.float64)
    unread = np.flatnonzero(~np.isfinite(ages))
    if len(unread):
        first = int(unread[0])
        raise DataError(
            f"{table.source}, column {column!r}, row {int(table.column('row')[first])}",
            f"holds no time in {len(unread)} of {len(ages)} rows, so nobody knows on which side "
            "they belong",
            values[first],
            "Write times as ISO 8601 (2024-05-31, 2024-05-31T12:00:00Z) or as numbers that grow "
            "with time; leave rows without one out.",
        )
    because = f"data.split.by: time: the {{side}} rows are the newest by the column {column!r}"
    return SplitStrategy("time", because, ages=ages, moments=tuple(str(value) for value in values))


def parse_time(value: str | None) -> float:
    """A time as a number that grows with it: a number as it is, ISO 8601 in seconds since 1970 (UTC
    where no zone is given); NaN for anything else."""
    text = (value or "").strip()
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        return number if math.isfinite(number) else math.nan
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _by_topic(table: Table, recipe: Recipe) -> SplitStrategy:
    from holdfast.prepare.embedding import load_encoder
    from holdfast.quality.views import TableRows

    if recipe.task in IMAGE_TASKS:
        raise RecipeError(
            "data.split.by", "is topic, which texts have", None, "Divide pictures by rows or group."
        )
    topic_count = recipe.data.split.topics
    if len(table) < 3 * topic_count:
        raise RecipeError(
            "data.split.topics",
            f"are {topic_count}, for which {len(table)} rows are too few",
            topic_count,
            f"Set data.split.topics to at most {max(3, len(table) // 3)}, or divide by rows.",
        )
    encoder, decisions = load_encoder(recipe)
    notify(*decisions)
    vectors = encoder(TableRows(table).texts)
    labels: Ints = table.column("label")
    topics = find_topics(vectors, labels, topic_count, derive_seed(recipe.seed, "topics"))
    because = (
        f"data.split.by: topic: the {{side}} rows are whole topics, {topic_count} clusters "
        "of what the "
        f"vectors of {encoder.name} say beyond the classes; this number is of topics that the "
        "model never saw, and harder than that of a division by rows"
    )
    names = tuple(f"topic {number}" for number in range(topic_count))
    return SplitStrategy("topic", because, topics, names)


def find_topics(
    vectors: npt.NDArray[np.float32], labels: Ints, topics: int, seed: int
) -> npt.NDArray[np.int64]:
    """The topic of each row [n]: k-means of what is left of its vector [n, d] when the mean of its
    class is taken out, of unit length. Without that, the clusters of a set of many classes are its
    classes, and none could be learned."""
    from sklearn.cluster import MiniBatchKMeans

    residuals = vectors.astype(np.float32).copy()
    for label in np.unique(labels):
        in_class = labels == label
        residuals[in_class] -= residuals[in_class].mean(axis=0)
    residuals /= np.maximum(np.linalg.norm(residuals, axis=1, keepdims=True), 1e-9)
    sampled = np.random.default_rng(seed).permutation(len(residuals))[:MAX_SAMPLE]
    means = MiniBatchKMeans(
        topics, n_init=5, random_state=int(seed % (1 << 32)), batch_size=4096
    ).fit(residuals[np.sort(sampled)])
    return np.asarray(means.predict(residuals), dtype=np.int64)


def _column(table: Table, recipe: Recipe, key: str) -> list[str | None]:
    if key in table.rows.column_names:  # texts with a class each are read with their sources
        own_values: list[str | None] = table.column(key)
        return own_values
    if Path(table.source).is_dir():
        raise RecipeError(
            f"data.{key}",
            "is a column, and a folder of pictures has none",
            None,
            "Give a table of paths, or divide by rows.",
        )
    data = recipe.data
    name = str(getattr(data, key))
    with_values = with_column(table, key, name, encoding=data.encoding, config=data.config)
    values: list[str | None] = with_values.column(key)
    return values
