"""Data for the recipe's split strategy beyond the rows: the time, source or topic of each row."""

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


# The most rows on which topics are fitted; the others get the nearest topic.
MAX_SAMPLE = 50_000
MAX_SHOWN = 5


def split_strategy(recipe: Recipe, table: Table) -> SplitStrategy:
    """The split strategy of the recipe for ``table``.

    Raises ``RecipeError`` or ``DataError`` where the column that it splits by cannot be used.
    """
    split = recipe.data.split
    if split.stable:
        basis = "the name of its group" if table.has_groups else "its text"
        because = f"data.split.stable: each row's split depends only on {basis} and the seed"
        return SplitStrategy(stable=True, because=because)
    if split.by == "time":
        return _by_time(table, recipe)
    if split.by == "topic":
        return _by_topic(table, recipe)
    if split.by == "group":
        if not table.has_groups:
            raise RecipeError(
                "data.split.by", "is group, but the rows have no groups", None, _TEXTS
            )
        return _by_names("group", str(recipe.data.group), table.column("group"), split.held)
    if split.by == "source":
        column = str(recipe.data.source)
        values = _column(table, recipe, "source")
        # Used as a group: a row without a source is its own group.
        rows = table.column("row").tolist()
        names = [
            v.strip() if v and v.strip() else f"(no source) row {r}"
            for v, r in zip(values, rows, strict=True)
        ]
        return _by_names("source", column, names, split.held)
    return STRATIFIED


_TEXTS = "Name a column with data.group, or split by rows."


def _by_names(
    group_type: By, column: str, values: Sequence[str], held_out: tuple[str, ...] | None
) -> SplitStrategy:
    names, numbers = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    known_names = names.tolist()
    for name in held_out or ():
        if name not in known_names:
            raise RecipeError(
                "data.split.test_groups",
                f"names a {group_type} that does not occur in the column {column!r}",
                name,
                suggest_name(name, known_names[:1000])
                or f"Known: {', '.join(map(repr, known_names[:MAX_SHOWN]))} …",
            )
    held_indices = tuple(known_names.index(name) for name in held_out or ())
    because = (
        f"data.split.by: {group_type}: the {{side}} rows are complete {group_type}s of "
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
            f"has no valid time in {len(unread)} of {len(ages)} rows, so they cannot be split by "
            "time",
            values[first],
            "Write times as ISO 8601 (2024-05-31, 2024-05-31T12:00:00Z) or as numbers that "
            "increase with time, or remove rows without a time.",
        )
    because = f"data.split.by: time: the {{side}} rows are the newest by the column {column!r}"
    return SplitStrategy("time", because, ages=ages, moments=tuple(str(value) for value in values))


def parse_time(value: str | None) -> float:
    """A time as a number that increases with it: a number unchanged, ISO 8601 as seconds since 1970
    (UTC where no zone is given); NaN for anything else."""
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
            "data.split.by", "is topic, which needs texts", None, "Split images by rows or group."
        )
    topic_count = recipe.data.split.topics
    if len(table) < 3 * topic_count:
        rule = f"is {topic_count}, but {len(table)} rows are too few for that"
        remedy = f"Set data.split.topics to at most {max(3, len(table) // 3)}, or split by rows."
        raise RecipeError("data.split.topics", rule, topic_count, remedy)
    encoder, decisions = load_encoder(recipe)
    notify(*decisions)
    vectors = encoder(TableRows(table).texts)
    labels: Ints = table.column("label")
    topics = find_topics(vectors, labels, topic_count, derive_seed(recipe.seed, "topics"))
    because = (
        f"data.split.by: topic: the {{side}} rows are complete topics, out of {topic_count} "
        "clusters of the "
        f"vectors of {encoder.name} after class means are subtracted; scores are for topics that "
        "the model never saw, which is harder than a split by rows"
    )
    names = tuple(f"topic {number}" for number in range(topic_count))
    return SplitStrategy("topic", because, topics, names)


def find_topics(
    vectors: npt.NDArray[np.float32], labels: Ints, topics: int, seed: int
) -> npt.NDArray[np.int64]:
    """The topic of each row [n]: k-means on its vector [n, d] minus the mean of its class, scaled
    to unit length. Without subtracting class means, the clusters of a data set with many classes
    would be its classes, and a held-out class could not be learned."""
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
    if key in table.rows.column_names:  # tables of texts with one class include their sources
        own_values: list[str | None] = table.column(key)
        return own_values
    if Path(table.source).is_dir():
        rule = "names a column, but a folder of images has no columns"
        raise RecipeError(f"data.{key}", rule, None, "Give a table of paths, or split by rows.")
    data = recipe.data
    name = str(getattr(data, key))
    with_values = with_column(table, key, name, encoding=data.encoding, config=data.config)
    values: list[str | None] = with_values.column(key)
    return values
