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
from holdfast.core.tasks import CLASSIFIERS, TAGGERS, WRITERS
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.plugins.drift.rows import (
    DriftRows,
    Reference,
    facts_of,
    hashed_words,
    of_arrays,
    rows_with,
    to_arrays,
    unit,
)
from holdfast.runs.finished_run import FinishedRun

REFERENCE = "reference.npz"
# Validation rows that are kept; of a model that writes, whose answers take longest.
MOST, MOST_WRITTEN = 1000, 100
BACK = (
    "Put the rows that the run was made of back to where its recipe.yaml says, and ask once more: "
    "the reference is then kept in the run's folder. Or train again."
)


@dataclass(frozen=True, slots=True, eq=False)
class RunReference:
    """A run's reference with the vectors of its own model, ``None`` where it gives none, and
    ``words`` [n, 256], hashed ones of the same rows, for whoever has no such vectors (``None`` of
    pictures)."""

    reference: Reference
    words: Floats | None

    @property
    def by_words(self) -> bool:
        """Whether only words tell rows from others."""
        return self.reference.rows.vectors is None

    def of_words(self) -> Reference:
        """The reference with the vectors of words in the place of the model's."""
        rows = replace(self.reference.rows, vectors=self.words)
        return replace(self.reference, rows=rows)


def held_reference(again: FinishedRun) -> RunReference:
    """The run's reference: from its file, or made now of its validation rows and kept there.

    Raises ``RunError`` where neither the file nor the rows are there.
    """
    path = again.run / REFERENCE
    if path.is_file():
        return _read_reference(path, again)
    if not again.has("valid"):
        why = "a version of Holdfast made the run that kept no answers to such rows"
        raise _nothing(path, why, f"Train again with {again.run / RECIPE} into another folder.")
    try:
        made = _made_reference(again)
    except (RunError, DataError) as error:
        raise _nothing(path, str(error).split("\n")[0], BACK) from error
    because = f"of {len(made.reference)} validation rows, read again from the source of {again.run}"
    stream = io.BytesIO()
    arrays: dict[str, Any] = to_arrays(made.reference, made.words, _mark(again.result))
    np.savez_compressed(stream, **arrays)
    try:
        write_atomically(path, lambda beside: _write(beside, stream.getvalue()))
    except (OSError, MachineError) as error:
        because += f"; it is not kept, since {REFERENCE} cannot be written: {error}"
    notify(Decision("reference", f"{len(made.reference)} rows", because))
    return made


def _read_reference(path: Path, again: FinishedRun) -> RunReference:
    """The reference in the run's folder. Raises ``RunError`` where it is damaged, or of a model
    that is not there any more."""
    result = again.result
    if REFERENCE in ((result.get("seal") or {}).get("files") or {}):
        check_files(again.run, result, [REFERENCE])
    remedy = f"Delete it: it is made again where the rows that {again.run} was made of are there."
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            reference, words, mark = of_arrays({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise RunError(str(path), "cannot be read", str(error)[:200], remedy) from error
    if mark != _mark(result):
        raise RunError(str(path), "is of another run", None, remedy)
    return RunReference(reference, words)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _mark(result: dict[str, Any]) -> str:
    """What tells the model of a run from others: its weights' sums, the seal's first."""
    files = (result.get("seal") or {}).get("files") or {}
    sums = sorted(f"{k} {v['sha256']}" for k, v in files.items() if k.startswith("model/"))
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16] if sums else "unsealed"


def _made_reference(again: FinishedRun) -> RunReference:
    """Of at most ``MOST`` validation rows, a fixed sample, read again from the run's source."""
    told = again.told("valid")
    task, seed = str(again.result["task"]), int(again.result.get("seed") or 0)
    most = MOST_WRITTEN if task in WRITERS else MOST
    if len(told) > most:
        order = generator(seed, "reference of drift").permutation(len(told))
        told = told.take(np.sort(order[:most]))
    table = told.table
    texts, vectors = read_texts(table), None
    said: Sequence[object] | None = told.predictions
    confidence: Sequence[float | None] = [None] * len(told)
    if told.sure is not None:
        confidence = [float(p) if p == p else None for p in told.sure]
    if again.out_of_fold:
        because = "its model learned from every row, and is surer of these than of new ones"
        notify(Decision("vectors of the reference", "of words alone", because))
    else:
        answers, vectors = predict_with_vectors(again.predictor, table)
        if said is None:
            said, confidence = answers.predictions, answers.confidence
    said = [None] * len(told) if said is None else said
    classes = answered_classes(task, again.names, said)
    rows = rows_of_answers(task, classes, texts, said, confidence, vectors)
    right = None if told.wrong is None else 1.0 - told.wrong
    reference = Reference(rows, classes, right, rows_with(texts or ()), len(told))
    words = None if texts is None else hashed_words(texts)
    # As it is written down, so that the first use says what later ones say.
    return RunReference(*of_arrays(to_arrays(reference, words, ""))[:2])


def rows_of_answers(
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
        place = {name: at for at, name in enumerate(classes)}
        answers = np.array([place.get(str(one), -1) for one in predictions], dtype=np.int64)
    outside = OUTSIDE if task in TAGGERS else None
    numbers = facts_of(texts, () if classes else predictions, confidence, outside)
    usable = None if vectors is None else unit(vectors)
    return DriftRows(len(predictions), usable, answers, numbers, texts, names)


def answered_classes(
    task: str, names: Sequence[str], predictions: Sequence[object]
) -> tuple[str, ...]:
    """The classes (``names``) of answers that are one class each; none of others."""
    one_class = task in CLASSIFIERS
    first = next((one for one in predictions if one is not None), None)
    return tuple(names) if one_class and isinstance(first, str) else ()


def _nothing(path: Path, why: str, remedy: str) -> RunError:
    rule = "is missing, and cannot be made: what arrives is held against validation rows"
    return RunError(str(path), rule, why, remedy)
