"""Rows as drift sees them (``plugins/drift``): what a run's model says of a table, and the run's
reference, which is kept as ``reference.npz`` in its folder.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.row_texts import read_texts
from holdfast.analyses.vectors import predict_with_vectors
from holdfast.contract.run_folder import RECIPE
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, MachineError, RunError
from holdfast.core.files import write_atomically
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.run_files import check_files
from holdfast.core.seeds import generator
from holdfast.core.tasks import CLASSIFICATION_TASKS, GENERATIVE_TASKS, TAGGING_TASKS
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.plugins.drift.rows import (
    DriftRows,
    Reference,
    from_arrays,
    hashed_word_vectors,
    monitored_statistics,
    to_arrays,
    unit_vectors,
    word_row_counts,
)
from holdfast.runs.finished_run import FinishedRun

REFERENCE = "reference.npz"
# Validation rows that are kept; of a model that writes, whose answers take longest.
MAX_ROWS, MAX_GENERATED_ROWS = 1000, 100
RESTORE_ROWS = (
    "Put the rows that the run was made of back to where its recipe.yaml says, and ask once more: "
    "the reference is then kept in the run's folder. Or train again."
)


@dataclass(frozen=True, slots=True, eq=False)
class RunReference:
    """A run's reference with the vectors of its own model (``None`` where it gives none), and
    ``word_vectors`` [n, 256], the hashed words of the same rows, for models without vectors
    (``None`` for images)."""

    reference: Reference
    word_vectors: Floats | None

    @property
    def has_words_only(self) -> bool:
        """Whether only words tell rows from others."""
        return self.reference.rows.vectors is None

    def with_word_vectors(self) -> Reference:
        """The reference with the vectors of words in the place of the model's."""
        rows = replace(self.reference.rows, vectors=self.word_vectors)
        return replace(self.reference, rows=rows)


def load_reference(finished_run: FinishedRun) -> RunReference:
    """The run's reference: from its file, or made now of its validation rows and kept there.

    Raises ``RunError`` where neither the file nor the rows are there.
    """
    path = finished_run.run / REFERENCE
    if path.is_file():
        return _read_reference(path, finished_run)
    if not finished_run.has("valid"):
        reason = "a version of Holdfast made the run that kept no answers to such rows"
        raise _no_reference_error(
            path, reason, f"Train again with {finished_run.run / RECIPE} into another folder."
        )
    try:
        reference = _compute_reference(finished_run)
    except (RunError, DataError) as error:
        raise _no_reference_error(path, str(error).split("\n")[0], RESTORE_ROWS) from error
    because = (
        f"of {len(reference.reference)} validation rows, read again from the source "
        f"of {finished_run.run}"
    )
    stream = io.BytesIO()
    arrays: dict[str, Any] = to_arrays(
        reference.reference, reference.word_vectors, _model_mark(finished_run.result)
    )
    np.savez_compressed(stream, **arrays)
    try:
        write_atomically(path, lambda temporary: _write(temporary, stream.getvalue()))
    except (OSError, MachineError) as error:
        because += f"; it is not kept, since {REFERENCE} cannot be written: {error}"
    notify(Decision("reference", f"{len(reference.reference)} rows", because))
    return reference


def _read_reference(path: Path, finished_run: FinishedRun) -> RunReference:
    """The reference in the run's folder. Raises ``RunError`` where it is damaged, or of a model
    that is not there any more."""
    result = finished_run.result
    if REFERENCE in ((result.get("seal") or {}).get("files") or {}):
        check_files(finished_run.run, result, [REFERENCE])
    remedy = (
        f"Delete it: it is made again where the rows that {finished_run.run} was made of are there."
    )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            reference, words, mark = from_arrays({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise RunError(str(path), "cannot be read", str(error)[:200], remedy) from error
    if mark != _model_mark(result):
        raise RunError(str(path), "is of another run", None, remedy)
    return RunReference(reference, words)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _model_mark(result: dict[str, Any]) -> str:
    """What tells the model of a run from others: its weights' sums, the seal's first."""
    files = (result.get("seal") or {}).get("files") or {}
    sums = sorted(f"{k} {v['sha256']}" for k, v in files.items() if k.startswith("model/"))
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16] if sums else "unsealed"


def _compute_reference(finished_run: FinishedRun) -> RunReference:
    """Of at most ``MAX_ROWS`` validation rows, a fixed sample, read again from the run's source."""
    predictions = finished_run.told("valid")
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
    if finished_run.out_of_fold:
        because = "its model learned from every row, and is surer of these than of new ones"
        notify(Decision("vectors of the reference", "of words alone", because))
    else:
        answers, vectors = predict_with_vectors(finished_run.predictor, table)
        if predicted is None:
            predicted, confidence = answers.predictions, answers.confidence
    predicted = [None] * len(predictions) if predicted is None else predicted
    classes = predicted_classes(task, finished_run.names, predicted)
    rows = drift_rows(task, classes, texts, predicted, confidence, vectors)
    correct = None if predictions.wrong is None else 1.0 - predictions.wrong
    reference = Reference(rows, classes, correct, word_row_counts(texts or ()), len(predictions))
    words = None if texts is None else hashed_word_vectors(texts)
    # As it is written down, so that the first use says what later ones say.
    return RunReference(*from_arrays(to_arrays(reference, words, ""))[:2])


def drift_rows(
    task: str,
    classes: Sequence[str],
    texts: tuple[str, ...] | None,
    predictions: Sequence[object],
    confidence: Sequence[float | None],
    vectors: Floats | None,
    names: tuple[str, ...] | None = None,
) -> DriftRows:
    """What a model said of rows [n], as arrays: ``classes`` are those of answers that are one class
    each (none of others), ``texts`` what it was asked, where it was a text."""
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
    """The classes (``names``) of answers that are one class each; none of others."""
    one_class = task in CLASSIFICATION_TASKS
    first = next((one for one in predictions if one is not None), None)
    return tuple(names) if one_class and isinstance(first, str) else ()


def _no_reference_error(path: Path, reason: str, remedy: str) -> RunError:
    rule = "is missing, and cannot be made: what arrives is held against validation rows"
    return RunError(str(path), rule, reason, remedy)
