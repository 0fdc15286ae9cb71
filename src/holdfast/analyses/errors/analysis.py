"""Error analysis by row: which classes the model confuses, and the hardest test rows, each with its
nearest training rows.

``holdfast errors`` shows the errors and slices that the run stored, and can run further analyses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.analysis import Analysis, Session, recompute_block
from holdfast.analyses.row_scores import RowErrors, rate_estimate, row_errors
from holdfast.analyses.row_texts import decode_labels, read_texts
from holdfast.analyses.slices import analysis as slices
from holdfast.analyses.slices.conditions import RowFacts
from holdfast.analyses.slices.topics import content_words
from holdfast.contract.predictions import Predictions, groups_of
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase
from holdfast.data.images.table import image_name
from holdfast.data.table import Table
from holdfast.runs.finished_run import FinishedRun

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# A larger training set is searched through a fixed random sample.
MAX_TRAINING_ROWS = 10_000
NO_TEXTS = "rows hold no texts to compare by their words"
NO_CLASSES = "the model does not predict one class per row"
OLDER = "an older version of Holdfast made this run and did not store its validation predictions"
ONE_GROUP = "no interval: all its rows are of one group"
HARDEST, NEAREST = 10, 3
CONFUSIONS, EXAMPLES = 10, 2
# Below this cosine a training row has little in common with the row.
MIN_COSINE = 0.35
SHOWN_CHARACTERS = 300
# Regions of the data map (``training/listeners/examples.py``) that suggest a wrong label.
SUSPECT_REGIONS = ("unlearnable", "memorized", "relearned")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingNeighbours:
    """Training rows in which to look up similar rows: source ``rows`` [n], ``texts`` [n] and their
    ``words``, labels as the source writes them, and the data map's region by row."""

    rows: Ints
    texts: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    labels: tuple[object, ...]
    regions: Mapping[int, str]

    @classmethod
    def from_table(
        cls, table: Table, regions: Mapping[int, str], seed: int
    ) -> TrainingNeighbours | None:
        """At most 10,000 of the training rows; ``None`` for rows without texts."""
        if len(table) > MAX_TRAINING_ROWS:
            order = generator(seed, "training rows looked up").permutation(len(table))
            table = table.take(np.sort(order[:MAX_TRAINING_ROWS]))
        texts = read_texts(table)
        if texts is None or not texts:
            return None
        rows = np.asarray(table.column("row"), dtype=np.int64)
        words = RowFacts(len(table), texts).words
        return cls(rows, texts, words, tuple(decode_labels(table)), regions)

    def nearest(
        self, cosines: Floats, count: int, label: str | None = None
    ) -> list[dict[str, Any]]:
        """The ``count`` rows (of one ``label``) with the largest of the ``cosines`` [n], for JSON;
        none below 0.35."""
        # Rounded, so that rows with equal cosines keep the order of the source.
        cosines = np.round(cosines, 6)
        if label is not None:
            cosines = np.where([str(one) == label for one in self.labels], cosines, -1.0)
        order = np.argsort(-cosines, kind="stable")[:count]
        return [
            {
                "row": int(self.rows[place]),
                "text": self.texts[place][:SHOWN_CHARACTERS],
                "label": self.labels[place],
                "alike": round(float(cosines[place]), 3),
                "kind": self.regions.get(int(self.rows[place])),
            }
            for place in order
            if cosines[place] >= MIN_COSINE
        ]


