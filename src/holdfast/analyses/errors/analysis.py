"""What a model gets wrong, row by row: which class it takes for which, and the hardest rows, each
beside the training rows nearest to it, which say what it learned there.

``holdfast errors`` shows what the run found of them, with its slices, and asks more of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.analysis import Analysis, Session, confirmed_again
from holdfast.analyses.row_scores import Badness, badness, rate_estimate
from holdfast.analyses.row_texts import given_labels, read_texts
from holdfast.analyses.slices import analysis as slices
from holdfast.analyses.slices.conditions import RowFacts
from holdfast.analyses.slices.topics import WordSpace
from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.runs.finished_run import FinishedRun

# Of more training rows a fixed sample is looked through.
MOST_LEARNED = 10_000
NO_TEXTS = "rows are no texts whose words could be compared"
NO_CLASSES = "answers are not one class each"
OLDER = "a version of Holdfast made this run that did not keep what it says of validation rows"
ONE_GROUP = "no interval: all its rows are of one group"
HARDEST, NEAREST = 10, 3
CONFUSIONS, EXAMPLES = 10, 2
# Below this cosine a training row has little in common with the row.
ALIKE = 0.35
SHOWN = 300
# Kinds of the data map (``training/listeners/examples.py``) that a wrong label makes of a row.
SUSPECT = ("unlearnable", "memorized", "relearned")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingNeighbours:
    """Training rows by which others are looked up: source ``rows`` [n], ``texts`` [n], labels as
    the source writes them, ``vectors`` [n, d] of unit length in ``space``, and what the data map
    says of them by row."""

    rows: Ints
    texts: tuple[str, ...]
    labels: tuple[object, ...]
    vectors: Floats
    space: WordSpace
    kinds: Mapping[int, str]

    @classmethod
    def of(cls, table: Table, kinds: Mapping[int, str], seed: int) -> TrainingNeighbours | None:
        """At most 10,000 of the training rows; ``None`` where there are no texts."""
        if len(table) > MOST_LEARNED:
            order = generator(seed, "training rows looked up").permutation(len(table))
            table = table.take(np.sort(order[:MOST_LEARNED]))
        texts = read_texts(table)
        words = () if texts is None else RowFacts(len(table), texts).words
        space = None if texts is None else WordSpace.fit(words)
        if texts is None or space is None:
            return None
        labels = tuple(given_labels(table))
        rows = np.asarray(table.column("row"), dtype=np.int64)
        return cls(rows, texts, labels, space(words), space, kinds)

    def nearest(
        self, vector: Floats, count: int, among: Bools | None = None
    ) -> list[dict[str, Any]]:
        """The nearest rows for JSON, the nearest first, of those that are at all alike."""
        # Rounded, so that rows that are as near stand in the order of the source.
        near = np.round(self.vectors @ vector, 6)
        if among is not None:
            near = np.where(among, near, -1.0)
        order = np.argsort(-near, kind="stable")[:count]
        return [
            {
                "row": int(self.rows[place]),
                "text": self.texts[place][:SHOWN],
                "label": self.labels[place],
                "alike": round(float(self.vectors[place] @ vector), 3),
                "kind": self.kinds.get(int(self.rows[place])),
            }
            for place in order
            if near[place] >= ALIKE
        ]


@dataclass(frozen=True, eq=False)
class AnsweredRows:
    """What a model said of test rows, and the training rows that they are looked up in."""

    told: Predictions
    learned: TrainingNeighbours | None

    @cached_property
    def texts(self) -> tuple[str, ...] | None:
        return read_texts(self.told.table)

    @cached_property
    def vectors(self) -> Floats | None:
        """The rows in the space of the training rows [n, d]."""
        if self.texts is None or self.learned is None:
            return None
        return self.learned.space(RowFacts(len(self.told), self.texts).words)

    def shown(self, place: int) -> dict[str, Any]:
        """A row as a reader finds it in the source."""
        text = None if self.texts is None else self.texts[place][:SHOWN]
        return {"row": int(self.told.rows[place]), "text": text}

    def nearest(
        self, place: int, count: int, label: str | None = None
    ) -> list[dict[str, Any]] | None:
        """The training rows nearest to a row (of one ``label``); ``None`` without texts."""
        if self.learned is None or self.vectors is None:
            return None
        among = None
        if label is not None:
            among = np.array([str(one) == label for one in self.learned.labels])
        return self.learned.nearest(self.vectors[place], count, among)


def find(session: Session) -> tuple[TrainingNeighbours | None]:
    """Nothing is looked for: what the training rows were like is put in order."""
    return (TrainingNeighbours.of(session.train_rows, session.kinds, session.recipe.seed),)


def confirm(
    found: tuple[TrainingNeighbours | None], session: Session, test: Predictions
) -> dict[str, Any]:
    """``confusions`` and ``hardest``, with a why where a part does not apply."""
    rows, bad = AnsweredRows(test, found[0]), badness(test)
    block: dict[str, Any] = {"schema": 1, "what": bad.what, "confusions": []}
    one_class = test.table.columns.one_class and test.predictions is not None
    if one_class and test.wrong is not None and test.table.classes and bad.is_rate:
        block["confusions"] = confusions(session.valid if session.has("valid") else None, rows)
    else:
        block["confusions_why"] = NO_CLASSES
    block["hardest"] = hardest_rows(rows, bad)
    if rows.learned is None:
        block["nearest_why"] = NO_TEXTS
    return block


ANALYSIS = Analysis("errors", ("errors",), find, confirm)


def confusions(valid: Predictions | None, rows: AnsweredRows) -> list[dict[str, Any]]:
    """The pairs (class, answer) that are most frequent among the test rows, at most ten: how many
    rows, which share of the class (Wilson, by groups where there are some), how many of the
    validation rows, and for up to two rows the nearest training row of the class that was answered,
    which the model may have taken it for."""
    pairs, before = Counter(_pairs(rows.told)), Counter(_pairs(valid) if valid else ())
    ordered = sorted(pairs, key=lambda pair: (-pairs[pair], -before[pair], pair))
    return [_of_pair(pair, before[pair] if valid else None, rows) for pair in ordered[:CONFUSIONS]]


def _pairs(told: Predictions) -> list[tuple[str, str]]:
    """The pair of each wrong row."""
    labels = told.table.column("label")
    assert told.predictions is not None
    assert told.wrong is not None
    return [
        (told.table.classes[labels[place]], str(told.predictions[place]))
        for place in np.flatnonzero(told.wrong)
        if labels[place] >= 0
    ]


def _of_pair(pair: tuple[str, str], before: int | None, rows: AnsweredRows) -> dict[str, Any]:
    (label, answer), test = pair, rows.told
    of_class = np.flatnonzero(test.table.column("label") == test.table.classes.index(label))
    assert test.predictions is not None
    hits = np.array([str(test.predictions[place]) == answer for place in of_class], dtype=bool)
    taken = of_class[hits]
    taken = taken[np.argsort(-test.losses[taken], kind="stable")]
    groups = np.asarray(test.table.column("group")) if test.table.has_groups else None
    own = None if groups is None else groups[of_class].astype(str)
    examples = []
    for place in taken[:EXAMPLES].tolist():
        like = rows.nearest(place, 1, answer)
        loss = float(test.losses[place])
        examples.append({**rows.shown(place), "loss": loss, "like": like[0] if like else None})
    return {
        "label": label,
        "answer": answer,
        "n": len(taken),
        "share": rate_estimate(hits, own, ONE_GROUP).to_json(),
        "on_validation": before,
        "examples": examples,
    }


def hardest_rows(rows: AnsweredRows, bad: Badness) -> list[dict[str, Any]]:
    """The ten rows of the largest loss among those that are wrong (of numbers, tags and written
    texts those of the largest badness [n]), each with its three nearest training rows and a
    sentence that says what these let one suspect."""
    told, values = rows.told, bad.values
    by = told.losses if bad.is_rate else values
    order = np.lexsort((told.rows, -np.nan_to_num(by, nan=np.inf)))
    chosen = [int(place) for place in order if np.isfinite(values[place]) and values[place] > 0]
    labels = given_labels(told.table)
    found = []
    for place in chosen[:HARDEST]:
        chances = told.probabilities if bad.is_rate else None
        entry: dict[str, Any] = {
            **rows.shown(place),
            "label": labels[place],
            "prediction": None if told.predictions is None else told.predictions[place],
            "confidence": None if chances is None else float(chances[place].max()),
            bad.what: float(values[place]),
            "loss": float(told.losses[place]),
        }
        near = rows.nearest(place, NEAREST)
        if near is not None:
            entry |= {"nearest": near, "because": _suspicion(entry, near, bad.is_rate)}
        found.append(entry)
    return found


def _suspicion(entry: Mapping[str, Any], near: list[dict[str, Any]], wrong: bool) -> str:
    """What the nearest training rows say of an error."""
    if not near:
        return "no training row is similar to it"
    if not wrong:
        return f"{len(near)} training rows are similar to it"
    doubted = [n for n in near if n["kind"] in SUSPECT and n["label"] == entry["prediction"]]
    if doubted:
        return (
            f"training row {doubted[0]['row']} is similar, has the predicted label, and was hard "
            "to learn: check whether that label is wrong"
        )
    as_said = sum(n["label"] == entry["prediction"] for n in near)
    as_labelled = sum(n["label"] == entry["label"] for n in near)
    if 2 * as_said > len(near):
        return (
            f"{as_said} of the {len(near)} nearest training rows have the predicted label: check "
            "whether this row's label is wrong"
        )
    if as_labelled:
        return f"{as_labelled} of the {len(near)} nearest training rows have this row's label"
    return "the nearest training rows have other labels: examples like this one are missing"


def errors(folder: Path, *, robust: bool = False, topics: bool = False) -> dict[str, Any]:
    """The errors of a finished run: ``slices``, ``confusions`` and ``hardest`` rows, as
    ``result.json`` has them; of a run by an older version they are worked out from what it stored.
    ``robust`` asks the model about changed test rows, which opens them again; ``topics`` asks the
    stored answers a second question, about clusters of frozen MiniLM vectors of the texts. Of a
    model that writes there are ``worth`` and ``outputs`` too, of the texts that the run wrote.

    Raises ``RunError`` for a folder that is no finished run, or whose sources have changed where
    their texts are needed; ``RecipeError`` for ``robust`` where a model writes texts.
    """
    from holdfast.analyses.outputs import written_blocks
    from holdfast.analyses.robustness.analysis import refuse_task, robustness

    run = FinishedRun(folder)
    result = run.result
    if robust:
        refuse_task(str(result["task"]))
        if not (result.get("test") or {}).get("n"):
            rule = f"asks about changed test rows, and {folder} has none"
            raise RecipeError("--robustness", rule, 0, "Leave it out, or train with test rows.")
    failing = result.get("slices")
    if failing is None:
        failing = failing_slices(run)
    rows = result.get("errors")
    if rows is None:
        rows = wrong_rows(run)
    found = {
        "schema": 1,
        "task": result["task"],
        "slices": failing,
        **{name: value for name, value in rows.items() if name != "schema"},
        **written_blocks(result),
        "topics": topic_slices(run) if topics else None,
        "robustness": robustness(run) if robust else None,
    }
    document: dict[str, Any] = to_json(found)
    return document


def failing_slices(run: FinishedRun) -> dict[str, Any]:
    """``slices`` by what a run stored of its answers."""
    if not run.has("valid") or not run.has("test"):
        return {"why": OLDER}
    notify(Decision("slices", "looked for now", "the run has none stored"))
    return confirmed_again(slices.ANALYSIS, run)


def topic_slices(run: FinishedRun) -> dict[str, Any]:
    """The same of topics alone, in the space of a sentence encoder."""
    if not run.has("valid") or not run.has("test"):
        return {"why": OLDER}
    texts = f"{len(run.valid) + len(run.test)} texts"
    because = "they become vectors of the sentence encoder that comes along (English)"
    notify(Decision("topics", texts, because, prominent=True))
    return confirmed_again(slices.TOPICS, run)


def wrong_rows(run: FinishedRun) -> dict[str, Any]:
    """``errors`` by what a run stored of its answers."""
    if not run.has("test"):
        return {"why": "the run stored no answers to test rows", "confusions": [], "hardest": []}
    notify(Decision("hardest rows", "looked up now", "the run has none stored"))
    return confirmed_again(ANALYSIS, run)
