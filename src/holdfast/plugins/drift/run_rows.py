"""A run's predictions as drift rows, and the run's reference, stored as ``reference.npz`` in its
folder."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.row_texts import read_texts
from holdfast.analyses.vectors import predict_with_vectors
from holdfast.contract.predictions import SplitName
from holdfast.contract.run_folder import RECIPE
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, MachineError, RunError
from holdfast.core.files import write_atomically
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.run_files import check_files
from holdfast.core.seeds import generator
from holdfast.core.tasks import CLASSIFICATION_TASKS, GENERATIVE_TASKS, IMAGE_TASKS, TAGGING_TASKS
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.plugins.drift.rows import (
    WORDS,
    DriftRows,
    Reference,
    from_arrays,
    hashed_word_vectors,
    monitored_statistics,
    to_arrays,
    unit_vectors,
    word_row_counts,
)
from holdfast.plugins.drift.vectors import MIN_REFERENCE_ROWS
from holdfast.runs.finished_run import FinishedRun

REFERENCE = "reference.npz"
# Validation rows in a reference; fewer for generative models, whose outputs take longest.
MAX_ROWS, MAX_GENERATED_ROWS = 1000, 100
DESCRIPTIONS: Mapping[SplitName, str] = {"valid": "validation rows", "test": "test rows"}
RESTORE_ROWS = (
    "Put the run's data back where its recipe.yaml says, and run the command again: Holdfast then "
    "stores the reference in the run's folder. Or train again."
)


@dataclass(frozen=True, slots=True, eq=False)
class RunReference:
    """A run's reference with the vectors of its own model (``None`` where the model gives none),
    and ``word_vectors`` [n, 256], the hashed words of the same rows, for models without vectors
    (``None`` for images)."""

    reference: Reference
    word_vectors: Floats | None

    @property
    def has_words_only(self) -> bool:
        """Whether rows can only be compared by their words."""
        return self.reference.rows.vectors is None

    def with_word_vectors(self) -> Reference:
        """The reference with word vectors in place of the model's vectors."""
        rows = replace(self.reference.rows, vectors=self.word_vectors)
        return replace(self.reference, rows=rows)


def load_reference(finished_run: FinishedRun) -> RunReference:
    """Load the run's reference from its file, or compute it from its rows and store it.

    Raises ``RunError`` where neither the file nor the rows exist.
    """
    path = finished_run.run / REFERENCE
    if path.is_file():
        stored = _read_reference(path, finished_run)
        if not finished_run.out_of_fold or _lacks_fold_predictions(stored.reference, finished_run):
            return stored
    if not finished_run.has("valid"):
        reason = "the version of Holdfast that trained this run stored no validation predictions"
        raise _no_reference_error(
            path, reason, f"Train again with {finished_run.run / RECIPE} into another folder."
        )
    split = reference_split(finished_run)
    if finished_run.out_of_fold and split == "valid" and finished_run.result["task"] in IMAGE_TASKS:
        reason = "its model learned from all rows but those, and pictures have no words to compare"
        remedy = f"Train again with at least {MIN_REFERENCE_ROWS} test rows."
        raise _no_reference_error(path, f"{finished_run.n_test} test rows: {reason}", remedy)
    if split == "test":
        _record_opening(finished_run)
    try:
        reference = _compute_reference(finished_run, split)
    except (RunError, DataError) as error:
        raise _no_reference_error(path, str(error).split("\n")[0], RESTORE_ROWS) from error
    because = (
        f"computed from {len(reference.reference)} {reference.reference.description}, read again "
        f"from the source of {finished_run.run}"
    )
    stream = io.BytesIO()
    arrays: dict[str, Any] = to_arrays(
        reference.reference, reference.word_vectors, _model_mark(finished_run.result)
    )
    np.savez_compressed(stream, **arrays)
    try:
        write_atomically(path, lambda temporary: _write(temporary, stream.getvalue()))
    except (OSError, MachineError) as error:
        because += f"; it is not stored, because {REFERENCE} cannot be written: {error}"
    notify(Decision("reference", f"{len(reference.reference)} rows", because))
    return reference


def _record_opening(finished_run: FinishedRun) -> None:
    """Note in the run that its test rows are used again."""
    try:
        finished_run.reopen("drift", ["reference"])
    except MachineError as error:
        # The reference cannot be stored then either, and drift is measured without.
        notify(Decision("test rows", "used again", f"this cannot be recorded: {error}"))


def _lacks_fold_predictions(stored: Reference, finished_run: FinishedRun) -> bool:
    """Whether a reference has no predictions of a cross-fitted run's folds, as those that earlier
    versions stored have."""
    if stored.description == DESCRIPTIONS["test"]:
        return True
    rows = stored.rows
    has_words_only = rows.vectors is None and rows.answers is None and set(rows.numbers) <= {WORDS}
    return has_words_only and reference_split(finished_run) == "valid"


