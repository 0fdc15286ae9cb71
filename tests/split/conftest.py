"""Tables in memory, and the real texts that the copies are searched in."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from holdfast.data.table import Columns, Table


@pytest.fixture(scope="session")
def make_table() -> Callable[..., Table]:
    return _make_table


def _make_table(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
    source_rows: int | None = None,
    source: str = "source.csv",
) -> Table:
    import datasets

    names = tuple(sorted(set(labels))) if classes is None else tuple(classes)
    columns: dict[str, object] = {
        "row": np.arange(len(texts)) if rows is None else np.asarray(rows, dtype=np.int64),
        "text": list(texts),
        "label": np.array([names.index(label) for label in labels], dtype=np.int64),
    }
    if groups is not None:
        columns["group"] = list(groups)
    if pairs is not None:
        columns["text_pair"] = list(pairs)
    held = datasets.Dataset.from_dict(columns)
    return Table(held, names, Columns(("text",), "label"), source, source_rows or len(texts))


@pytest.fixture(scope="session")
def real_texts(shared_data: Path) -> Callable[[str], tuple[list[str], list[str]]]:
    def read(name: str) -> tuple[list[str], list[str]]:
        with (shared_data / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [row["text"] for row in rows], [row["label"] for row in rows]

    return read


@pytest.fixture(scope="session")
def alter() -> Callable[[str, Sequence[str], random.Random], str]:
    """Replace max(1, n // 10) words of a text by random words of the corpus."""

    def altered(text: str, corpus: Sequence[str], rng: random.Random) -> str:
        words = text.split()
        for at in rng.sample(range(len(words)), max(1, len(words) // 10)):
            words[at] = rng.choice(corpus)
        return " ".join(words)

    return altered
