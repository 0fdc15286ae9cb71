"""Which words and pairs of words carry each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.analyses.analysis import After, Analysis, Before, NoAnswer
from holdfast.analyses.explain.class_words import (
    ROWS,
    WordCandidate,
    candidates,
    confirmed,
    grams,
    others_of,
    places_of,
)
from holdfast.analyses.explain.explain import asked_text, texts_of
from holdfast.analyses.explain.masking import log_odds
from holdfast.contract.predictions import Predictions
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.runs.predictor import Predictor
from holdfast.tasks.classes.answers import TextUse

NOT_HERE = "words that carry a class are looked for where texts have classes or labels"
NOTHING = "no word stands in enough of the rows: five, and 2 % of them"
FALSE_ALARMS = {
    "share": 0.05,
    "what": "runs in which any of six candidates that are like other words would be confirmed, at "
    "most: the test is exact, and Holm's adjustment holds it for all of them together",
}


@dataclass(frozen=True, slots=True)
class Searched:
    """The candidates, and how many rows they were looked for in."""

    found: tuple[WordCandidate, ...]
    rows: int


def find(before: Before) -> Searched | NoAnswer:
    told = (before.train, before.valid)
    if "text" not in told[0].table.rows.column_names or told[0].probabilities is None:
        return NoAnswer(NOT_HERE)
    texts = [row for side in told for row in texts_of(side.table)]
    chances = np.concatenate([np.asarray(side.probabilities) for side in told])
    found = candidates(texts, chances, told[0].names, _labels(told))
    return Searched(found, len(texts)) if found else NoAnswer(NOTHING)


def _labels(told: Sequence[Predictions]) -> Ints | None:
    """The class of each row, where it has one."""
    if any(not side.table.columns.one_class for side in told):
        return None
    return np.concatenate([np.asarray(side.table.column("label")) for side in told])


def confirm(searched: Searched, after: After) -> Mapping[str, Any]:
    costs, others = [], []
    for one in searched.found:
        mine, theirs = costs_of(after.predictor, one, after.test.table)
        costs.append(mine)
        others.append(theirs)
    return {
        "rows_searched": searched.rows,
        "words": [one.to_json() for one in confirmed(searched.found, costs, others)],
        "false_alarms": FALSE_ALARMS,
    }


def costs_of(predictor: Predictor, one: WordCandidate, table: Table) -> tuple[Floats, Floats]:
    """By how much the log-odds of the candidate's class fall without its words, and without as many
    others of the same row, [n] of at most ``ROWS`` rows with them, the first in a fixed order."""
    use = predictor.model
    assert isinstance(use, TextUse)
    place = use.names.index(one.name)
    mine, theirs = [], []
    texts = texts_of(table)
    for at in _holding(one, texts):
        with predictor.alone():
            asked = asked_text(use, table, at)
            units = asked.read.parted.words(texts[at])
            taken = places_of(one.words, units)
            key = (" ".join(one.words), *texts[at])
            control = others_of(taken, len(units), generator(0, "other words", *key))
            if control is None:
                continue
            masks = np.ones((3, len(units)), dtype=bool)
            masks[1, taken], masks[2, control] = False, False
            outputs = asked.outputs(masks)
        sets = use.labels == "several"
        odds = outputs[:, place] if sets else log_odds(outputs, place)
        mine.append(float(odds[0] - odds[1]))
        theirs.append(float(odds[0] - odds[2]))
    return np.asarray(mine), np.asarray(theirs)


def _holding(one: WordCandidate, texts: Sequence[tuple[str, ...]]) -> list[int]:
    """Rows with the candidate's words, at most ``ROWS``."""
    order = generator(0, "rows of a word", *one.words).permutation(len(texts))
    found = []
    for at in order:
        row = texts[at]
        # Quick, before a text is taken apart.
        if all(word in " ".join(row).lower() for word in one.words) and one.words in grams(row):
            found.append(int(at))
        if len(found) == ROWS:
            break
    return sorted(found)


QUESTION: Analysis[Searched] = Analysis("words that carry a class", ("reasons",), find, confirm)