@dataclass(frozen=True, eq=False)
class PredictedRows:
    """A model's predictions for test rows, and the training rows to look for neighbours in."""

    predictions: Predictions
    neighbours: TrainingNeighbours | None

    @cached_property
    def texts(self) -> tuple[str, ...] | None:
        return read_texts(self.predictions.table)

    @cached_property
    def vectors(self) -> tuple[csr_matrix, csr_matrix] | None:
        """The content words of the training rows [n, words] and of these rows, weighted by TF-IDF
        and of unit length; ``None`` without texts or words."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        if self.texts is None or self.neighbours is None:
            return None
        known = self.neighbours.words
        words = (*known, *RowFacts(len(self.predictions), self.texts).words)
        if not any(map(content_words, words)):
            return None
        # A word of these rows alone counts too: it makes a text less similar to all training rows.
        weights = TfidfVectorizer(analyzer=content_words, sublinear_tf=True)
        vectors = weights.fit_transform(words)
        return vectors[: len(known)], vectors[len(known) :]

    def row_json(self, place: int) -> dict[str, Any]:
        """The row number and text for JSON; of an image its path below the source."""
        table = self.predictions.table
        text = None if self.texts is None else self.texts[place][:SHOWN_CHARACTERS]
        if table.has_images:
            text = image_name(table.column("path")[place], table.source)
        return {"row": int(self.predictions.rows[place]), "text": text}

    def nearest(
        self, place: int, count: int, label: str | None = None
    ) -> list[dict[str, Any]] | None:
        """The training rows nearest to a row (of one ``label``); ``None`` without texts."""
        if self.neighbours is None or self.vectors is None:
            return None
        training, tested = self.vectors
        cosines = (training @ tested[place].T).toarray()[:, 0]
        return self.neighbours.nearest(cosines, count, label)


def find(session: Session) -> tuple[TrainingNeighbours | None]:
    """No search: prepare the training rows as neighbours."""
    return (
        TrainingNeighbours.from_table(
            session.train_rows, session.data_map_regions, session.recipe.seed
        ),
    )


def confirm(
    candidates: tuple[TrainingNeighbours | None], session: Session, test: Predictions
) -> dict[str, Any]:
    """``confusions`` and ``hardest``, with a reason for a part that does not apply."""
    rows, row_error = PredictedRows(test, candidates[0]), row_errors(test)
    block: dict[str, Any] = {"schema": 1, "what": row_error.measure, "confusions": []}
    one_class = test.table.columns.one_class and test.predictions is not None
    if one_class and test.wrong is not None and test.table.classes and row_error.is_rate:
        block["confusions"] = confusions(session.valid if session.has("valid") else None, rows)
    else:
        block["confusions_why"] = NO_CLASSES
    block["hardest"] = hardest_rows(rows, row_error)
    if rows.neighbours is None:
        block["nearest_why"] = NO_TEXTS
    return block


ANALYSIS = Analysis("errors", ("errors",), find, confirm)


def confusions(valid: Predictions | None, rows: PredictedRows) -> list[dict[str, Any]]:
    """The pairs (class, predicted class) that are most frequent among the wrong test rows, at most
    ten. Each has its number of rows, their share of the class (Wilson, by groups if there are any)
    and the number of such validation rows. Up to two rows each name the nearest training row of the
    predicted class."""
    pairs, valid_pairs = Counter(_pairs(rows.predictions)), Counter(_pairs(valid) if valid else ())
    ordered = sorted(pairs, key=lambda pair: (-pairs[pair], -valid_pairs[pair], pair))
    return [
        _confusion(pair, valid_pairs[pair] if valid else None, rows)
        for pair in ordered[:CONFUSIONS]
    ]


def _pairs(predictions: Predictions) -> list[tuple[str, str]]:
    """The pair (class, predicted class) of each wrong row."""
    labels = predictions.table.column("label")
    assert predictions.predictions is not None
    assert predictions.wrong is not None
    return [
        (predictions.table.classes[labels[place]], str(predictions.predictions[place]))
        for place in np.flatnonzero(predictions.wrong)
        if labels[place] >= 0
    ]


def _confusion(pair: tuple[str, str], n_valid: int | None, rows: PredictedRows) -> dict[str, Any]:
    (label, answer), test = pair, rows.predictions
    of_class = np.flatnonzero(test.table.column("label") == test.table.classes.index(label))
    assert test.predictions is not None
    hits = np.array([str(test.predictions[place]) == answer for place in of_class], dtype=bool)
    confused = of_class[hits]
    confused = confused[np.argsort(-test.losses[confused], kind="stable")]
    groups = groups_of(test.table)
    class_groups = None if groups is None else groups[of_class].astype(str)
    examples = []
    for place in confused[:EXAMPLES].tolist():
        neighbours = rows.nearest(place, 1, answer)
        loss = float(test.losses[place])
        examples.append(
            {**rows.row_json(place), "loss": loss, "like": neighbours[0] if neighbours else None}
        )
    return {
        "label": label,
        "answer": answer,
        "n": len(confused),
        "share": rate_estimate(hits, class_groups, ONE_GROUP).to_json(),
        "on_validation": n_valid,
        "examples": examples,
    }


def hardest_rows(rows: PredictedRows, row_error: RowErrors) -> list[dict[str, Any]]:
    """The ten rows of largest loss among those that are wrong (for numbers, tags and generated
    texts those of largest error [n]), each with its three nearest training rows and a sentence on
    what they suggest."""
    predictions, values = rows.predictions, row_error.values
    ranked_by = predictions.losses if row_error.is_rate else values
    order = np.lexsort((predictions.rows, -np.nan_to_num(ranked_by, nan=np.inf)))
    positions = [int(place) for place in order if np.isfinite(values[place]) and values[place] > 0]
    labels = decode_labels(predictions.table)
    entries = []
    for place in positions[:HARDEST]:
        probabilities = predictions.probabilities if row_error.is_rate else None
        entry: dict[str, Any] = {
            **rows.row_json(place),
            "label": labels[place],
            "prediction": None
            if predictions.predictions is None
            else predictions.predictions[place],
            "confidence": None if probabilities is None else float(probabilities[place].max()),
            row_error.measure: float(values[place]),
            "loss": float(predictions.losses[place]),
        }
        neighbours = rows.nearest(place, NEAREST)
        if neighbours is not None:
            entry |= {
                "nearest": neighbours,
                "because": _suspicion(entry, neighbours, row_error.is_rate),
            }
        entries.append(entry)
    return entries


def _suspicion(entry: Mapping[str, Any], neighbours: list[dict[str, Any]], wrong: bool) -> str:
    """A sentence on what the nearest training rows suggest about an error."""
    if not neighbours:
        return "no training row is similar to it"
    if not wrong:
        near = count_phrase(len(neighbours), "training row is", "training rows are")
        return f"{near} similar to it"
    suspects = [
        n for n in neighbours if n["kind"] in SUSPECT_REGIONS and n["label"] == entry["prediction"]
    ]
    if suspects:
        return (
            f"training row {suspects[0]['row']} is similar, has the predicted label, and was hard "
            "to learn: check whether that label is wrong"
        )
    n_predicted = sum(n["label"] == entry["prediction"] for n in neighbours)
    n_labelled = sum(n["label"] == entry["label"] for n in neighbours)
    if 2 * n_predicted > len(neighbours):
        return (
            f"{n_predicted} of the {len(neighbours)} nearest training rows have the "
            "predicted label: check "
            "whether this row's label is wrong"
        )
    if len(neighbours) == n_labelled == 1:
        return "the nearest training row has this row's label"
    if n_labelled:
        return f"{n_labelled} of the {len(neighbours)} nearest training rows have this row's label"
    return "the nearest training rows have other labels: examples like this one are missing"


def errors(folder: Path, *, robust: bool = False, topics: bool = False) -> dict[str, Any]:
    """The errors of a finished run: ``slices``, ``confusions`` and ``hardest`` rows, as in
    ``result.json``. For a run of an older version they are computed from what it stored.
    ``robust`` scores the model on changed test rows, which counts as another use of the test set.
    ``topics`` tests a second set of slices on the stored predictions: clusters of frozen MiniLM
    vectors of the texts. A generative model also has ``worth`` and ``outputs``, computed from the
    texts that the run generated.

    Raises ``RunError`` for a folder that is not a finished run, or whose sources have changed where
    their texts are needed; ``RecipeError`` for ``robust`` with a generative model.
    """
    from holdfast.analyses.outputs import generation_blocks
    from holdfast.analyses.robustness.analysis import refuse_task, robustness

    run = FinishedRun(folder)
    result = run.result
    if robust:
        refuse_task(str(result["task"]))
        if not run.n_test:
            rule = f"scores the model on changed test rows, and {folder} has none"
            raise RecipeError(
                "--robustness", rule, 0, "Leave the option out, or train with test rows."
            )
    failing = result.get("slices")
    if failing is None:
        failing = failing_slices(run)
    rows = result.get("errors")
    if rows is None:
        rows = wrong_rows(run)
    blocks = {
        "schema": 1,
        "task": result["task"],
        "slices": failing,
        **{name: value for name, value in rows.items() if name != "schema"},
        **generation_blocks(result),
        "topics": topic_slices(run) if topics else None,
        "robustness": robustness(run) if robust else None,
    }
    document: dict[str, Any] = to_json(blocks)
    return document


def failing_slices(run: FinishedRun) -> dict[str, Any]:
    """``slices`` from the predictions that a run stored."""
    if not run.has("valid") or not run.has("test"):
        return {"why": OLDER}
    notify(Decision("slices", "computed now", "the run stored no slices"))
    return recompute_block(slices.ANALYSIS, run)


def topic_slices(run: FinishedRun) -> dict[str, Any]:
    """Slices by topic only, in the vector space of a sentence encoder."""
    if not run.has("valid") or not run.has("test"):
        return {"why": OLDER}
    texts = f"{len(run.valid) + len(run.test)} texts"
    because = "the built-in sentence encoder (English) turns them into vectors"
    notify(Decision("topics", texts, because, prominent=True))
    return recompute_block(slices.TOPICS, run)


def wrong_rows(run: FinishedRun) -> dict[str, Any]:
    """``errors`` from the predictions that a run stored."""
    if not run.has("test"):
        why = "the run stored no predictions of test rows"
        return {"why": why, "confusions": [], "hardest": []}
    notify(Decision("hardest rows", "computed now", "the run stored no errors"))
    return recompute_block(ANALYSIS, run)