def _read_reference(path: Path, finished_run: FinishedRun) -> RunReference:
    """Read the reference in the run's folder. Raises ``RunError`` where it is damaged, or belongs
    to a model that has since been replaced."""
    result = finished_run.result
    if REFERENCE in ((result.get("seal") or {}).get("files") or {}):
        check_files(finished_run.run, result, [REFERENCE])
    remedy = (
        "Delete the file. Holdfast computes it again, if the data that "
        f"{finished_run.run} was trained on still exists."
    )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            reference, words, mark = from_arrays({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise RunError(str(path), "cannot be read", str(error)[:200], remedy) from error
    if mark != _model_mark(result):
        raise RunError(str(path), "belongs to another run", None, remedy)
    return RunReference(reference, words)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _model_mark(result: dict[str, Any]) -> str:
    """A mark that identifies the run's model: a hash of its weights' checksums, from the seal."""
    files = (result.get("seal") or {}).get("files") or {}
    sums = sorted(f"{k} {v['sha256']}" for k, v in files.items() if k.startswith("model/"))
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16] if sums else "unsealed"


def _compute_reference(finished_run: FinishedRun, split: SplitName) -> RunReference:
    """Compute the reference from at most ``MAX_ROWS`` rows of its ``split``, a fixed sample, read
    again from the run's source."""
    was_trained_on = finished_run.out_of_fold and split == "valid"
    predictions = finished_run.predictions_of(split)
    task, seed = str(finished_run.result["task"]), int(finished_run.result.get("seed") or 0)
    limit = MAX_GENERATED_ROWS if task in GENERATIVE_TASKS else MAX_ROWS
    if len(predictions) > limit:
        order = generator(seed, "reference of drift").permutation(len(predictions))
        predictions = predictions.take(np.sort(order[:limit]))
    table = predictions.table
    texts, vectors = read_texts(table), None
    predicted: Sequence[object] | None = predictions.predictions
    confidence: Sequence[float | None] = [None] * len(predictions)
    if predictions.confidence is not None:
        confidence = [float(p) if p == p else None for p in predictions.confidence]
    if not was_trained_on:
        answers, vectors = predict_with_vectors(finished_run.predictor, table)
        if predicted is None:
            predicted, confidence = answers.predictions, answers.confidence
    predicted = [None] * len(predictions) if predicted is None else predicted
    classes = predicted_classes(task, finished_run.names, predicted)
    if was_trained_on:
        because = (
            "these rows were predicted by the models of the folds; this model was trained on "
            "these rows, so it is more confident on them than on new rows"
        )
        notify(Decision("reference", "words and text length only", because))
        predicted = confidence = [None] * len(predictions)
    rows = drift_rows(task, classes, texts, predicted, confidence, vectors)
    if was_trained_on:
        rows = replace(rows, answers=None)
    correct = None if predictions.wrong is None else 1.0 - predictions.wrong
    counts, description = word_row_counts(texts or ()), DESCRIPTIONS[split]
    reference = Reference(rows, classes, correct, counts, len(predictions), description)
    words = None if texts is None else hashed_word_vectors(texts)
    # In the precision that is stored, so that the first use gives the same results as later ones.
    return RunReference(*from_arrays(to_arrays(reference, words, ""))[:2])


def reference_split(finished_run: FinishedRun) -> SplitName:
    """The split of the reference: the validation rows, or the test rows of a cross-fitted run, if
    there are enough for every test."""
    enough = finished_run.n_test >= MIN_REFERENCE_ROWS
    return "test" if finished_run.out_of_fold and enough else "valid"


def drift_rows(
    task: str,
    classes: Sequence[str],
    texts: tuple[str, ...] | None,
    predictions: Sequence[object],
    confidence: Sequence[float | None],
    vectors: Floats | None,
    names: tuple[str, ...] | None = None,
) -> DriftRows:
    """A model's predictions of rows [n] as arrays. ``classes`` are the names where each prediction
    is one class (empty otherwise); ``texts`` are the inputs, where they are texts."""
    answers: Ints | None = None
    if classes:
        class_index = {name: at for at, name in enumerate(classes)}
        answers = np.array([class_index.get(str(one), -1) for one in predictions], dtype=np.int64)
    outside = OUTSIDE if task in TAGGING_TASKS else None
    numbers = monitored_statistics(texts, () if classes else predictions, confidence, outside)
    unit_rows = None if vectors is None else unit_vectors(vectors)
    return DriftRows(len(predictions), unit_rows, answers, numbers, texts, names)


def predicted_classes(
    task: str, names: Sequence[str], predictions: Sequence[object]
) -> tuple[str, ...]:
    """The classes (``names``) where each prediction is one class; empty otherwise."""
    one_class = task in CLASSIFICATION_TASKS
    first = next((one for one in predictions if one is not None), None)
    return tuple(names) if one_class and isinstance(first, str) else ()


def _no_reference_error(path: Path, reason: str, remedy: str) -> RunError:
    rule = "is missing or outdated, and cannot be computed: new rows are compared with it"
    return RunError(str(path), rule, reason, remedy)
