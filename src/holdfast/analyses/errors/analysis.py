"""What a model gets wrong, row by row: confusions and hardest rows with what it learned nearby.

What does it get wrong? Confusions and hardest rows, beside the training rows nearest to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from holdfast.analyses.analysis import After, Analysis, Before
from holdfast.analyses.errors.confusions import confusions
from holdfast.analyses.errors.neighbours import TrainingNeighbours, hardest_rows
from holdfast.analyses.row_texts import given_labels, read_texts
from holdfast.analyses.slices.badness import badness
from holdfast.analyses.slices.facts import RowFacts
from holdfast.analyses.slices.topics import WordSpace
from holdfast.contract.predictions import Predictions
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.training.listeners.examples import ExampleHistory

# Of more training rows a fixed sample is looked through.
MOST_LEARNED = 10_000
NO_TEXTS = "rows are no texts whose words could be compared"
NO_CLASSES = "answers are not one class each"


def learned_rows(table: Table, kinds: Mapping[int, str], seed: int) -> TrainingNeighbours | None:
    """Training rows to look others up in, at most 10,000; ``None`` where there are no texts."""
    if len(table) > MOST_LEARNED:
        order = generator(seed, "training rows looked up").permutation(len(table))
        chosen = order[:MOST_LEARNED]
        table = table.take(np.sort(chosen))
    texts = read_texts(table)
    if texts is None:
        return None
    words = RowFacts(len(table), texts).words
    space = WordSpace.fit(words)
    if space is None:
        return None
    labels = tuple(given_labels(table))
    rows = np.asarray(table.column("row"), dtype=np.int64)
    return TrainingNeighbours(rows, texts, labels, space(words), space, kinds)


def errors_of(
    valid: Predictions | None, test: Predictions, learned: TrainingNeighbours | None
) -> dict[str, Any]:
    """``errors`` of ``result.json``: ``confusions`` and ``hardest``, with a why where a part does
    not apply."""
    texts, vectors = read_texts(test.table), None
    if texts is not None and learned is not None:
        vectors = learned.space(RowFacts(len(test), texts).words)
    bad = badness(test)
    block: dict[str, Any] = {"schema": 1, "what": bad.what, "confusions": []}
    one_class = test.table.columns.one_class and test.predictions is not None
    if one_class and test.wrong is not None and test.table.classes and bad.is_rate:
        block["confusions"] = confusions(valid, test, texts, vectors, learned)
    else:
        block["confusions_why"] = NO_CLASSES
    block["hardest"] = hardest_rows(test, texts, vectors, learned, bad.values, bad.what)
    if learned is None:
        block["nearest_why"] = NO_TEXTS
    return block


def find(before: Before) -> tuple[TrainingNeighbours | None]:
    """Nothing is looked for: what the training rows were like is put in order."""
    kinds: dict[int, str] = {}
    for listener in before.fitted.job.listeners:
        made = listener.data_map() if isinstance(listener, ExampleHistory) else None
        if made is not None:
            kinds |= dict(zip(made.rows.tolist(), made.kind, strict=True))
    table = before.fitted.ready.sides.train_rows.table
    return (learned_rows(table, kinds, before.fitted.recipe.seed),)


def confirm(found: tuple[TrainingNeighbours | None], after: After) -> dict[str, Any]:
    return errors_of(after.valid, after.test, found[0])


QUESTION = Analysis("errors", ("errors",), find, confirm)
