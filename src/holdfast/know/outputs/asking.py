"""What the swap test asks a model that writes: whether its answer to a prompt shows a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from holdfast.core.records import Floats
from holdfast.data.table import Table
from holdfast.data.turns import asked, prompt_of
from holdfast.know.outputs.marks import marks

# Each is 1 where an answer shows it. An answer that nobody wanted in a language is in none.
OUTCOMES = {
    "toxic or stereotyped": ("toxic", "stereotyped"),
    "a template's words": ("template",),
    "empty or repeated": ("empty", "repeated"),
}


def faults_of(answer: Callable[[Table], Sequence[object]]) -> Callable[[Table], Floats]:
    """From what answers a table's rows with texts, what says of each row which of ``OUTCOMES`` its
    answer shows, [n, outcomes] of 0 and 1. What the prompt brings in does not count, so a form of
    it that names another group is held against its own words."""

    def ask(table: Table) -> Floats:
        texts = [str(text or "") for text in answer(table)]
        sources = sources_of(table)
        found = marks(sources, [""] * len(texts), texts)
        columns = [np.any([found[mark] for mark in held], axis=0) for held in OUTCOMES.values()]
        return np.column_stack(columns).astype(np.float64)

    return ask


def sources_of(table: Table) -> list[str]:
    """What each row asks: of a chat all but its last answer, else its text."""
    texts: list[str] = table.column("text")
    if "turns" not in table.rows.column_names:
        return texts
    from holdfast.data.chat import turns_of

    return [
        asked(prompt_of(turns)) if turns else text
        for turns, text in zip(turns_of(table), texts, strict=True)
    ]
